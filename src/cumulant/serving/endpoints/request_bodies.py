"""Reading of large bodies on a thread of their own, so that it delays no other request."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from cumulant.core.errors import CumulantError, OverloadedError
from cumulant.serving.endpoints.scoring import Scoring
from cumulant.serving.freed_memory import release_memory
from cumulant.serving.http.messages import Request
from cumulant.serving.models.model import Model
from cumulant.serving.protocol.inference import HEADER_LENGTH
from cumulant.serving.protocol.json_body import decode_json
from cumulant.serving.protocol.json_size import decoded_bytes, decoded_csv_bytes, too_much_memory
from cumulant.serving.protocol.row_counts import MOST_ROWS, check_count

Q = TypeVar("Q")
R = TypeVar("R")
E = TypeVar("E", bound=CumulantError)
#: bytes of JSON that are read at once: some 5 ms, where handing over costs 0.2 ms
LARGE = 256 * 1024
#: bytes of bodies that may wait to be read
_MOST = 64 * 1024 * 1024
#: bytes of memory that values may take for each byte of them that came over gRPC or as raw texts
_TYPED = 16
#: seconds without a large body after which free memory is result_once back
_IDLE = 0.5
_CROWDED = "try again, or send raw tensors"
_DIGITS = 12
#: of one document, each of which takes some 60 bytes; one of more is decoded as a whole
_MOST_PARTS = 500_000
#: before a document begins
_BLANK = 64
_Parts = list[msgspec.Raw] | dict[str, msgspec.Raw]
_parts: Callable[[bytes | msgspec.Raw], _Parts] = msgspec.json.Decoder(_Parts).decode
_elements: Callable[[bytes], list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw]).decode


class SharedBudget:
    """Budget of `most` units on one event loop; a larger request waits until nothing else is taken."""

    def __init__(self, most: int) -> None:
        self._most, self.used = most, 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def part(self, size: int) -> AsyncIterator[None]:
        """Take `size` units, once they are available, behind earlier requests."""
        await self._take(size)
        try:
            yield
        finally:
            self._give(size)

    async def _take(self, size: int) -> None:
        if not self._waiting and self._fits(size):
            self.used += size
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give(size)
            else:
                self._next()
            raise

    def _give(self, size: int) -> None:
        self.used -= size
        self._next()

    def _fits(self, size: int) -> bool:
        return not self.used or self.used + size <= self._most

    def _next(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self.used += size
                turn.set_result(None)


def is_large(request: Request, *, tensors: bool = True) -> bool:
    """Whether decoding the body would delay other requests: it has much JSON, or binary texts.

    Binary numbers need no decoding, where the path takes `tensors`.
    """
    size = len(request.body)
    if size <= LARGE or not tensors:
        return size > LARGE
    length = request.headers.get(HEADER_LENGTH, b"")
    if not (length.isdigit() and len(length) <= _DIGITS) or int(length) > LARGE:
        return True
    head = request.body[: int(length)]
    return b"BYTES" in head or b"\\" in head  # an escape may stand for any letter


def json_of(request: Request, *, tensors: bool) -> bytes:
    """The part of a body that is JSON: all but raw `tensors`, where the path takes any."""
    length = request.headers.get(HEADER_LENGTH, b"") if tensors else b""
    return request.body[: int(length)] if length.isdigit() and len(length) <= _DIGITS else request.body


def decoded_memory(request: Request, *, tensors: bool, csv: bool) -> int:
    """An upper bound of the bytes of memory that the values of a body take; `csv`: the path takes CSV too."""
    if csv and b"text/csv" in request.headers.get(b"content-type", b"").lower():
        return decoded_csv_bytes(request.body)
    head = json_of(request, tensors=tensors)
    return decoded_bytes(head) + _TYPED * (len(request.body) - len(head))


def decode_rows(body: bytes, *, wrapped: bool = True) -> Any:
    """A JSON document of plain rows, also under "rows" where it may be `wrapped`. Each row of a large one is decoded by
    itself, after they were counted: one long call into the decoder would block every other thread.

    Raises:
        HttpError: 413 for more rows than one request may bring.
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: it is no valid JSON.
    """
    if len(body) <= LARGE or body[:_BLANK].lstrip()[:1] not in (b"[", b"{"):
        return decode_json(body)
    many = max(body.count(b"{"), body.count(b"[")) > MOST_ROWS + 1
    if not many and body.count(b",") > _MOST_PARTS:
        return decode_json(body)
    parts = _parts(body)
    if isinstance(parts, list):
        check_count(len(parts))
        return [decode_json(element) for element in parts]
    return {name: _listed(bytes(element), rows=wrapped and name == "rows") for name, element in parts.items()}


def _listed(text: bytes, *, rows: bool) -> Any:
    if text[:1] != b"[":
        return decode_json(text)
    elements = _elements(text)
    if rows:
        check_count(len(elements))
    return [decode_json(element) for element in elements]


class BodyReader:
    """Reads large bodies on one thread; more would delay other requests.

    Args:
        most: bytes of memory that decoded bodies may take together, until they are answered; also those of one alone.
    """

    def __init__(self, most: int) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cumulant-read")
        self._waiting = 0
        self._most, self._decoded = most, SharedBudget(most)
        #: when the last large body came, and whether a check of that is due
        self._last_arrival, self._release_due = 0.0, False

    @asynccontextmanager
    async def __call__(
        self,
        read: Callable[[Model, Q], Scoring[R]],
        model: Model,
        request: Q,
        size: int,
        decoded: Callable[[Q], int] | None = None,
    ) -> AsyncIterator[Callable[[Model, Q], Scoring[R]]]:
        """Result of `read` for a request of `size` bytes, as a function that returns or raises it.

        It raises OverloadedError where too many large bodies wait, and HttpError (413) for one that takes too much
        memory. `decoded` estimates the bytes of memory of the request; by default those of typed values.
        """
        loop = asyncio.get_running_loop()
        self._schedule_release(loop)
        if self._waiting and self._waiting + size > _MOST:
            yield _result_once(OverloadedError("too many large requests wait to be read", hint=_CROWDED))
            return
        self._waiting += (waiting := size)
        try:
            memory = _TYPED * size
            if decoded is not None:
                memory = await loop.run_in_executor(self._thread, decoded, request)
            if memory > self._most:
                yield _result_once(too_much_memory(memory, self._most))
                return
            async with self._decoded.part(memory):
                result_once = _result_once(
                    await loop.run_in_executor(self._thread, lambda: _outcome(read, model, request))
                )
                self._waiting -= waiting  # what is being scored waits no more: its memory alone counts
                waiting = 0
                yield result_once
        finally:
            self._waiting -= waiting

    def _schedule_release(self, loop: asyncio.AbstractEventLoop) -> None:
        self._last_arrival = loop.time()
        if not self._release_due:
            self._release_due = True
            loop.call_later(_IDLE, self._release_when_idle, loop)

    def _release_when_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        """Release the memory of large bodies once no others arrive."""
        if self._waiting or self._decoded.used or loop.time() < self._last_arrival + _IDLE:
            loop.call_later(_IDLE, self._release_when_idle, loop)
            return
        self._release_due = False
        self._thread.submit(release_memory)


def _result_once(outcome: Scoring[R] | CumulantError) -> Callable[[Model, Any], Scoring[R]]:
    """Function that returns or raises the outcome once, where the request is counted."""
    outcomes = [outcome]

    def result_once(*_: object) -> Scoring[R]:
        result = outcomes.pop()
        try:
            if isinstance(result, CumulantError):
                raise result
            return result
        finally:
            del result  # an error whose traceback leads to itself stays until the collector comes by, and its body too

    return result_once


def _outcome(read: Callable[[Model, Q], Scoring[R]], model: Model, request: Q) -> Scoring[R] | CumulantError:
    try:
        return read(model, request)
    except CumulantError as error:  # it is counted where the request is
        return without_frames(error)


def without_frames(error: E) -> E:
    """The error without its traceback, whose frames hold the body."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
