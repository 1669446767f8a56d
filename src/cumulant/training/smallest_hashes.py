"""The rows with the smallest hashes of a table that is seen block by block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Positions = NDArray[np.int64]


class SmallestHashes:
    """Collects the `most` rows with the smallest hashes; of equal hashes those with the smallest positions.

    Which rows these are does not depend on the blocks or their order, and those of a smaller `most` are among those of
    a larger one. Takes 16 bytes a row for up to twice `most` rows and a block.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._hashes: Hashes = np.zeros(0, dtype=np.uint64)
        self._positions: Positions = np.zeros(0, dtype=np.int64)
        self._pending: list[tuple[Hashes, Positions]] = []
        self._count = 0
        #: no row with a larger hash is among them
        self._limit = np.iinfo(np.uint64).max

    def add(self, hashes: Hashes, positions: Positions) -> None:
        """Rows of a block: [n] hashes and [n] positions, which no other block has."""
        may = hashes <= self._limit
        self._pending.append((hashes[may], positions[may]))
        self._count += int(may.sum())
        if self._count > 2 * self._most:
            self._trim()

    def rows(self) -> tuple[Positions, Hashes]:
        """[n] positions, ascending, and the hashes of these rows."""
        self._trim()
        order = np.argsort(self._positions)
        return self._positions[order], self._hashes[order]

    def _trim(self) -> None:
        hashes = np.concatenate([self._hashes, *(block[0] for block in self._pending)])
        positions = np.concatenate([self._positions, *(block[1] for block in self._pending)])
        self._pending.clear()
        if len(hashes) > self._most:
            order = np.lexsort((positions, hashes))[: self._most]
            hashes, positions = hashes[order], positions[order]
            self._limit = int(hashes[-1])
        self._hashes, self._positions, self._count = hashes, positions, len(hashes)
