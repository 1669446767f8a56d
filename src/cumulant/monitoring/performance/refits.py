"""Scores of recent refits, with whose losses those of a window are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from cumulant.core.errors import DataError
from cumulant.statistics.rows import Floats

Inputs = TypeVar("Inputs")
#: scores of inputs by a fitted model
Scorer = Callable[[Inputs], Floats]
#: a fit on windows of inputs and their truths, oldest first; cheap settings do, the same at each window
Fit = Callable[[Sequence[Inputs], Sequence[Floats]], Scorer[Inputs]]


def recent_refits(
    inputs: Sequence[Inputs], truths: Sequence[Floats], fit: Fit[Inputs], *, memory: int, every: int = 1, delay: int = 0
) -> list[Floats | None]:
    """For each window the scores of a model fitted on windows labelled by its start; None without `memory` of them.

    Args:
        inputs: of each window, oldest first.
        truths: [rows] of each window; rows without a label must be left out of both.
        fit: from windows to a scorer.
        memory: windows that a fit uses.
        every: windows that a fit serves.
        delay: windows whose labels are not there yet at the start of a window.

    Raises:
        DataError: not as many truths as inputs, or `memory`, `every` or `delay` is out of range.
    """
    if len(inputs) != len(truths) or memory < 1 or every < 1 or delay < 0:
        raise DataError(
            "refits need inputs and truths of the same windows, memory and every of 1 or more, and delay of 0 or more",
            subject="refit",
        )
    scores: list[Floats | None] = []
    scorer: Scorer[Inputs] | None = None
    for number, window in enumerate(inputs):
        last = number - delay
        if last >= memory and (scorer is None or (last - memory) % every == 0):
            scorer = fit(inputs[last - memory : last], truths[last - memory : last])
        scores.append(None if scorer is None else np.asarray(scorer(window), dtype=np.float64))
    return scores
