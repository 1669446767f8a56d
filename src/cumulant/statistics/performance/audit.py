"""The audit of estimates against the truth, once it is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cumulant.statistics.records import LEVEL


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The accuracy of the estimates of `windows` windows.

    covered: how often the truth lay in the interval; `covered_low` and `covered_high` bound its rate (95%, exact).
    mean_error, mean_absolute_error, worst_error: of estimate less truth.
    unmoved: mean absolute error of saying each time what the reference showed: what an estimate has to beat.
    holds: whether the stated level is within the bounds of the rate, or below them.
    """

    windows: int
    covered: int
    covered_low: float
    covered_high: float
    mean_error: float
    mean_absolute_error: float
    worst_error: float
    unmoved: float
    holds: bool


def audit(
    estimates: Sequence[tuple[float, float, float]], truths: Sequence[float], *, before: float, level: float = LEVEL
) -> Audit:
    """`estimates` as (low, value, high) and the `truths` that came, one a window; `before` is the reference's value.

    Raises:
        ValueError: there is no window, or not as many truths as estimates.
    """
    from scipy.special import betaincinv  # scipy.stats takes a second to import

    if not len(estimates) or len(estimates) != len(truths):
        raise ValueError(f"an audit needs a truth for each estimate: {len(estimates)} estimates, {len(truths)} truths")
    low, value, high = np.asarray(estimates, dtype=np.float64).T
    truth = np.asarray(truths, dtype=np.float64)
    n, covered = len(truth), int(((truth >= low) & (truth <= high)).sum())
    error = value - truth
    most = float(betaincinv(covered + 1, n - covered, 0.975)) if covered < n else 1.0
    return Audit(
        windows=n,
        covered=covered,
        covered_low=float(betaincinv(covered, n - covered + 1, 0.025)) if covered else 0.0,
        covered_high=most,
        mean_error=float(error.mean()),
        mean_absolute_error=float(np.abs(error).mean()),
        worst_error=float(error[np.abs(error).argmax()]),
        unmoved=float(np.abs(before - truth).mean()),
        holds=most >= level,
    )
