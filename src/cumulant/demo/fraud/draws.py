"""Random numbers that are the same for a seed on every machine and in every version of NumPy.

NumPy promises to keep the raw numbers of a bit generator, not what its distributions make of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Ints: TypeAlias = NDArray[np.int64]


class Draws:
    """A stream of random numbers. Two of one seed and `purpose` draw the same ones."""

    def __init__(self, seed: int, purpose: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence((seed, purpose)))

    def shares(self, count: int) -> Floats:
        """Uniform in [0, 1)."""
        return (self._bits.random_raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, limits: Ints) -> Ints:
        """For each limit a whole number in [0, limit), each as likely."""
        return np.floor(self.shares(len(limits)) * limits).astype(np.int64)

    def normal(self, count: int) -> Floats:
        """Of mean 0 and deviation 1."""
        radius = np.sqrt(-2.0 * np.log1p(-self.shares(count)))
        return radius * np.cos(2.0 * np.pi * self.shares(count))

    def poisson(self, means: Floats) -> Ints:
        """A count for each mean, which is at most 50."""
        share, term = self.shares(len(means)), np.exp(-means)
        counts, total = np.zeros(len(means), np.int64), term.copy()
        for number in range(1, 200):
            above = share >= total
            if not above.any():
                break
            counts += above
            term = term * means / number
            total += term
        return counts
