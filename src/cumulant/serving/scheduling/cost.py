"""Cost model of runs, learned from measured runs."""

from __future__ import annotations

#: how fast old runs are forgotten: half of the weight lies on the last 70 runs
_KEEP = 0.99
#: a fit needs runs of different sizes; below this spread (rows squared) the seconds a row are all that is known
_SPREAD = 0.25
_OUTLIER = 3.0
#: runs whose sizes differ by less than this share of their mean fit any slope on a busy machine, and one of 0 would let
#: requests without end into the line: a row then costs at least that share of what a row of the usual run did
_ALIKE = 0.25


class RunCost:
    """Seconds of a run as `fixed + rows * each`, both at least 0, by least squares over runs whose weight decays."""

    def __init__(self) -> None:
        self._n = self._rows = self._seconds = self._squares = self._products = 0.0
        self.fixed = 0.0
        self.each = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        """Learn from one run. An outlier counts as a few times the expectation: the process may have lost its core."""
        expected = self.fixed + rows * self.each
        if expected > 0:
            seconds = min(seconds, _OUTLIER * expected)
        self._n = self._n * _KEEP + 1
        self._rows = self._rows * _KEEP + rows
        self._seconds = self._seconds * _KEEP + seconds
        self._squares = self._squares * _KEEP + rows * rows
        self._products = self._products * _KEEP + rows * seconds
        mean_rows, mean_seconds = self._rows / self._n, self._seconds / self._n
        spread = self._squares / self._n - mean_rows * mean_rows
        if spread > _SPREAD:
            slope = (self._products / self._n - mean_rows * mean_seconds) / spread
            whole = mean_seconds / mean_rows
            least = _ALIKE * whole if spread < (_ALIKE * mean_rows) ** 2 else 0.0
            self.each = min(max(slope, least), whole)
            self.fixed = mean_seconds - self.each * mean_rows
        else:
            # One size only: keep the fixed part's share as it was.
            whole = self.estimate(round(mean_rows)) or 1.0
            scale = mean_seconds / whole
            if self.fixed or self.each:
                self.fixed, self.each = self.fixed * scale, self.each * scale
            else:
                self.each = mean_seconds / max(mean_rows, 1.0)

    def estimate(self, rows: int) -> float:
        """Seconds that a run of `rows` is likely to take."""
        return self.fixed + rows * self.each

    def rows_within(self, seconds: float) -> int:
        """The most rows that a run of at most `seconds` can have; at least 1."""
        if self.each <= 0:
            return 1_000_000
        return max(1, int((seconds - self.fixed) / self.each + 1e-6))
