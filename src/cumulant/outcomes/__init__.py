"""Outcomes of predictions: labels that come late, and their join with the prediction log.

`ingest_file` and `ingest_inbox` ingest labels; `Outcomes` joins them with the log and gives each newly labelled
prediction, and each mirrored request, once. Needs Polars.
"""
