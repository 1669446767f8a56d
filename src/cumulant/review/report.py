"""What the queue has shown: how much was answered, how far reviewers agree, how often the model was wrong overall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from cumulant import statistics
from cumulant.review.cases import Draw, ReviewCase


class ReasonFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of the cases with a reason: how many, how many are done, and on how many the model was wrong."""

    queued: int
    done: int
    wrong: int


class ReviewSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The queue in numbers. `rows` were read in all draws; `used_for_training` is of the newest training.

    `agreement`: Cohen's kappa of first and second opinions. `error`: the model's share of wrong rows, corrected for the
    draw; `counted`: the share among the cases, which are harder.
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


def summarize(
    model: str,
    opened: Sequence[ReviewCase],
    closed: Sequence[ReviewCase],
    draws: Sequence[Draw],
    wrong: Mapping[str, bool],
    *,
    leased: int = 0,
    used: int = 0,
    error: Callable[[Sequence[ReviewCase], Mapping[str, bool]], dict[str, Any] | None] | None = None,
) -> ReviewSummary:
    """The queue in numbers. `wrong`: by case, whether the model's decision is wrong. `error`: as `error_figures`."""
    done = [case for case in closed if case.status == "done"]
    every = [*opened, *closed]
    agreement = measure_agreement(every)
    judged = [case for case in done if case.id in wrong]
    return ReviewSummary(
        model=model,
        rows=sum(draw.rows for draw in draws),
        draws=len(draws),
        queued=len(every),
        ranked=sum(not _drawn(case) for case in every),
        waiting=len(opened),
        leased=leased,
        escalated=sum(case.escalated for case in opened),
        done=len(done),
        expired=len(closed) - len(done),
        labelled=sum(case.labelled for case in done),
        used_for_training=used,
        reasons=_by_reason(every, wrong),
        agreement=None if agreement is None else _plain(agreement),
        error=(error or error_figures)(every, wrong),
        counted=sum(wrong[case.id] for case in judged) / len(judged) if judged else None,
        answered=_answered(every),
    )


def measure_agreement(cases: Sequence[ReviewCase]) -> statistics.Agreement | None:
    """Cohen's kappa of the first and the second decision of cases that have two; None where none has."""
    pairs = [case.decisions[:2] for case in cases if len(case.decisions) > 1]
    if not pairs:
        return None
    first, second = ([str(pair[place].label) for pair in pairs] for place in (0, 1))
    return statistics.cohen_kappa(statistics.contingency_table(first, second))


def estimate_error(cases: Sequence[ReviewCase], wrong: Mapping[str, bool]) -> statistics.Weighted | None:
    """The model's share of errors over all rows that were read; None without a completed random case.

    Only random cases say anything of others. Those without an answer count as not drawn, so that the answered ones of
    their draw weigh more (Särndal, Swensson & Wretman, 1992, chapter 15).
    """
    drawn = Counter(case.draw for case in cases if _drawn(case))
    judged = [case for case in cases if case.id in wrong]
    judged_by_draw = Counter(case.draw for case in judged if _drawn(case))
    if not judged_by_draw:
        return None
    import numpy as np

    chances = np.array(
        [case.chance * (judged_by_draw[case.draw] / drawn[case.draw] if _drawn(case) else 1.0) for case in judged]
    )
    return statistics.hajek(np.array([float(wrong[case.id]) for case in judged]), chances)


def error_figures(cases: Sequence[ReviewCase], wrong: Mapping[str, bool]) -> dict[str, Any] | None:
    """`estimate_error` as plain values, whose infinite ends are None."""
    error = estimate_error(cases, wrong)
    return None if error is None else _plain(error)


def error_inputs(cases: Sequence[ReviewCase], wrong: Mapping[str, bool]) -> list[object]:
    """All that `error_figures` depends on."""
    return [[case.draw, _drawn(case), case.chance, wrong.get(case.id)] for case in cases]


def _by_reason(cases: Sequence[ReviewCase], wrong: Mapping[str, bool]) -> dict[str, ReasonFigures]:
    queued, done, missed = Counter[str](), Counter[str](), Counter[str]()
    for case in cases:
        queued.update(case.reasons)
        done.update(case.reasons if case.status == "done" else ())
        missed.update(case.reasons if wrong.get(case.id) else ())
    return {name: ReasonFigures(queued=queued[name], done=done[name], wrong=missed[name]) for name in sorted(queued)}


def _drawn(case: ReviewCase) -> bool:
    return "sample" in case.reasons


def _answered(cases: Sequence[ReviewCase]) -> float | None:
    drawn = [case for case in cases if _drawn(case)]
    return sum(case.status == "done" for case in drawn) / len(drawn) if drawn else None


def _plain(value: object) -> dict[str, Any]:
    import math

    fields: dict[str, Any] = dict(vars(value))
    return {
        name: None if isinstance(number, float) and not math.isfinite(number) else number
        for name, number in fields.items()
    }
