"""Drift of a distribution: cells, effect sizes, evidence that counts both samples' error, multiple tests.

Needs numpy and scipy only. Samples are counts: [blocks, cells], where a block is rows that may depend on each other (a
day, a customer); one block means that rows are taken as independent. Counts of the same cells add up.
"""

from __future__ import annotations

from cumulant.statistics.drift.bins import Grid, cells, grid, groups
from cumulant.statistics.drift.effects import (
    DistributionDistances,
    distances,
    excess,
    kolmogorov_smirnov,
    wasserstein_of_cells,
)
from cumulant.statistics.drift.evidence import DriftEvidence, increase, two_samples
from cumulant.statistics.drift.intervals import Effect, effect
from cumulant.statistics.drift.multiple_tests import benjamini_hochberg, level_of_look

__all__ = [
    "DistributionDistances",
    "DriftEvidence",
    "Effect",
    "Grid",
    "benjamini_hochberg",
    "cells",
    "distances",
    "effect",
    "excess",
    "grid",
    "groups",
    "increase",
    "kolmogorov_smirnov",
    "level_of_look",
    "two_samples",
    "wasserstein_of_cells",
]
