"""Arrays as bytes with a checksum, which another process verifies.

    magic and version | number of arrays | each: datatype, rank, sizes, bytes | hash over the key and all of this

Nothing is unpickled: datatypes come from a closed list, and lengths must fit to the byte. The hash covers the key, so
that a value of another key, or an answer that belongs to another question, is not taken for this one's.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from cumulant.core.servable import TensorSpec
from cumulant.servable.engine import DTYPES, Array

_MAGIC = b"CuA\x01"
_HASH = 16
_HEAD = struct.Struct("<4sB")
_ARRAY = struct.Struct("<BB")
#: in the order of their codes, which must not change within a version of the form
_CODES = tuple(dtype for dtype in DTYPES.values() if not dtype.hasobject)
_CODE_OF = {dtype: code for code, dtype in enumerate(_CODES)}
_MOST = 255


def seal(key: str, arrays: Sequence[Array]) -> bytes | None:
    """The sealed form; None for arrays of texts, or too many of them."""
    if len(arrays) > _MOST or any(array.dtype not in _CODE_OF or array.ndim > _MOST for array in arrays):
        return None
    parts = [_HEAD.pack(_MAGIC, len(arrays))]
    for array in arrays:
        parts.append(_ARRAY.pack(_CODE_OF[array.dtype], array.ndim))
        parts.append(struct.pack(f"<{array.ndim}Q", *array.shape))
        parts.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    body = b"".join(parts)
    return body + _hash(key, body)


def unseal(key: str, value: bytes, specs: Sequence[TensorSpec]) -> list[Array] | None:
    """The arrays, which cannot be written to; None for anything but what `seal` made of such outputs under this key."""
    body, stamp = value[:-_HASH], value[-_HASH:]
    if len(body) < _HEAD.size or stamp != _hash(key, body):
        return None
    try:
        return _read(body, specs)
    except (struct.error, ValueError, OverflowError, IndexError):
        return None


def _read(body: bytes, specs: Sequence[TensorSpec]) -> list[Array] | None:
    magic, count = _HEAD.unpack_from(body)
    if magic != _MAGIC or count != len(specs):
        return None
    place = _HEAD.size
    arrays: list[Array] = []
    for spec in specs:
        code, rank = _ARRAY.unpack_from(body, place)
        dtype = _CODES[code]
        shape = struct.unpack_from(f"<{rank}Q", body, place + _ARRAY.size)
        place += _ARRAY.size + 8 * rank
        end = place + math.prod(shape) * dtype.itemsize
        if end > len(body):
            return None
        array = np.frombuffer(body[place:end], dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=False)
        if not fits(array, spec):
            return None
        arrays.append(array)
        place = end
    return arrays if place == len(body) else None


def fits(array: Array, spec: TensorSpec) -> bool:
    """Whether an array has the declared datatype and shape of its output."""
    return (
        array.dtype == DTYPES[spec.datatype]
        and array.ndim == len(spec.shape)
        and all(want in (-1, size) for size, want in zip(array.shape, spec.shape, strict=True))
    )


def _hash(key: str, body: bytes) -> bytes:
    hasher = blake2b(key.encode(), digest_size=_HASH)
    hasher.update(b"\0")
    hasher.update(body)
    return hasher.digest()
