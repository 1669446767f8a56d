"""One alpha for a whole release: split over metrics, joined over stages.

Under "no metric is worse" the chance that any harm test ever reaches its share is at most the sum of the shares
(Ville's inequality and the union bound). Promotion needs every non-inferiority, so each is tested at the whole
alpha: promoting a candidate that is beyond the margin somewhere needs that one test to err
(an intersection-union test, Berger 1982, doi:10.2307/2684003).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats, check_alpha


@dataclass(frozen=True)
class MetricEvidence:
    """The evidence of one metric: natural logarithms of e-values; None if it has no such test or no data yet."""

    harm: float | None = None
    not_worse: float | None = None


@dataclass(frozen=True)
class SequentialDecision:
    """A decision, the metric that decided or is slowest (None: all or none), and the e-folds that are missing."""

    word: Literal["roll_back", "promote", "go_on", "broken"]
    metric: str | None
    missing: float


def split(weights: Mapping[str, float], alpha: float = 0.05) -> dict[str, float]:
    """Each metric's share of `alpha`, in proportion to its weight.

    Raises:
        ValueError: there is no metric, a weight is not positive, or alpha is not between 0 and 1.
    """
    if not weights or not all(w > 0 and math.isfinite(w) for w in weights.values()):
        raise ValueError(f"alpha is split over one or more metrics with positive weights, not {dict(weights)}")
    whole = math.fsum(weights.values())
    return {name: check_alpha(alpha) * weight / whole for name, weight in weights.items()}


def decide(
    evidence: Mapping[str, MetricEvidence],
    alphas: Mapping[str, float],
    *,
    promote_alpha: float = 0.05,
    mismatch: float = 0.0,
    mismatch_alpha: float = 0.001,
) -> SequentialDecision:
    """The decision; the order of precedence is broken, roll back, promote, go on.

    Args:
        evidence: by metric.
        alphas: share of alpha of each metric's harm test, from `split`.
        promote_alpha: of each non-inferiority test; every metric with an alpha must pass, and no data never passes.
        mismatch: log e-value of `share.Shares`; at log(1 / mismatch_alpha) the comparison is broken.
        mismatch_alpha: chance of calling a sound comparison broken, beside the alphas of harm.

    Raises:
        ValueError: evidence and alphas name other metrics, or an alpha is not between 0 and 1.
    """
    if set(evidence) != set(alphas) or not alphas:
        raise ValueError(f"evidence is of {sorted(evidence)} but alpha is split over {sorted(alphas)}")
    if mismatch >= -math.log(check_alpha(mismatch_alpha)):
        return SequentialDecision("broken", None, 0.0)
    lacking = {name: _missing_evidence(metric.harm, alphas[name]) for name, metric in evidence.items()}
    worst = min(lacking, key=lambda name: lacking[name])
    if lacking[worst] <= 0:
        return SequentialDecision("roll_back", worst, 0.0)
    lacking_promotion = {name: _missing_evidence(metric.not_worse, promote_alpha) for name, metric in evidence.items()}
    slowest = max(lacking_promotion, key=lambda name: lacking_promotion[name])
    if lacking_promotion[slowest] <= 0:
        return SequentialDecision("promote", None, 0.0)
    return SequentialDecision("go_on", slowest, lacking_promotion[slowest])


def stages(log_evidence: Sequence[npt.ArrayLike], *, spent: float = 0.7) -> Floats:
    """Log e-value [batch] of a release from one fresh process a stage, in their order, the last at its newest value.

    Each stage is a process of its own because traffic weights differ and the common rate drifts; an earlier stage
    counts with its value when it ended. The plain product would make a harm that begins late pay for what the first
    stages lost, so each stage also starts afresh with `spent` of the cash that is left: the sum over s of
    weight s x product of stages s, s + 1, ... now, plus the cash not yet spent. It is an e-process, as each term is.
    The first stage pays log(1 / spent), the second at most log(1 / (spent (1 - spent))).

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


def _missing_evidence(log_evidence: float | None, alpha: float) -> float:
    needed = -math.log(check_alpha(alpha))
    return math.inf if log_evidence is None or math.isnan(log_evidence) else max(0.0, needed - log_evidence)
