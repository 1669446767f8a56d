"""The evidence of a release over its stages, each of which is a test of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats


def stages(log_evidence: Sequence[npt.ArrayLike], *, spent: float = 0.7) -> Floats:
    """Log e-value [batch] of a release from one fresh process a stage, in their order, the last at its newest value.

    The plain product would make a harm that begins late pay for what the first stages lost, so each stage also starts
    afresh with `spent` of the cash that is left: the sum over s of weight s x product of stages s, s + 1, ... now, plus
    the cash not yet spent.

    Args:
        log_evidence: [batch] for each stage that has begun.
        spent: part of the cash that a stage starts with, above 0 and at most 1 (the plain product).

    Raises:
        ValueError: there is no stage, or `spent` is not in (0, 1].
    """
    if not len(log_evidence) or not 0 < spent <= 1:
        raise ValueError(f"a release has at least one stage and spends a part in (0, 1] of its cash, not {spent}")
    values = [np.asarray(stage, dtype=np.float64) for stage in log_evidence]
    whole, cash = np.full(values[0].shape, -math.inf), 1.0
    for value in values:
        whole = np.logaddexp(whole, math.log(cash * spent) if cash else -math.inf) + value
        cash *= 1 - spent
    return np.logaddexp(whole, math.log(cash)) if cash else whole
