"""Sequential tests, valid under repeated looks: rates, means, quantiles, shares, and the alpha of a release.

Needs numpy and scipy only. States are small and immutable: `add` gives the next, `to_json` stores one, and leading axes
hold many releases at once. Evidence is the natural logarithm of an e-value: reject at log(1 / alpha), whenever reached.
"""

from __future__ import annotations

from cumulant.statistics.sequential.alpha import MetricEvidence, SequentialDecision, decide, split, stages
from cumulant.statistics.sequential.long_run_variance import LongRunVariance
from cumulant.statistics.sequential.means import (
    Bernstein,
    Betting,
    Paired,
    asymptotic_radius,
    best_rho,
    difference,
    hedged_capital,
    hedged_interval,
    normal_mixture_radius,
)
from cumulant.statistics.sequential.power import (
    ArmTraffic,
    Power,
    harm_is_seen,
    harm_power,
    harm_seconds,
    not_worse_looks,
    not_worse_power,
    not_worse_seconds,
    paired_blocks,
    paired_pairs,
    smallest_ratio,
)
from cumulant.statistics.sequential.quantiles import Quantiles, histogram, howard_ramdas_ranks, quantile_difference
from cumulant.statistics.sequential.rates import RateDesign, Rates, known_bursts
from cumulant.statistics.sequential.share import Shares
from cumulant.statistics.sequential.student import Risen, Student
from cumulant.statistics.sequential.symmetric import FEWEST_PAIRS, PairedBlocks, Symmetric

__all__ = [
    "FEWEST_PAIRS",
    "ArmTraffic",
    "Bernstein",
    "Betting",
    "LongRunVariance",
    "MetricEvidence",
    "Paired",
    "PairedBlocks",
    "Power",
    "Quantiles",
    "RateDesign",
    "Rates",
    "Risen",
    "SequentialDecision",
    "Shares",
    "Student",
    "Symmetric",
    "asymptotic_radius",
    "best_rho",
    "decide",
    "difference",
    "harm_is_seen",
    "harm_power",
    "harm_seconds",
    "hedged_capital",
    "hedged_interval",
    "histogram",
    "howard_ramdas_ranks",
    "known_bursts",
    "normal_mixture_radius",
    "not_worse_looks",
    "not_worse_power",
    "not_worse_seconds",
    "paired_blocks",
    "paired_pairs",
    "quantile_difference",
    "smallest_ratio",
    "split",
    "stages",
]
