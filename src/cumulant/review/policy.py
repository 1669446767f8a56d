"""The review policy, as numbers: made once by `project.policies.monitoring`."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import msgspec

from cumulant.core.units import Rate
from cumulant.review.spec import Reason


class ReviewPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The review queue. Shares are fractions from 0 to 1."""

    #: rows a period, at least one
    budget: Rate
    #: share of the budget that is drawn at random
    sample: float
    reasons: tuple[Reason, ...]
    #: share of the rows whose set of possible answers may miss the truth
    error: float
    #: share of the training rows that lie as far out as a row called far
    far: float
    slices: tuple[str, ...]
    deadline: timedelta
    fallback: Literal["drop", "escalate"]
    lease: timedelta
    blind: bool
    #: share of the cases that two reviewers decide
    second: float
    escalate_to: tuple[str, ...]
    reviewers: Literal["hashed", "named"]
    weights: Literal["none", "sampling"]
