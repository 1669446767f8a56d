"""How long a series depends on itself: the length of blocks whose means may be taken as independent.

With blocks of m values, m x the variance of a block's mean tends to the long-run variance of the series, which is the
variance of one value times the sum of all autocorrelations. The variance is Hadamard's, a sixth of the mean square of
the second difference of neighbouring blocks (Baugh 1971, Frequency modulation analysis with the Hadamard variance,
doi:10.1109/FREQ.1971.199846): a slow rise or fall of the level, such as that of a day, does not enter it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats

#: blocks of 2^0 to 2^9 values
_SCALES = 10
#: with fewer blocks of a length than this, nothing is read from it
FEWEST_BLOCKS = 12
#: rise of the long-run variance that is accepted, and standard errors of chance on top of it
_RISE, _ERRORS = 1.25, 2.0
#: lengths beyond a block's, each twice the one before, by which that is judged; what rises later is a design effect
_AHEAD = 3
#: relative variance of a mean square of m second differences, times m, for independent normal values
_CHANCE = 3.9
#: a design effect is at most this: beyond it there is no evidence to speak of
_MOST = 1000.0


@dataclass(frozen=True)
class LongRunVariance:
    """Sums of one series by length of block.

    blocks: [scales] blocks that are full. sums: [scales, 2] sums of their means and of the squares of these.
    squares: [scales] sum of squared second differences of their means.
    last: [scales, 2] the means of the last two full blocks. open: [scales] the first half of one that is not full, or
    NaN.
    """

    blocks: npt.NDArray[np.int64]
    sums: Floats
    squares: Floats
    last: Floats
    open: Floats

    @classmethod
    def start(cls) -> LongRunVariance:
        return cls(
            np.zeros(_SCALES, dtype=np.int64),
            np.zeros((_SCALES, 2)),
            np.zeros(_SCALES),
            np.full((_SCALES, 2), math.nan),
            np.full(_SCALES, math.nan),
        )

    def add(self, values: npt.ArrayLike) -> LongRunVariance:
        """With more values [n], in their order.

        Raises:
            ValueError: a value is not finite.
        """
        means = np.asarray(values, dtype=np.float64)
        if not np.isfinite(means).all():
            raise ValueError("a value of the series is not finite")
        blocks = self.blocks.copy()
        sums, squares, last, halves = (array.copy() for array in (self.sums, self.squares, self.last, self.open))
        for scale in range(_SCALES):
            if not len(means):
                break
            joined = np.concatenate([last[scale][~np.isnan(last[scale])], means])
            squares[scale] += float((np.diff(joined, 2) ** 2).sum())
            blocks[scale] += len(means)
            sums[scale] += (means.sum(), (means**2).sum())
            last[scale] = np.concatenate([[math.nan, math.nan], joined])[-2:]
            whole = means if math.isnan(halves[scale]) else np.concatenate([[halves[scale]], means])
            halves[scale] = whole[-1] if len(whole) % 2 else math.nan
            means = whole[: len(whole) // 2 * 2].reshape(-1, 2).mean(1)
        return LongRunVariance(blocks, sums, squares, last, halves)

    def long_run_variances(self) -> Floats:
        """[scales]: length x Hadamard variance of the means of blocks of 2^scale values; NaN: too few blocks."""
        differences = np.maximum(self.blocks - 2, 1)
        variances = self.squares / differences / 6 * 2.0 ** np.arange(_SCALES)
        return np.where(self.blocks >= FEWEST_BLOCKS, variances, math.nan)

    def block(self, *, least: int = 1, most: int | None = None) -> tuple[int, float]:
        """The length of a block, `least` to `most` values, and the design effect that remains between such blocks.

        The design effect, 1 or more, is how many times the variance of a mean of many blocks exceeds what independent
        blocks would give. Where even the longest visible block depends on its neighbours, it is that one.
        """
        variances = self.long_run_variances()
        places = np.flatnonzero(~np.isnan(variances))
        first = max(0, math.ceil(math.log2(max(least, 1))))
        if not len(places) or first >= places[-1]:
            return least, 1.0
        for scale in range(first, int(places[-1])):
            rise, chance = self._rises(variances, scale, places)
            longest = most is not None and 2 ** (scale + 1) > most
            if longest or (rise <= _RISE + _ERRORS * chance)[:_AHEAD].all():
                return min(max(least, 2**scale), most or 2**_SCALES), float(
                    np.clip((rise - _ERRORS * chance).max(), 1.0, _MOST)
                )
        return max(least, int(2 ** places[-1])), 1.0

    def design_effect(self) -> float:
        """How many times the variance of a mean of many values exceeds that of independent ones; at least 1."""
        variances = self.long_run_variances()
        places = np.flatnonzero(~np.isnan(variances))
        if not len(places):
            return 1.0
        rise, chance = self._rises(variances, 0, places)
        return float(np.clip((rise - _ERRORS * chance).max(initial=1.0), 1.0, _MOST))

    def variance(self) -> float:
        """Of single values, whatever their order; 0 of fewer than two."""
        return self._variance(0)

    def visible(self) -> int:
        """The longest block whose dependence the series can show; 0 where it is too short for any."""
        enough = np.flatnonzero(self.blocks >= FEWEST_BLOCKS)
        return int(2 ** enough[-1]) if len(enough) else 0

    def _rises(self, variances: Floats, scale: int, places: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Of each longer block, its long-run variance over what independent blocks of `scale` have, and its error."""
        longer = places[places > scale]
        own = 2.0**scale * self._variance(scale)
        if not own > 0:
            return np.ones(len(longer)), np.zeros(len(longer))
        return variances[longer] / own, np.sqrt(_CHANCE / self.blocks[longer])

    def _variance(self, scale: int) -> float:
        count, (total, squares) = self.blocks[scale], self.sums[scale]
        return float((squares - total**2 / max(count, 1)) / max(count - 1, 1))

    def to_json(self) -> dict[str, object]:
        """Plain numbers and lists; what is missing is None."""
        return {
            "blocks": self.blocks.tolist(),
            "sums": self.sums.tolist(),
            "squares": self.squares.tolist(),
            "last": [None if math.isnan(value) else value for value in self.last.ravel().tolist()],
            "open": [None if math.isnan(value) else value for value in self.open.tolist()],
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> LongRunVariance:
        """What `to_json` wrote; of nothing no values."""
        if not stored:
            return cls.start()
        last, open_ = (
            np.array([math.nan if value is None else value for value in cast("list[float | None]", stored[name])])
            for name in ("last", "open")
        )
        sums, squares = (np.asarray(stored[name], dtype=np.float64) for name in ("sums", "squares"))
        return cls(np.asarray(stored["blocks"], dtype=np.int64), sums, squares, last.reshape(_SCALES, 2), open_)
