"""How many cases a draw may take: the budget of the period, spread over the time that is looked at."""

from __future__ import annotations

import math
from datetime import datetime

import msgspec

from cumulant.review.cases import Queue
from cumulant.review.policy import ReviewPolicy


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """`cases` may be taken now, `sample` of them at random; the period has `left`, and a draw needs `least`."""

    cases: int
    sample: int
    left: int
    least: int
    carry: float
    period: str

    @property
    def enough(self) -> bool:
        return self.cases >= self.least > 0


def allowance(
    policy: ReviewPolicy, queue: Queue, *, since: datetime, until: datetime, at_once: bool = False
) -> Allowance:
    """What a draw over the rows from `since` to `until` may take.

    Time that is looked at brings cases at the budget's rate, up to one period's; what was not used is carried on.
    A draw waits until there is enough for one random case, so that no row is passed over without a chance. `at_once`
    takes what the period has left.
    """
    budget, name = int(policy.budget.number), policy.budget.period_of(until)
    left = budget - (queue.queued if queue.period == name else 0)
    carry = min(float(budget), queue.carry + budget * ((until - since) / policy.budget.length))
    cases = max(0, left if at_once else min(left, math.floor(carry + 1e-9)))
    part = policy.sample
    least = 1 if at_once or not part else min(budget, math.ceil(1 / part))
    sample = min(cases, max(1, round(part * cases))) if part and cases else 0
    return Allowance(cases=cases, sample=sample, left=left, least=least, carry=carry, period=name)


def after(queue: Queue, found: Allowance, *, until: datetime, taken: int) -> Queue:
    """The queue when `taken` cases were queued."""
    before = queue.queued if queue.period == found.period else 0
    return msgspec.structs.replace(
        queue,
        until=until,
        carry=max(0.0, found.carry - taken),
        period=found.period,
        queued=before + taken,
        draws=queue.draws + 1,
    )
