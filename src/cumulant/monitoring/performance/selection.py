"""Whether the rows of a window that have a label differ from those that have none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cumulant.statistics.rows import Codes, Flags, Floats


def chance_of_selection(answer: Floats, labelled: Flags, window: Codes) -> float:
    """The chance that answers of rows with and without a label differ as much, had labels come to all rows alike.

    Two-sided, by ranks within each window (van Elteren 1960), with ties; 1 where each window has only one kind of rows.

    Args:
        answer: [n] what was predicted; rows without a number are left out.
        labelled: [n] whether there is a label.
        window: [n] the window of each row.
    """
    known = np.isfinite(answer)
    answer, labelled, window = answer[known], labelled[known], window[known]
    total, variance = 0.0, 0.0
    for place in np.unique(window):
        own = window == place
        gap, spread = _ranked(answer[own], labelled[own])
        total, variance = total + gap, variance + spread
    return math.erfc(abs(total) / math.sqrt(2 * variance)) if variance > 0 else 1.0


def _ranked(answer: Floats, labelled: Flags) -> tuple[float, float]:
    """The sum of ranks of labelled rows above what is expected, and its variance, of one window, over n + 1."""
    n, m = len(answer), int(labelled.sum())
    if m in (0, n):
        return 0.0, 0.0
    _, inner, count = np.unique(answer, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[inner]
    spread = float(((rank - (n + 1) / 2) ** 2).sum()) * m * (n - m) / (n * (n - 1))
    return float(rank[labelled].sum() - m * (n + 1) / 2) / (n + 1), spread / (n + 1) ** 2
