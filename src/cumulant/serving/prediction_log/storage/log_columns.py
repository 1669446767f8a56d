"""Columns of the prediction log as arrays of numbers, and tests of their texts."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


def mentions(texts: pa.ChunkedArray, wanted: str) -> bool:
    """Whether the joined characters of all texts contain `wanted`: a fast test that excludes most files."""
    needle = wanted.encode()
    return any(needle in buffer.to_pybytes() for chunk in texts.chunks if (buffer := chunk.buffers()[2]) is not None)


def is_one_of(column: pa.ChunkedArray, texts: Collection[str]) -> Flags:
    """Whether each value of a column that was read as `repeated` is one of these texts."""
    flags: Flags = np.concatenate(
        [
            np.array([text in texts for text in chunk.dictionary.to_pylist()], dtype=bool)[
                np.from_dlpack(chunk.indices)
            ]
            for chunk in column.chunks
        ]
    )
    return flags


def distinct(numbers: Integers) -> Integers:
    """Unique numbers; faster than `np.unique`, as they are almost always sorted."""
    if not (numbers[1:] >= numbers[:-1]).all():
        numbers = np.sort(numbers)
    first = np.ones(len(numbers), dtype=bool)
    first[1:] = numbers[1:] != numbers[:-1]
    return numbers[first]


def integers(column: pa.ChunkedArray) -> Integers:
    """A column of whole numbers or moments without nulls."""
    # Not `to_numpy`, which imports pandas.
    chunks = [np.from_dlpack(chunk.view(pa.int64())) for chunk in column.chunks]
    return np.concatenate([np.empty(0, np.int64), *chunks])


def flags(column: pa.ChunkedArray) -> Flags:
    """A column of truth values without nulls, which Arrow keeps as bits."""
    flags = np.zeros(0, dtype=np.bool_)
    for chunk in column.chunks:
        bits = np.unpackbits(np.frombuffer(chunk.buffers()[1], dtype=np.uint8), bitorder="little")
        flags = np.concatenate([flags, bits[chunk.offset : chunk.offset + len(chunk)].view(np.bool_)])
    return flags
