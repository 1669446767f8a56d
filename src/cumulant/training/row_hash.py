"""Rows by a hash of what identifies them: the same on every machine, in any order, whatever rows are added."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

_SEPARATOR, _NULL = "\x1f", "\x00"
_BYTES = 8
#: rows whose texts are objects of Python at a time
_BLOCK = 65_536


def row_hashes(frame: pl.DataFrame, columns: Sequence[str], *, copies: bool = False) -> NDArray[np.uint64]:
    """[n] hashes of the values in `columns`, in their order. With `copies`, equal rows are numbered, so that each has a
    hash of its own: which of them gets which does not matter.
    """
    import numpy as np
    import polars as pl

    parts = [pl.col(name).cast(pl.String).fill_null(_NULL) for name in columns]
    texts = frame.select(pl.concat_str(parts, separator=_SEPARATOR).alias("text"))
    if copies:
        number = pl.int_range(pl.len()).over("text").cast(pl.String)
        texts = texts.select(pl.concat_str([pl.col("text"), number], separator=_SEPARATOR))
    digests = bytearray()
    for part in texts.iter_slices(_BLOCK):
        for text in part.to_series().to_list():
            digests += hashlib.blake2b(text.encode(), digest_size=_BYTES).digest()
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def places(hashes: NDArray[np.uint64], salt: int = 0) -> NDArray[np.float64]:
    """[n] in [0, 1): where each hash lies among all that there could be, for each salt in another order."""
    import numpy as np

    shares: NDArray[np.float64] = (mixed(hashes, salt) >> np.uint64(11)).astype(np.float64) / 2.0**53
    return shares


def mixed(hashes: NDArray[np.uint64], salt: int = 0) -> NDArray[np.uint64]:
    """[n] hashes of numbers or hashes, for each salt others.

    The mixing is that of splitmix64 (Steele, Lea & Flood 2014, Fast splittable pseudorandom number generators).
    """
    import numpy as np

    with np.errstate(over="ignore"):
        bits = hashes + np.uint64(salt + 1) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
