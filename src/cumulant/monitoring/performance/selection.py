"""Whether the rows of a window that have a label differ from those that have none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from cumulant.statistics.rows import Codes, Flags, Floats


#: part of a window's rows that may lack a label, whatever their answers are: no share of labels moves by more
LACKING = 0.02
#: the chance below which labels are those of a selection, and how far these must lie from all rows (`Selection.effect`)
_CHANCE, _LEAST_EFFECT = 0.01, 0.01
#: partly labelled windows from which on the variance between them is estimated
_WINDOWS = 8


class Selection(NamedTuple):
    """How answers of rows with a label differ from those of all rows.

    chance: of a difference as large, had labels come to all rows alike. effect: the chance that a row with a label has
    the higher answer than any row, less the chance that it has the lower.
    """

    chance: float
    effect: float


def is_selected(answers: Sequence[Floats], labelled: Flags, window: Codes) -> bool:
    """Whether rows without a label surely have other answers than those with one, and enough to matter.

    Args:
        answers: what was predicted, each [n].
        labelled: [n] whether there is a label.
        window: [n] the window of each row.
    """
    each = [selection(answer, labelled, window) for answer in answers]
    return any(one.chance * len(each) < _CHANCE and abs(one.effect) >= _LEAST_EFFECT for one in each)


def selection(answer: Floats, labelled: Flags, window: Codes) -> Selection:
    """Two-sided, by ranks within each window (van Elteren 1960), with ties; chance 1 where each has only one kind of
    rows. From _WINDOWS windows on their variance is at least that between them: labels are often missing in groups of
    rows, as those of an hour, and rows of a group are alike.

    Args:
        answer: [n] what was predicted; rows without a number are left out.
        labelled: [n] whether there is a label.
        window: [n] the window of each row.
    """
    known = np.isfinite(answer)
    answer, labelled, window = answer[known], labelled[known], window[known]
    gaps, variance, among = list[float](), 0.0, 0
    for place in np.unique(window):
        own = window == place
        gap, spread = _ranked(answer[own], labelled[own])
        if spread > 0:
            gaps.append(gap)
            variance, among = variance + spread, among + int(labelled[own].sum())
    if not gaps:
        return Selection(1.0, 0.0)
    total = float(sum(gaps))
    return Selection(_chance(np.array(gaps), total, variance), 2 * total / among)


def _chance(gaps: Floats, total: float, variance: float) -> float:
    from scipy.special import stdtr  # scipy.stats takes a second to import

    windows = len(gaps)
    if windows < _WINDOWS:
        return math.erfc(abs(total) / math.sqrt(2 * variance))
    variance = max(variance, windows * float(gaps.var(ddof=1)))
    return float(2 * stdtr(windows - 1, -abs(total) / math.sqrt(variance)))


def _ranked(answer: Floats, labelled: Flags) -> tuple[float, float]:
    """The sum of ranks of labelled rows above what is expected, and its variance, of one window, over n + 1."""
    n, m = len(answer), int(labelled.sum())
    if m in (0, n):
        return 0.0, 0.0
    _, inner, count = np.unique(answer, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[inner]
    spread = float(((rank - (n + 1) / 2) ** 2).sum()) * m * (n - m) / (n * (n - 1))
    return float(rank[labelled].sum() - m * (n + 1) / 2) / (n + 1), spread / (n + 1) ** 2
