"""Whether the mirrored rows that have a label are like all of the same hours, by the champion's scores."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from cumulant.release.evidence.look import Look
from cumulant.statistics.sequential.arrays import Floats

#: labelled rows below which nothing is concluded
_FEWEST = 30
#: means further apart than this part of a standard deviation, and than so many standard errors, are of other rows
_APART, _ERRORS = 0.2, 4.0
#: hours that are kept, the newest: labels that come later than these are compared with nothing
_HOURS = 2_000


class ScoreSums(msgspec.Struct, frozen=True, array_like=True):
    """Count of scores, their mean, and the sum of squared deviations from it (Welford's sums, joined as Chan's)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def with_scores(self, scores: Floats) -> ScoreSums:
        """The sums with more scores; rows without one are left out."""
        known = scores[np.isfinite(scores)]
        if not len(known):
            return self
        mean, count = float(known.mean()), self.count + len(known)
        apart = mean - self.mean
        return ScoreSums(
            count,
            self.mean + apart * len(known) / count,
            self.squares + float(((known - mean) ** 2).sum()) + apart**2 * self.count * len(known) / count,
        )


class HourlyScores(msgspec.Struct, frozen=True, kw_only=True):
    """By hour (text) of the request: the champion's scores of all mirrored rows, and of those that have a label."""

    mirrored: dict[str, ScoreSums] = {}
    labelled: dict[str, ScoreSums] = {}

    def with_look(self, look: Look) -> HourlyScores:
        """With the rows of one more look."""
        mirrored, labelled = self.mirrored, self.labelled
        if len(look.pairs):
            mirrored = _added(mirrored, look.hour, look.pairs.champion)
        for hour in np.unique(look.losses.hour).tolist():
            labelled = _added(labelled, hour, look.losses.score[look.losses.hour == hour])
        return HourlyScores(mirrored=mirrored, labelled=labelled)

    @property
    def compared(self) -> tuple[int, float, float, float]:
        """Labelled rows of hours with mirrored ones, their mean score, that of the mirrored rows of the same hours in
        the same numbers, and the standard deviation of scores within an hour.
        """
        both = [(self.labelled[hour], self.mirrored[hour]) for hour in self.labelled if hour in self.mirrored]
        count = sum(labelled.count for labelled, _ in both)
        rows = sum(other.count for _, other in both)
        if not count or not rows:
            return 0, math.nan, math.nan, 0.0
        mean = sum(labelled.count * labelled.mean for labelled, _ in both) / count
        expected = sum(labelled.count * other.mean for labelled, other in both) / count
        return count, mean, expected, math.sqrt(sum(other.squares for _, other in both) / rows)

    @property
    def selective(self) -> bool:
        """Whether the labelled rows are others than the mirrored ones."""
        count, mean, expected, spread = self.compared
        if count < _FEWEST or not spread:
            return False
        return abs(mean - expected) > spread * max(_APART, _ERRORS / math.sqrt(count))


def _added(hours: dict[str, ScoreSums], hour: int, scores: Floats) -> dict[str, ScoreSums]:
    sums = hours | {str(hour): hours.get(str(hour), ScoreSums()).with_scores(scores)}
    if len(sums) > _HOURS:
        del sums[min(sums, key=int)]
    return sums
