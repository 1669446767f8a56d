"""How many cases a draw may take: the budget of the period, spread over the time of the draw."""

from __future__ import annotations

import math
from datetime import datetime

import msgspec

from cumulant.review.cases import QueueState
from cumulant.review.policy import ReviewPolicy


class ReviewAllowance(msgspec.Struct, frozen=True, kw_only=True):
    """`cases` may be taken now, `sample` of them at random; the period has `remaining`, and a draw needs `least`."""

    cases: int
    sample: int
    remaining: int
    least: int
    carry: float
    period: str

    @property
    def enough(self) -> bool:
        return self.cases >= self.least > 0


def compute_allowance(
    policy: ReviewPolicy, queue: QueueState, *, since: datetime, until: datetime, at_once: bool = False
) -> ReviewAllowance:
    """The cases that a draw over the rows from `since` to `until` may take.

    The budget accrues with the time covered, up to one period's, and the rest is carried over. A draw waits until one
    random case is due. `at_once` takes what remains of the period.
    """
    budget, name = int(policy.budget.number), policy.budget.period_of(until)
    remaining = budget - (queue.queued if queue.period == name else 0)
    carry = min(float(budget), queue.carry + budget * ((until - since) / policy.budget.length))
    cases = max(0, remaining if at_once else min(remaining, math.floor(carry + 1e-9)))
    part = policy.sample
    least = 1 if at_once or not part else min(budget, math.ceil(1 / part))
    sample = min(cases, max(1, round(part * cases))) if part and cases else 0
    return ReviewAllowance(cases=cases, sample=sample, remaining=remaining, least=least, carry=carry, period=name)


def charge_queue(queue: QueueState, allowance: ReviewAllowance, *, until: datetime, taken: int) -> QueueState:
    """The queue when `taken` cases were queued."""
    before = queue.queued if queue.period == allowance.period else 0
    return msgspec.structs.replace(
        queue,
        until=until,
        carry=max(0.0, allowance.carry - taken),
        period=allowance.period,
        queued=before + taken,
        draws=queue.draws + 1,
    )
