"""The probability from which a binary model says yes: from a cost, a capacity, a rate, or given."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from cumulant.core import units
from cumulant.core.errors import UsageError
from cumulant.training.dataset import TrainingSet
from cumulant.training.spec import Threshold, TrainingSpec

Floats = NDArray[np.float64]

#: positives below this share of the rows are rare: few of them reach a probability of 0.5
RARE = 0.10

_ALERTS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(hour|day|week)\s*")
_PERIODS = {"hour": 3_600_000_000, "day": 86_400_000_000, "week": 604_800_000_000}


def decide(spec: TrainingSpec, rows: TrainingSet, p: Floats, *, share: float = 1.0) -> tuple[float, str]:
    """The threshold, and how it was found, from out-of-fold probabilities `p` [n] of `rows`.

    Numbers as costs give the threshold of least expected cost, fp / (fp + fn), which holds for calibrated
    probabilities (Elkan 2001, The foundations of cost-sensitive learning). Costs in columns give the threshold
    that would have cost least on `rows`. A capacity or a rate takes as many of the highest scores. `share` is
    the part that `rows` are of all rows of their time.

    Raises:
        UsageError: a capacity is not written as `100/day`, or rows have no time for it.
    """
    wanted = spec.threshold
    if isinstance(wanted, Threshold):
        return _of_rule(wanted, rows, p, share)
    if wanted is not None:
        if not 0 <= wanted <= 1:
            raise UsageError(f"a threshold of {wanted} is no probability", hint="write a number from 0 to 1")
        return float(wanted), f"given: {wanted:g}"
    if spec.cost is None:
        return 0.5, "default: 0.5"
    missed, alarm = spec.cost.false_negative, spec.cost.false_positive
    if isinstance(missed, str) or isinstance(alarm, str):
        assert rows.false_negative is not None
        assert rows.false_positive is not None
        found = cheapest(rows.target, p, rows.false_negative, rows.false_positive)
        return found, f"least cost on out-of-fold rows: {found:.4g}"
    if missed + alarm <= 0:
        raise UsageError("both costs of a wrong decision are 0", hint="give training.cost at least one positive number")
    found = alarm / (alarm + missed)
    return found, f"cost {alarm:g} of a false alarm against {missed:g} of a miss: {found:.4g}"


def advice(share: float, *, timed: bool) -> str | None:
    """What to add to the project file where positives are rare and nothing says what a decision is worth; else None.

    `share` is the part of the rows that are positive; `timed` whether rows have a time, which a capacity needs.
    """
    if not 0 < share < RARE:
        return None
    misses = round(1 / share)
    lines = [
        f"`cost: {{false_negative: {misses}, false_positive: 1}}` (a miss costs {misses} false alarms)",
        f"`threshold: {{rate: {100 * share:.2g}%}}` (the share to call positive)",
    ]
    if timed:
        lines.append("`threshold: {alerts: 100/day}` (what a team can look at)")
    return (
        f"only {100 * share:.2g}% of the rows are positive, and nothing says what a decision is worth: yes is said "
        "from a probability of 0.5, which few rows reach, so that most positives may be missed. "
        f"Under `training:` in cumulant.yaml write, with your own figures, {', or '.join(lines)}"
    )


def _of_rule(rule: Threshold, rows: TrainingSet, p: Floats, share: float) -> tuple[float, str]:
    if (rule.alerts is None) == (rule.rate is None):
        raise UsageError(
            "training.threshold needs one of `alerts` and `rate`", hint="write `threshold: {alerts: 100/day}`"
        )
    if rule.rate is not None:
        part = units.share(rule.rate)
        found = highest(p, part * len(p))
        return found, f"the highest {part:.2%} of scores: {found:.4g}"
    assert rule.alerts is not None
    match = _ALERTS.fullmatch(rule.alerts)
    if match is None:
        raise UsageError(f'"{rule.alerts}" is no capacity', hint="write a number and hour, day or week: 100/day")
    if rows.at is None:
        raise UsageError(
            f"a capacity of {rule.alerts} needs rows with a time",
            hint="declare event_time of the source, or use `rate`",
        )
    periods = len(np.unique(rows.at // _PERIODS[match[2]]))
    found = highest(p, float(match[1]) * periods * share)
    return found, f"{rule.alerts} on out-of-fold rows of {periods} {match[2]}s: {found:.4g}"


def highest(p: Floats, count: float) -> float:
    """A threshold that at most `count` of `p` reach: halfway to the next lower score. Above 1: none."""
    whole = math.floor(count + 1e-9)
    ordered = np.sort(p)[::-1]
    if whole >= len(ordered):
        return 0.0
    # rows tied with the first one left out do not fit either
    least_left_out = ordered[whole]
    fitting = ordered[:whole][ordered[:whole] > least_left_out]
    upper = float(fitting[-1]) if len(fitting) else 1.0
    if not len(fitting) and least_left_out >= 1.0:
        return math.nextafter(1.0, 2.0)
    return _between(float(least_left_out), upper)


def cheapest(truth: Floats, p: Floats, false_negative: Floats, false_positive: Floats) -> float:
    """The threshold with the least total cost on these rows; halfway between the scores that it parts."""
    order = np.argsort(-p, kind="stable")
    scores, target = p[order], truth[order]
    saved = np.where(target > 0.5, false_negative[order], -false_positive[order])
    gain = np.concatenate(([0.0], np.cumsum(saved)))
    ends = np.concatenate(([0], np.flatnonzero(np.r_[scores[1:] != scores[:-1], True]) + 1))
    best = int(ends[int(np.argmax(gain[ends]))])
    if best == 0:
        return _between(float(scores[0]), 1.0) if len(scores) and scores[0] < 1 else math.nextafter(1.0, 2.0)
    return _between(float(scores[best]), float(scores[best - 1])) if best < len(scores) else 0.0


def _between(low: float, high: float) -> float:
    """Above `low`, at most `high`."""
    middle = (low + high) / 2
    return middle if low < middle <= high else high
