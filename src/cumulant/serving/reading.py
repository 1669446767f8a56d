"""Large bodies are read on a thread of their own, in short turns, so that other requests go on meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from cumulant.core.errors import CumulantError, OverloadedError, RequestError
from cumulant.serving.http import Request
from cumulant.serving.inference import HEADER_LENGTH
from cumulant.serving.models import Model
from cumulant.serving.scoring import Scoring

Q = TypeVar("Q")
R = TypeVar("R")

#: bytes of JSON that are read at once: some 5 ms, where handing over costs 0.2 ms
LARGE = 256 * 1024
#: bytes of bodies that may wait to be read
_MOST = 64 * 1024 * 1024
_CROWDED = "try again, or send raw tensors"
_DIGITS = 12
#: of one document, each of which takes some 60 bytes; one of more is decoded as a whole
_MOST_PARTS = 500_000
#: before a document begins
_BLANK = 64
_MAX_ID = 256
_Parts = list[msgspec.Raw] | dict[str, msgspec.Raw]
_parts: Callable[[bytes | msgspec.Raw], _Parts] = msgspec.json.Decoder(_Parts).decode
_elements: Callable[[bytes], list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode: Callable[[bytes | msgspec.Raw], Any] = msgspec.json.Decoder().decode


def is_large(request: Request) -> bool:
    """Whether so much of the body is JSON, or raw texts, that reading it would hold up other requests; raw numbers are
    taken as they lie there.
    """
    size = len(request.body)
    if size <= LARGE:
        return False
    length = request.headers.get(HEADER_LENGTH, b"")
    if not (length.isdigit() and len(length) <= _DIGITS) or int(length) > LARGE:
        return True
    head = request.body[: int(length)]
    return b"BYTES" in head or b"\\" in head  # an escape may stand for any letter


def decode_rows(body: bytes) -> Any:
    """A JSON document of plain rows. Each row of a large one is decoded by itself: one long call into the decoder would
    hold up every other thread.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: it is no valid JSON.
    """
    if len(body) <= LARGE or body.count(b",") > _MOST_PARTS or body[:_BLANK].lstrip()[:1] not in (b"[", b"{"):
        return _decode(body)
    parts = _parts(body)
    if isinstance(parts, list):
        return [_decode(one) for one in parts]
    return {name: _listed(bytes(one)) for name, one in parts.items()}


def _listed(text: bytes) -> Any:
    return [_decode(one) for one in _elements(text)] if text[:1] == b"[" else _decode(text)


class Reader:
    """One thread: more would take more than their share from the requests that are answered meanwhile."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cumulant-read")
        self._waiting = 0

    async def __call__(
        self, read: Callable[[Model, Q], Scoring[R]], model: Model, request: Q, size: int
    ) -> Callable[[Model, Q], Scoring[R]]:
        """What `read` makes of the request of `size` bytes, as one that has been read already; an OverloadedError where
        too many large bodies wait.
        """
        if self._waiting and self._waiting + size > _MOST:
            return _given(OverloadedError("too many large requests wait to be read", hint=_CROWDED))
        self._waiting += size
        loop = asyncio.get_running_loop()
        try:
            outcome = await loop.run_in_executor(self._thread, lambda: _outcome(read, model, request))
        finally:
            self._waiting -= size
        return _given(outcome)


def _given(outcome: Scoring[R] | CumulantError) -> Callable[[Model, Any], Scoring[R]]:
    """Gives or raises the outcome where the request is counted."""

    def given(*_: object) -> Scoring[R]:
        if isinstance(outcome, CumulantError):
            raise outcome
        return outcome

    return given


def _outcome(read: Callable[[Model, Q], Scoring[R]], model: Model, request: Q) -> Scoring[R] | CumulantError:
    try:
        return read(model, request)
    except CumulantError as error:  # it is counted where the request is
        return error


def request_id_of(request: Request) -> str:
    """The caller's `X-Request-Id` where it is short printable ASCII; else a new one. Sent in bodies only."""
    found = request.headers.get(b"x-request-id")
    if found and len(found) <= _MAX_ID and found.isascii() and found.decode("ascii").isprintable():
        return found.decode("ascii")
    return os.urandom(8).hex()


_WRAPPED = {"rows", "reasons"}


def rows_of(value: object, model: Model) -> tuple[list[object], bool, object]:
    """The rows in a body, whether it was one bare row, and how many reasons it asks for."""
    if isinstance(value, list):
        return value, False, None
    if isinstance(value, dict) and "rows" in value and value.keys() <= _WRAPPED and "rows" not in model.inputs:
        if not isinstance(value["rows"], list):
            raise RequestError('"rows" must be a list of objects', subject="rows")
        return value["rows"], False, value.get("reasons")
    return [value], True, None
