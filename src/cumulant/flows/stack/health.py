"""Health checks: whether a process answers, and whether requests still go to it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.traffic import CANDIDATE, Routes
from cumulant.ports.traffic import Gateway, Traffic

_SECONDS = 1.0
_READY = b"GET /v2/health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


class ServerHealth(msgspec.Struct, frozen=True):
    """The answer to a readiness check; one without `ready` is of another program, whose status code is its answer.

    `unreachable`: names of stores that the server reports that it cannot reach. `overloaded`: it refuses requests
    that would wait too long.
    """

    ready: bool = True
    unreachable: tuple[str, ...] = ()
    overloaded: bool = False


async def server_health(url: str) -> ServerHealth:
    """The health that a server reports; not ready where it does not answer."""
    answer = await _read_answer(url, _READY)
    if not answer.startswith(b"HTTP/1.1 200 "):
        return ServerHealth(ready=False)
    try:
        return msgspec.json.decode(answer.partition(_HEAD_END)[2], type=ServerHealth)
    except msgspec.DecodeError:  # of another program, or of another version of Cumulant
        return ServerHealth()


async def listens(url: str) -> bool:
    return await _read_answer(url, b"") is not _NOTHING


def is_drained(traffic: Traffic, model: str, version: str) -> bool:
    """Whether no request is under way to a version, nor will be.

    Raises:
        CumulantError: the gateway does not answer.
    """
    routes = traffic.in_force(model)
    if routes is None:
        return True
    if _has_requests(routes, version):
        return False
    other = routes.candidate is not None and routes.candidate.version != version
    return other or traffic.active(model, CANDIDATE) == 0


def is_replaced(traffic: Traffic, model: str, version: str, url: str) -> bool:
    """Whether new requests of a version go to other servers of it than the one at `url`.

    Raises:
        CumulantError: the gateway does not answer.
    """
    routes = traffic.in_force(model)
    arms = [] if routes is None else [arm for arm in routes.arms if arm.version == version]
    return bool(arms) and not any(url in arm.endpoints for arm in arms)


async def answer_of(ask: Callable[[], bool]) -> bool:
    """The answer of what may wait for the journal. The loop's own threads would hold up the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bool] = loop.create_future()

    def work() -> None:
        try:
            settle = partial(future.set_result, ask())
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            settle = partial(future.set_exception, error)
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: None if future.done() else settle())

    threading.Thread(target=work, name="cumulant-probe", daemon=True).start()
    return await future


def find_gateway_url(gateway: Gateway) -> str | None:
    """Where callers reach the gateway; None while it does not run, or does not answer."""
    with suppress(CumulantError):
        address = gateway.address()
        return None if address is None else address.url
    return None


def _has_requests(routes: Routes, version: str) -> bool:
    if routes.champion.version == version:
        return True
    shared = routes.weight > 0 or routes.mirror > 0
    return routes.candidate is not None and routes.candidate.version == version and shared


_NOTHING = b"nothing"
_MOST_BYTES = 65_536
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


async def _read_answer(url: str, request: bytes) -> bytes:
    """The answer to `request`; `_NOTHING` where no connection is made, or no complete answer comes in time."""
    address = urlsplit(url)
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            try:
                if not request:
                    return b""
                writer.write(request)
                return await _read_complete(reader)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return _NOTHING


async def _read_complete(reader: asyncio.StreamReader) -> bytes:
    """What is sent until the answer is complete; `_NOTHING` where it ends before that, or is longer than an answer."""
    answer = b""
    while not _is_complete(answer):
        part = await reader.read(_MOST_BYTES)
        if not part:
            return answer if _is_complete(answer, closed=True) else _NOTHING
        answer += part
        if len(answer) > _MOST_BYTES:
            return _NOTHING
    return answer


def _is_complete(answer: bytes, *, closed: bool = False) -> bool:
    """Whether the answer has the length that its head declares; one that declares none ends with the connection."""
    head, end, body = answer.partition(_HEAD_END)
    length = _LENGTH.search(head)
    return end != b"" and (closed if length is None else len(body) >= int(length[1]))
