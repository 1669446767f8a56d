"""What the queue has shown: how much was answered, how far reviewers agree, how often the model was wrong overall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from cumulant import statistics
from cumulant.review.cases import Case, Draw


class ReasonFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of the cases with a reason: how many, how many are done, and on how many the model was wrong."""

    queued: int
    done: int
    wrong: int


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The queue in numbers. `rows` were looked at in all draws; `used_for_training` is of the newest training.

    `agreement`: Cohen's kappa of first and second opinions. `error`: the share of all rows looked at on which the
    model was wrong, corrected for how cases were drawn; `counted` the share among the cases, which is higher because
    they were chosen to be hard.
    """

    model: str
    rows: int
    draws: int
    queued: int
    #: of these, taken for their usefulness; the others were drawn at random
    ranked: int
    waiting: int
    leased: int
    escalated: int
    done: int
    expired: int
    labelled: int
    used_for_training: int
    reasons: dict[str, ReasonFigures]
    agreement: dict[str, Any] | None
    error: dict[str, Any] | None
    counted: float | None
    #: share of the random cases that have an answer: without it the figures hold only if silence is chance
    answered: float | None


def figures(
    model: str,
    opened: Sequence[Case],
    closed: Sequence[Case],
    draws: Sequence[Draw],
    wrong: Mapping[str, bool],
    *,
    leased: int = 0,
    used: int = 0,
    error: Callable[[Sequence[Case], Mapping[str, bool]], dict[str, Any] | None] | None = None,
) -> Figures:
    """`wrong`: by case, whether the model's decision was another than the reviewers'. `error` is `error_figures`, or
    what stores its results.
    """
    done = [one for one in closed if one.status == "done"]
    every = [*opened, *closed]
    agreement = agreed(every)
    judged = [one for one in done if one.id in wrong]
    return Figures(
        model=model,
        rows=sum(draw.rows for draw in draws),
        draws=len(draws),
        queued=len(every),
        ranked=sum(not _drawn(one) for one in every),
        waiting=len(opened),
        leased=leased,
        escalated=sum(one.escalated for one in opened),
        done=len(done),
        expired=len(closed) - len(done),
        labelled=sum(one.told for one in done),
        used_for_training=used,
        reasons=_by_reason(every, wrong),
        agreement=None if agreement is None else _plain(agreement),
        error=(error or error_figures)(every, wrong),
        counted=sum(wrong[one.id] for one in judged) / len(judged) if judged else None,
        answered=_answered(every),
    )


def agreed(cases: Sequence[Case]) -> statistics.Agreement | None:
    """Cohen's kappa of the first and the second decision of cases that have two; None where none has."""
    pairs = [one.decisions[:2] for one in cases if len(one.decisions) > 1]
    if not pairs:
        return None
    first, second = ([str(pair[place].label) for pair in pairs] for place in (0, 1))
    return statistics.cohen_kappa(statistics.contingency_table(first, second))


def corrected(cases: Sequence[Case], wrong: Mapping[str, bool]) -> statistics.Weighted | None:
    """The model's share of errors over all rows that were looked at; None without a random case that is done.

    Cases taken for their usefulness alone say nothing of the others. A random case that has no answer was as good as
    not drawn: those of its draw that have one stand for more rows each (Särndal, Swensson & Wretman, 1992, chapter 15).
    """
    drawn = Counter(one.draw for one in cases if _drawn(one))
    judged = [one for one in cases if one.id in wrong]
    told = Counter(one.draw for one in judged if _drawn(one))
    if not told:
        return None
    import numpy as np

    chances = np.array([one.chance * (told[one.draw] / drawn[one.draw] if _drawn(one) else 1.0) for one in judged])
    return statistics.hajek(np.array([float(wrong[one.id]) for one in judged]), chances)


def error_figures(cases: Sequence[Case], wrong: Mapping[str, bool]) -> dict[str, Any] | None:
    """`corrected` as plain values, whose infinite ends are None."""
    found = corrected(cases, wrong)
    return None if found is None else _plain(found)


def error_inputs(cases: Sequence[Case], wrong: Mapping[str, bool]) -> list[object]:
    """All that `error_figures` depends on."""
    return [[one.draw, _drawn(one), one.chance, wrong.get(one.id)] for one in cases]


def _by_reason(cases: Sequence[Case], wrong: Mapping[str, bool]) -> dict[str, ReasonFigures]:
    queued, done, missed = Counter[str](), Counter[str](), Counter[str]()
    for one in cases:
        queued.update(one.reasons)
        done.update(one.reasons if one.status == "done" else ())
        missed.update(one.reasons if wrong.get(one.id) else ())
    return {name: ReasonFigures(queued=queued[name], done=done[name], wrong=missed[name]) for name in sorted(queued)}


def _drawn(case: Case) -> bool:
    return "sample" in case.reasons


def _answered(cases: Sequence[Case]) -> float | None:
    drawn = [one for one in cases if _drawn(one)]
    return sum(one.status == "done" for one in drawn) / len(drawn) if drawn else None


def _plain(value: object) -> dict[str, Any]:
    import math

    found: dict[str, Any] = dict(vars(value))
    return {name: None if isinstance(one, float) and not math.isfinite(one) else one for name, one in found.items()}
