"""Which arm a request is assigned to, and by what key."""

from __future__ import annotations

import hashlib
import math
import random
from typing import Any

import msgspec

from cumulant.core.traffic import CANDIDATE, CHAMPION, FORCE_HEADER, KEY_HEADER, Routes
from cumulant.drivers.local.gateway.front import Connection, Incoming

#: bodies that are looked into for a key
LOOKED_INTO = 1024 * 1024
_KEY, _FORCE = KEY_HEADER.encode(), FORCE_HEADER.encode()
_BINARY = b"inference-header-content-length"
_LIST_FORMS = ("rows", "dataframe_records", "instances")
_SPAN = 1 << 64

_decode = msgspec.json.Decoder().decode


class Assignment(msgspec.Struct, frozen=True):
    """`key`: empty where the request has none. `body`: what was read of it to find the key."""

    arm: str
    key: bytes
    forced: bool
    body: bytes


async def assign(request: Incoming, connection: Connection, routes: Routes) -> Assignment:
    """Forced by header, else by key, else by chance.

    Raises:
        Fault: the body does not come.
    """
    key, body = request.header(_KEY) or b"", b""
    if not key and routes.key is not None and _may_hold_key(request):
        connection.cheer(request)
        body = await _beginning(request)
        if request.body.ended and len(body) <= LOOKED_INTO:
            key = key_in(body, routes.key)
    forced = (request.header(_FORCE) or b"").decode("latin-1").strip().lower()
    if forced == CHAMPION or (forced == CANDIDATE and routes.candidate is not None):
        return Assignment(forced, key, True, body)  # noqa: FBT003
    share = place(key, routes.model) if key else random.random()  # noqa: S311 - nothing is secret here
    return Assignment(arm_at(share, routes), key, False, body)  # noqa: FBT003


def arm_at(share: float, routes: Routes) -> str:
    """The candidate has [0, weight), so that a ramp only ever takes keys from the champion."""
    return CANDIDATE if routes.candidate is not None and share * 100 < routes.weight else CHAMPION


def place(key: bytes, model: str) -> float:
    """The key's place in [0, 1): the same at every weight, in every process, of its own for each model."""
    digest = hashlib.blake2b(key, digest_size=8, person=hashlib.blake2b(model.encode(), digest_size=16).digest())
    # 64 bits do not fit a float: the last ones would round up to 1.
    return (int.from_bytes(digest.digest(), "big") >> 11) / (_SPAN >> 11)


def stand_in(key: bytes, secret: bytes | None) -> str:
    """What the log says instead of the key, marked as such by its first letter; nothing without a secret."""
    if not key or secret is None:
        return ""
    return "k" + hashlib.blake2b(key, digest_size=16, key=hashlib.blake2b(secret).digest()).hexdigest()


def _may_hold_key(request: Incoming) -> bool:
    if request.length == 0 or (request.length or 0) > LOOKED_INTO:
        return False
    if request.header(_BINARY) is not None or request.header(b"content-encoding") is not None:
        return False
    kind = (request.header(b"content-type") or b"application/json").partition(b";")[0].strip().lower()
    return kind == b"application/json" or kind.endswith(b"+json")


async def _beginning(request: Incoming) -> bytes:
    """The whole body, or a little more than what is looked into."""
    parts, size = [], 0
    while size <= LOOKED_INTO and (part := await request.body.read()):
        parts.append(part)
        size += len(part)
        if request.body.ended and not request.body.waits:
            break
    return parts[0] if len(parts) == 1 else b"".join(parts)


def key_in(body: bytes, column: str) -> bytes:
    """The value of the column in the first row of a JSON body, in any form that a server takes; empty: none."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b""
    return text_of(_value(found, column))


def text_of(value: object) -> bytes:
    """One text for equal keys: `7` of a caller who writes 7, 7.0 or "7"."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    return str(value).encode() if isinstance(value, int | float) else b""


def _value(found: Any, column: str) -> object:
    if isinstance(found, list):
        return _of_row(found, column)
    if not isinstance(found, dict):
        return None
    for form in _LIST_FORMS:
        if isinstance(found.get(form), list):
            return _of_row(found[form], column)
    if isinstance(split := found.get("dataframe_split"), dict):
        return _of_split(split, column)
    if "inputs" in found:
        return _of_inputs(found["inputs"], column)
    return found.get(column)


def _of_row(rows: list[Any], column: str) -> object:
    return rows[0].get(column) if rows and isinstance(rows[0], dict) else None


def _of_split(split: dict[str, Any], column: str) -> object:
    columns, data = split.get("columns"), split.get("data")
    if not isinstance(columns, list) or column not in columns or not isinstance(data, list) or not data:
        return None
    at = columns.index(column)
    return data[0][at] if isinstance(data[0], list) and at < len(data[0]) else None


def _of_inputs(inputs: Any, column: str) -> object:
    """Tensors of the Open Inference Protocol, columns by name, or rows."""
    if isinstance(inputs, dict):
        return _first(inputs.get(column))
    if not isinstance(inputs, list):
        return None
    for one in inputs:
        if isinstance(one, dict) and one.get("name") == column and "data" in one:
            return _first(one["data"])
    return _of_row(inputs, column)


def _first(data: object) -> object:
    for _ in range(8):  # tensors may be nested
        if not isinstance(data, list):
            return data
        if not data:
            return None
        data = data[0]
    return None
