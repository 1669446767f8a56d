"""The number of distinct values, from their hashes, in constant memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_BITS = 14
_REGISTERS, _REST = 1 << _BITS, 64 - _BITS
#: the bias of the harmonic mean for so many registers
_ALPHA = 0.7213 / (1 + 1.079 / _REGISTERS)


class DistinctCount:
    """HyperLogLog (Flajolet, Fusy, Gandouet and Meunier, 2007) of 64-bit hashes, with linear counting of few values.

    The standard error is 0.8%. The order and number of the additions change nothing.
    """

    def __init__(self) -> None:
        self._ranks = np.zeros(_REGISTERS, np.int64)

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Add the values with these hashes [n]."""
        rest = hashes & np.uint64((1 << _REST) - 1)
        _, bits = np.frexp(rest.astype(np.float64))  # of at most 50 bits, which a float holds
        np.maximum.at(self._ranks, (hashes >> np.uint64(_REST)).astype(np.int64), _REST - bits.astype(np.int64) + 1)

    def estimate(self) -> int:
        empty = int((self._ranks == 0).sum())
        raw = _ALPHA * _REGISTERS**2 / float(np.exp2(-self._ranks.astype(np.float64)).sum())
        if empty and raw <= 2.5 * _REGISTERS:
            raw = _REGISTERS * np.log(_REGISTERS / empty)
        return round(float(raw))
