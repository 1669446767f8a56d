"""Comparison of retraining policies and histories by loss, with intervals, and the conclusion in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

import msgspec
import numpy as np

from cumulant.monitoring.backtest import Replay

#: losses that are nearer than this part of each other are equal: the same models scored the same rows
_EQUAL = 1e-9
_LEVEL = 0.95


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Mean loss of a row above another's, with a 95% interval over windows; None where fewer than three differ."""

    value: float
    low: float | None
    high: float | None


class PolicyResult(msgspec.Struct, frozen=True, kw_only=True):
    """One policy over the history, and the difference of its loss from the first policy's.

    `better`: no more loss and trainings than the first policy, and less of one.
    """

    rule: str
    loss: float
    difference: Difference | None
    trainings: tuple[datetime, ...]
    alarms: int
    waits: int
    looks: int
    losses: tuple[float | None, ...]
    better: bool


class HistoryResult(msgspec.Struct, frozen=True, kw_only=True):
    """The first rule with one kind of history. `setting`: what to write as `monitoring.retrain.history`."""

    history: str
    setting: str
    loss: float
    difference: Difference | None
    trainings: tuple[datetime, ...]
    best: bool


def difference(losses: Sequence[float | None], others: Sequence[float | None], rows: Sequence[int]) -> Difference:
    """Ratio estimate of the mean difference of a row of two replays, by t over windows (Cochran 1977, 6.3).

    Windows count as independent. `rows`: of each window.
    """
    pairs = [
        (loss - other, count)
        for loss, other, count in zip(losses, others, rows, strict=True)
        if loss is not None and other is not None and count
    ]
    value, weight = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs], dtype=np.float64)
    mean = float(np.average(value, weights=weight))
    if np.count_nonzero(value) < 3:
        return Difference(value=mean, low=None, high=None)
    from scipy.stats import t

    rest = weight * (value - mean)
    n = len(value)
    error = math.sqrt(float((rest**2).sum()) * n / (n - 1)) / float(weight.sum())
    radius = float(t.ppf((1 + _LEVEL) / 2, n - 1)) * error
    return Difference(value=mean, low=mean - radius, high=mean + radius)


def beats(result: Replay, other: Replay) -> bool:
    """No more loss and no more trainings, and less of one of them."""
    same = math.isclose(result.loss, other.loss, rel_tol=_EQUAL)
    fewer = len(result.trainings) < len(other.trainings)
    if same:
        return fewer
    return result.loss < other.loss and len(result.trainings) <= len(other.trainings)


def best_of(replays: Sequence[Replay]) -> int:
    """The place of the least loss; of equal ones the first with the fewest trainings."""
    least = min(replay.loss for replay in replays)
    near = [place for place, replay in enumerate(replays) if math.isclose(replay.loss, least, rel_tol=_EQUAL)]
    return min(near, key=lambda place: len(replays[place].trainings))


def write_conclusion(rules: Sequence[PolicyResult], histories: Sequence[HistoryResult]) -> tuple[str, ...]:
    """The conclusion, in sentences."""
    return (*_of_rules(rules), *_of_histories(histories))


def _of_rules(rules: Sequence[PolicyResult]) -> tuple[str, ...]:
    main = rules[0]
    never = next(result for result in rules if result.rule == "never")
    rule = f"The {main.rule} rule" if main.rule == "default" else "The project's rule"
    count = len(main.trainings)
    saved = 1 - main.loss / never.loss if never.loss else 0.0
    against = f"{abs(saved):.1%} {'less' if saved >= 0 else 'more'} than never training again"
    first = f"{rule} would have trained {_times(count)}, for a loss of {figure(main.loss)}: {against}."
    if not count:
        first = f"{rule} would not have trained: its loss of {figure(main.loss)} is that of the first model."
    better = [result for result in rules if result.better]
    if not better:
        return first, "No listed rule has less loss with as few trainings."
    named = "; ".join(
        f"{result.rule} ({figure(result.loss)}, {_times(len(result.trainings)) or 'no training'}"
        f"{_chance_note(result.difference)})"
        for result in better
    )
    return (
        first,
        f"{'This rule does' if len(better) == 1 else 'These rules do'} better with no more trainings: {named}.",
    )


def _of_histories(histories: Sequence[HistoryResult]) -> tuple[str, ...]:
    if not histories:
        return ()
    own, best = histories[0], next(result for result in histories if result.best)
    if best is own:
        return (f"No history listed does better than {own.history}, which is in force.",)
    high = None if best.difference is None else best.difference.high
    figures = f"{figure(best.loss)} against {figure(own.loss)} with {own.history}, which is in force"
    if high is None or high >= 0:
        return (f"The history {best.history} has the least loss, {figures}; that may be chance.",)
    write = f"write `history: {best.setting}`" if best.setting != "{}" else "leave out `history`"
    return (f"The history {best.history} has the least loss, {figures}: {write} under monitoring.retrain.",)


def figure(loss: float) -> str:
    """Four figures, whatever the unit: a Brier loss of rare events is small, a squared error may be large."""
    return f"{loss:#.4g}" if loss < 1000 else f"{loss:,.0f}"


def _times(count: int) -> str:
    return {0: "", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _chance_note(interval: Difference | None) -> str:
    return "" if interval is None or interval.high is None or interval.high < 0 else ", within chance"
