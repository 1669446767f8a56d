"""The review queue: the predictions that people should look at, what they say of them, and what follows from it.

`Choice` chooses cases from the prediction log with known chances; `Desk` holds them in the journal, where reviewers
take, decide, skip and escalate them; `reviewed` and `ingest` make labels of what was decided. Needs Polars.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.review.budget import Allowance, after, allowance, rate
    from cumulant.review.cases import Answer, Case, Draw, Lease, Note, Queue, case_id
    from cumulant.review.choosing import Candidate, Choice, Chosen, luck, usefulness
    from cumulant.review.desk import Desk
    from cumulant.review.events import AnswersLabelled, CaseClosed, CaseMoved, CasesQueued
    from cumulant.review.labels import SOURCE, Reviewed, ingest, reviewed, shown
    from cumulant.review.moves import Reviewer, wants_second
    from cumulant.review.reasons import Reference
    from cumulant.review.report import Figures, error_figures, error_inputs, figures
    from cumulant.review.spec import ReviewSpec

_HOMES = {
    "Allowance": "budget",
    "Answer": "cases",
    "AnswersLabelled": "events",
    "Candidate": "choosing",
    "Case": "cases",
    "CaseClosed": "events",
    "CaseMoved": "events",
    "CasesQueued": "events",
    "Choice": "choosing",
    "Chosen": "choosing",
    "Desk": "desk",
    "Draw": "cases",
    "Figures": "report",
    "Lease": "cases",
    "Note": "cases",
    "Queue": "cases",
    "Reference": "reasons",
    "ReviewSpec": "spec",
    "Reviewed": "labels",
    "Reviewer": "moves",
    "SOURCE": "labels",
    "after": "budget",
    "allowance": "budget",
    "case_id": "cases",
    "error_figures": "report",
    "error_inputs": "report",
    "figures": "report",
    "ingest": "labels",
    "luck": "choosing",
    "rate": "budget",
    "reviewed": "labels",
    "shown": "labels",
    "usefulness": "choosing",
    "wants_second": "moves",
}

__all__ = [
    "SOURCE",
    "Allowance",
    "Answer",
    "AnswersLabelled",
    "Candidate",
    "Case",
    "CaseClosed",
    "CaseMoved",
    "CasesQueued",
    "Choice",
    "Chosen",
    "Desk",
    "Draw",
    "Figures",
    "Lease",
    "Note",
    "Queue",
    "Reference",
    "ReviewSpec",
    "Reviewed",
    "Reviewer",
    "after",
    "allowance",
    "case_id",
    "error_figures",
    "error_inputs",
    "figures",
    "ingest",
    "luck",
    "rate",
    "reviewed",
    "shown",
    "usefulness",
    "wants_second",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
