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
#: the chance below which labels are a selection, and how far these must lie from all rows (`LabelSelection.effect`)
_CHANCE, _LEAST_EFFECT = 0.01, 0.01
#: partly labelled windows from which on the variance between them is estimated
_WINDOWS = 8
#: the newest windows, one of so many, are tested apart as well: labels of one class may be late in these only
_NEWEST = 4


class LabelSelection(NamedTuple):
    """The difference of predictions between labelled and all rows.

    chance: of a difference as large, were labels independent. effect: the chance that a labelled row has the higher
    value than any row, less the chance of the lower.
    """

    chance: float
    effect: float


class Ranks(NamedTuple):
    """Of a window: the sum of the ranks of its `labelled` rows above what is expected, and its variance, over n + 1."""

    gap: float
    variance: float
    labelled: int


def is_selected(answers: Sequence[Floats], labelled: Flags, window: Codes) -> bool:
    """Whether unlabelled rows surely and relevantly have other `answers` ([n] each) than `labelled` [n] ones."""
    return are_selected([_windows(answer, labelled, window) for answer in answers])


def are_selected(answers: Sequence[Sequence[Ranks]]) -> bool:
    """`is_selected` by the ranks of each answer in each window, oldest first."""
    each = [_selection(ranks) for ranks in answers]
    return any(selection.chance * len(each) < _CHANCE and abs(selection.effect) >= _LEAST_EFFECT for selection in each)


def selection(answer: Floats, labelled: Flags, window: Codes) -> LabelSelection:
    """Two-sided rank test within each window (van Elteren 1960), with ties; chance 1 without both kinds of rows.

    From _WINDOWS windows on their variance is at least that between them, since labels are missing in groups of rows;
    then the newest are tested apart as well, and the smaller chance counts twice.

    Args:
        answer: [n] predictions; rows without a number are left out.
        labelled: [n] whether there is a label.
        window: [n] the window of each row.
    """
    return _selection(_windows(answer, labelled, window))


def _windows(answer: Floats, labelled: Flags, window: Codes) -> list[Ranks]:
    return [rank_labelled(answer[own], labelled[own]) for place in np.unique(window) for own in [window == place]]


def rank_labelled(answer: Floats, labelled: Flags) -> Ranks:
    """Of the rows of a window [n]; those without a number are left out."""
    known = np.isfinite(answer)
    answer, labelled = answer[known], labelled[known]
    return Ranks(*_ranked(answer, labelled), int(labelled.sum()))


def _selection(ranks: Sequence[Ranks]) -> LabelSelection:
    each = np.array(ranks, dtype=np.float64).reshape(-1, 3)
    each = each[each[:, 1] > 0]
    if len(each) < _WINDOWS:
        return _fixed(each)
    newest = len(each) - len(each) // _NEWEST
    whole, late = _between(each, each), _between(each[newest:], each[:newest])
    least = min(whole, late, key=lambda selection: selection.chance)
    return least._replace(chance=min(2 * least.chance, 1.0))


def _fixed(each: Floats) -> LabelSelection:
    """Of windows with [gap, its variance, labelled rows], where labels come row by row."""
    if not len(each):
        return LabelSelection(1.0, 0.0)
    gap, variance, labelled = each.sum(axis=0).tolist()
    return LabelSelection(math.erfc(abs(gap) / math.sqrt(2 * variance)), 2 * gap / labelled)


def _between(each: Floats, others: Floats) -> LabelSelection:
    """The same, with at least the variance between the gaps of `others` (Student's t)."""
    from scipy.special import stdtr  # scipy.stats takes a second to import

    gap, variance, labelled = each.sum(axis=0).tolist()
    variance = max(variance, len(each) * float(others[:, 0].var(ddof=1)))
    return LabelSelection(float(2 * stdtr(len(others) - 1, -abs(gap) / math.sqrt(variance))), 2 * gap / labelled)


def _ranked(answer: Floats, labelled: Flags) -> tuple[float, float]:
    """The sum of ranks of labelled rows above what is expected, and its variance, of one window, over n + 1."""
    n, m = len(answer), int(labelled.sum())
    if m in (0, n):
        return 0.0, 0.0
    _, inner, count = np.unique(answer, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[inner]
    spread = float(((rank - (n + 1) / 2) ** 2).sum()) * m * (n - m) / (n * (n - 1))
    return float(rank[labelled].sum() - m * (n + 1) / 2) / (n + 1), spread / (n + 1) ** 2
