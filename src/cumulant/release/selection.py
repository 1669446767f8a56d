"""Whether the mirrored rows that have a label are like all mirrored rows, by the champion's scores.

Labels that come for some rows only (positives at once, the others weeks later; only what was reviewed) say nothing of
the rows without one. A candidate that scores all rows higher looks better on positives alone, and is worse.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from cumulant.release.look import Look
from cumulant.statistics.sequential.arrays import Floats

#: labelled rows below which nothing is said
_FEWEST = 30
#: means further apart than this part of a standard deviation, and than so many standard errors, are of other rows
_APART, _ERRORS = 0.2, 4.0


class ScoreSums(msgspec.Struct, frozen=True, kw_only=True):
    """Count, sum and sum of squares of scores."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def with_scores(self, scores: Floats) -> ScoreSums:
        """The sums with more scores; rows without one are left out."""
        known = scores[np.isfinite(scores)]
        return ScoreSums(
            count=self.count + len(known),
            total=self.total + float(known.sum()),
            squares=self.squares + float((known**2).sum()),
        )

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else math.nan

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return math.sqrt(max(0.0, self.squares / self.count - self.mean**2)) if self.count else 0.0


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The champion's scores of all mirrored rows of the release, and of those that have a label."""

    mirrored: ScoreSums = ScoreSums()
    labelled: ScoreSums = ScoreSums()

    def with_look(self, look: Look) -> Selection:
        """With the rows of one more look."""
        return Selection(
            mirrored=self.mirrored.with_scores(look.pairs.champion),
            labelled=self.labelled.with_scores(look.losses.score),
        )

    @property
    def selective(self) -> bool:
        """Whether the labelled rows are others than the mirrored ones."""
        apart, spread = abs(self.labelled.mean - self.mirrored.mean), self.mirrored.deviation
        if self.labelled.count < _FEWEST or not spread:
            return False
        return apart > spread * max(_APART, _ERRORS / math.sqrt(self.labelled.count))
