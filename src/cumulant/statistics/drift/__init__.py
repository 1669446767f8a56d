"""Has a distribution moved: cells, effect sizes, evidence that counts both samples' error, many tests at once.

Needs numpy and scipy only. Samples are counts: [blocks, cells], where a block is rows that may depend on each other (a
day, a customer); one block means that rows are taken as independent. Counts of the same cells add up.
"""

from __future__ import annotations

from cumulant.statistics.drift.bins import Grid, cells, grid, groups
from cumulant.statistics.drift.effects import Distances, distances, excess, kolmogorov_smirnov, moved_mean
from cumulant.statistics.drift.evidence import Evidence, increase, two_samples
from cumulant.statistics.drift.intervals import Effect, effect
from cumulant.statistics.drift.many import benjamini_hochberg, level_of_look

__all__ = [
    "Distances",
    "Effect",
    "Evidence",
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
    "moved_mean",
    "two_samples",
]
