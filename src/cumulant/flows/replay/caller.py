"""An HTTP client that keeps its connections: little work a request, so that the other side is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from cumulant.core.errors import UsageError

_HEAD_END = b"\r\n\r\n"
_LARGEST_HEAD = 64 * 1024


class ReplayResponse(NamedTuple):
    """The answer to a request. `status` 0: no answer, and `body` is the reason. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


class _Link(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class ReplayClient:
    """HTTP/1.1 client of one server, with as many connections as concurrent requests.

    Raises:
        UsageError: `url` is no `http://HOST:PORT`.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise UsageError(f'"{url}" is no address of a server', subject=url, hint="write http://127.0.0.1:8080")
        self.url = url.rstrip("/")
        self._host, self._port, self._root = parts.hostname, parts.port or 80, parts.path.rstrip("/")
        self._timeout = timeout
        self._idle: list[_Link] = []

    async def ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> ReplayResponse:
        """One request. A kept connection that turns out closed before anything came is replaced, once."""
        begun = time.perf_counter()
        head = self._head(method, path, body, headers)
        try:
            async with asyncio.timeout(self._timeout):
                status, received, content = await self._exchanged(head + body)
        except TimeoutError:
            return ReplayResponse(0, {}, f"no answer within {self._timeout:g} s".encode(), time.perf_counter() - begun)
        except (OSError, EOFError, ValueError) as error:
            return ReplayResponse(0, {}, str(error or type(error).__name__).encode(), time.perf_counter() - begun)
        return ReplayResponse(status, received, content, time.perf_counter() - begun)

    def close(self) -> None:
        """Let the idle connections go."""
        for link in self._idle:
            link.writer.close()
        self._idle.clear()

    def _head(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        lines = [f"{method} {self._root}{path} HTTP/1.1", f"host: {self._host}:{self._port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"content-length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode()

    async def _exchanged(self, request: bytes) -> tuple[int, Mapping[str, str], bytes]:
        while self._idle:
            link = self._idle.pop()
            if link.reader.at_eof():
                link.writer.close()
                continue
            try:
                return await self._over(link, request)
            except _StaleError:
                continue
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=_LARGEST_HEAD)
        return await self._over(_Link(reader, writer), request)

    async def _over(self, link: _Link, request: bytes) -> tuple[int, Mapping[str, str], bytes]:
        keep = False
        try:
            link.writer.write(request)
            head = await _head_of(link.reader)
            status, headers = _read_head(head)
            body = await link.reader.readexactly(int(headers.get("content-length", "0")))
            keep = headers.get("connection", "").lower() != "close"
        finally:
            if keep:
                self._idle.append(link)
            else:
                link.writer.close()
        return status, headers, body


class _StaleError(Exception):
    """The other side had closed the kept connection: nothing was read of the request."""


async def _head_of(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(_HEAD_END)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        raise _StaleError from None


def _read_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split(" ", 2)[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}
