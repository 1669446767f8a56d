"""A number for the key of a row: what is posted twice is recognised by it, and it decides the order of rows that became
known at one moment. Needs no Polars.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import msgspec

#: the identity of a row without a key: no request is ever taken for it
NO_IDENTITY = -(2**63)
_pack = struct.Struct("=q").pack
_encode = msgspec.msgpack.Encoder().encode


def key_form(values: Sequence[Any]) -> Sequence[Any]:
    """Values as keys have them: of the two zeros of floats, which are equal, the positive one."""
    if 0.0 not in values:
        return values
    return [0.0 if isinstance(value, float) and not value else value for value in values]


def row_identity(values: Sequence[bool | int | float | str | None]) -> int:
    """A 64-bit number for the key of a row: a single whole number is itself, anything else a hash."""
    if None in values or not values:
        return NO_IDENTITY
    if len(values) == 1 and isinstance(values[0], int):
        return int(values[0])
    return int.from_bytes(
        hashlib.blake2b(_encode(list(key_form(values))), digest_size=8).digest(), "little", signed=True
    )


def row_identities(columns: Sequence[Sequence[Any]]) -> list[int]:
    """As `row_identity`, of the key of each row; `columns` has at least one."""
    if len(columns) == 1 and set(map(type, columns[0])) == {int}:
        return list(columns[0])
    return [row_identity(key) for key in zip(*columns, strict=True)]


def find_identity(identities: bytes, identity: int) -> int:
    """The position of a row's key among identities, which are int64 bytes, or -1; that of no key is never there."""
    if identity == NO_IDENTITY:
        return -1
    wanted = _pack(identity)
    at = identities.find(wanted)
    while at >= 0 and at % 8:
        at = identities.find(wanted, at + 1)
    return at // 8 if at >= 0 else -1
