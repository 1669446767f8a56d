"""The review queue: the predictions that people should look at, what they say of them, and what follows from it.

`Choice` chooses cases from the prediction log with known chances; `Desk` holds them in the journal, where reviewers
take, decide, skip and escalate them; `reviewed` and `ingest` make labels of what was decided. Needs Polars.
"""
