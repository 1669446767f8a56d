"""The probability from which a binary model says yes: from a cost, a capacity, a rate, or given."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cumulant.core import units
from cumulant.core.errors import UsageError
from cumulant.training.dataset import TrainingSet
from cumulant.training.evaluation.traffic_rows import DAY, ScoredTraffic
from cumulant.training.policy import ThresholdPolicy, TrainingPolicy

Floats = NDArray[np.float64]

#: positives below this share of the rows are rare: few of them reach a probability of 0.5
RARE = 0.10

#: fewer days tell nothing of a change of traffic
_LEAST_DAYS = 5


def decide(
    spec: TrainingPolicy, rows: TrainingSet, p: Floats, *, traffic: ScoredTraffic | None = None
) -> tuple[float, str]:
    """The threshold, and how it was found, from out-of-fold probabilities `p` [n] of `rows`.

    Numbers as costs give the threshold of least expected cost, fp / (fp + fn), which holds for calibrated
    probabilities (Elkan 2001, The foundations of cost-sensitive learning). Costs in columns give the threshold
    that would have cost least on `rows`. A capacity or a rate takes as many of the highest scores of `traffic`: of all
    rows that were scored, with a label or without; default: `rows` alone.

    Raises:
        UsageError: rows have no time for a capacity.
    """
    wanted = spec.threshold
    if isinstance(wanted, ThresholdPolicy):
        return _of_rule(wanted, _traffic(rows, p) if traffic is None else traffic)
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
        stands = sampling_weight(rows)
        threshold = cheapest(rows.target, p, rows.false_negative * stands, rows.false_positive * stands)
        return threshold, f"least cost on out-of-fold rows: {threshold:.4g}"
    if missed + alarm <= 0:
        raise UsageError("both costs of a wrong decision are 0", hint="give training.cost at least one positive number")
    threshold = alarm / (alarm + missed)
    return threshold, f"cost {alarm:g} of a false alarm against {missed:g} of a miss: {threshold:.4g}"


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


def uncounted(rule: ThresholdPolicy | float, rows: TrainingSet) -> str | None:
    """What to say where a capacity counts fewer rows than were scored: reviewers labelled rows without a label,
    and the source holds none of the others.
    """
    if not isinstance(rule, ThresholdPolicy) or rule.alerts is None or rule.source_share is not None:
        return None
    if rows.traffic is not None or rows.reviewed is None or not rows.reviewed.any():
        return None
    return (
        f"every row has a label or was reviewed, so that {rule.alerts} counts no row without a label: where the source "
        "lacks requests that the model scores, more alerts will come. Keep rows without a label in the source, or "
        "write under `training:` in cumulant.yaml which part of them it holds, as `source_share: 30%` beside `alerts`"
    )


def _traffic(rows: TrainingSet, p: Floats) -> ScoredTraffic:
    return ScoredTraffic(scores=p, sampling_weight=sampling_weight(rows), at=rows.at)


def sampling_weight(rows: TrainingSet) -> Floats:
    """[n] how many rows of the traffic each stands for; 1 where nothing is declared."""
    return np.ones(len(rows)) if rows.sampling_weight is None else rows.sampling_weight


def _of_rule(rule: ThresholdPolicy, traffic: ScoredTraffic) -> tuple[float, str]:
    if (rule.alerts is None) == (rule.rate is None):
        raise UsageError(
            "training.threshold needs one of `alerts` and `rate`", hint="write `threshold: {alerts: 100/day}`"
        )
    described = f"{traffic.rows:,.0f} rows"
    if traffic.unlabelled:
        described += f", {traffic.unlabelled:,} of them only counted"
    if rule.rate is not None:
        threshold, drifted = _of_share(traffic, rule.rate)
        return threshold, f"the highest {rule.rate:.2%} of scores of {described}{drifted}: {threshold:.4g}"
    assert rule.alerts is not None
    count, spanned = _capacity(rule.alerts, traffic)
    share = 1.0 if rule.source_share is None else rule.source_share
    growth = _growth(traffic)
    threshold, drifted = _of_share(traffic, count * share / max(traffic.rows * growth, 1.0))
    described += "" if share == 1 else f", which are {share:.3g} of the traffic"
    described += (
        "" if growth == 1 else f"; the newest days have {growth - 1:.0%} more rows than the mean, and are counted"
    )
    return threshold, f"{rule.alerts} on out-of-fold rows of {spanned} ({described}{drifted}): {threshold:.4g}"


def _capacity(alerts: units.Rate, traffic: ScoredTraffic) -> tuple[float, str]:
    """How many of the rows a capacity lets through, and the time that they span, in words.

    Raises:
        UsageError: rows have no time.
    """
    check_timed(alerts, timed=traffic.at is not None)
    assert traffic.at is not None
    periods = traffic.periods(units.micros(alerts.length))
    return alerts.number * periods, f"{periods:.4g} {alerts.period}s"


def check_timed(alerts: units.Rate, *, timed: bool) -> None:
    """Raises UsageError where a capacity is declared and rows have no time to count it by."""
    if not timed:
        raise UsageError(
            f"a capacity of {alerts} needs rows with a time",
            hint="declare event_time of the source, or use `rate`",
        )


def _of_share(traffic: ScoredTraffic, share: float) -> tuple[float, str]:
    """The threshold that `share` of the rows reach; where more of those of the newest span do, beyond chance, that of
    the newest span: scores have risen.
    """
    limit = highest(traffic.scores, share * traffic.rows, traffic.sampling_weight)
    newest = traffic.newest()
    if newest is None:
        return limit, ""
    rows, reached = newest.by_day(newest.scores >= limit)
    if not _above(reached - share * rows):
        return limit, ""
    highest_of_newest = highest(newest.scores, share * newest.rows, newest.sampling_weight)
    return max(highest_of_newest, limit), f"; scores have risen: those of the newest {len(rows)} days alone"


def _growth(traffic: ScoredTraffic) -> float:
    """How many times as many rows a day the newest span has as all have; 1 unless there are more, beyond chance."""
    newest = traffic.newest()
    if newest is None or not len(newest.scores):
        return 1.0
    rows, _ = newest.by_day(newest.scores >= 0)
    mean = traffic.rows / traffic.periods(DAY)
    return float(newest.rows / newest.periods(DAY) / mean) if _above(rows - mean) else 1.0


def _above(excess: Floats) -> bool:
    """Whether the mean over days is above 0 beyond chance: a one-sided t-test at 5%."""
    from scipy.stats import t

    days = len(excess)
    if days < _LEAST_DAYS:
        return False
    return bool(excess.mean() > t.ppf(0.95, days - 1) * excess.std(ddof=1) / math.sqrt(days))


def highest(p: Floats, count: float, weight: Floats | None = None) -> float:
    """A threshold that at most `count` of `p` reach: halfway to the next lower score. Above 1: none.

    `weight` [n]: how many rows each score stands for; default: one each.
    """
    order = np.argsort(-p, kind="stable")
    scores, reached = p[order], np.cumsum(np.ones(len(p)) if weight is None else weight[order])
    # rows with one score are over the threshold together, or none of them
    ends = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True])
    fitting = ends[reached[ends] <= count * (1 + 1e-9) + 1e-9]
    if len(fitting) == len(ends):
        return 0.0
    if not len(fitting):
        return math.nextafter(1.0, 2.0) if scores[0] >= 1 else _between(float(scores[0]), 1.0)
    last = int(fitting[-1])
    return _between(float(scores[last + 1]), float(scores[last]))


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
