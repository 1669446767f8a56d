"""`python -m cumulant.demo.data_fault URL --slow 0.2 --failing 0.02`: a proxy that adds a fault to a server."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from cumulant.core.network.gateway_token import read_key, token_for
from cumulant.core.system.atomic_files import replace_file
from cumulant.core.traffic import TOKEN_HEADER

_LOOK = 0.5
_HEAD_END = b"\r\n\r\n"
_FAILURE = b'{"error": "the demo makes this request fail"}'
_FAILED = b"HTTP/1.1 500 Error\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(_FAILURE),
    _FAILURE,
)

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """`slow`: seconds added to each prediction; `failing`: share of predictions that fail."""

    slow: float = 0.0
    failing: float = 0.0


class FaultyProxy:
    """Forwards requests one after the other: a connection to the sound server for each one that it accepts."""

    def __init__(self, url: str, fault: Fault, key: bytes) -> None:
        self._server = urlsplit(url)
        self._fault = fault
        #: that the gateway would send to the sound server
        self._token = token_for(key, url).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server: Pair | None = None
        # Cancelled: this process ends, and idle connections need no answer.
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, OSError, ValueError):
            while True:
                head, body = await _message(reader)
                if head.startswith(b"POST "):
                    await asyncio.sleep(self._fault.slow)
                    if random.random() < self._fault.failing:  # noqa: S311 - nothing is secret here
                        writer.write(_FAILED)
                        continue
                server, response = await self._forward(server, self._with_token(head) + body)
                writer.write(response)
                await writer.drain()
        writer.close()
        if server is not None:
            server[1].close()

    async def _forward(self, server: Pair | None, request: bytes) -> tuple[Pair, bytes]:
        if server is not None:
            with suppress(asyncio.IncompleteReadError, ConnectionError):  # closed while it was idle
                server[1].write(request)
                return server, b"".join(await _message(server[0]))
            server[1].close()
        server = await asyncio.open_connection(self._server.hostname, self._server.port)
        server[1].write(request)
        return server, b"".join(await _message(server[0]))

    def _with_token(self, head: bytes) -> bytes:
        """The head with the token of the sound server in place of that for this proxy."""
        name = TOKEN_HEADER.encode()
        lines = head.split(b"\r\n")
        return b"\r\n".join(
            name + b": " + self._token if line.partition(b":")[0].strip().lower() == name else line for line in lines
        )


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of the next request or response, which states the length of its body if it has one."""
    head = await reader.readuntil(_HEAD_END)
    pairs = (line.partition(b":") for line in head.split(b"\r\n"))
    length = next((value for name, _, value in pairs if name.strip().lower() == b"content-length"), b"0")
    return head, await reader.readexactly(int(length))


async def _run(options: argparse.Namespace) -> None:
    fault = Fault(slow=options.slow, failing=options.failing)
    proxy = FaultyProxy(options.url, fault, read_key(options.gateway_key_file))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    replace_file(options.ready_file, url.encode(), durable=False)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    while not ended.is_set() and os.getppid() == options.parent:
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), _LOOK)
    server.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Until SIGTERM, or the end of the process `--parent`."""
    parser = argparse.ArgumentParser(prog="python -m cumulant.demo.data_fault")
    parser.add_argument("url", help="of the sound server")
    parser.add_argument("--slow", metavar="SECONDS", type=float, default=0.0)
    parser.add_argument("--failing", metavar="SHARE", type=float, default=0.0)
    parser.add_argument("--gateway-key-file", metavar="FILE", type=Path, required=True, help="of the stack")
    parser.add_argument("--ready-file", metavar="FILE", type=Path, required=True, help="gets the URL")
    parser.add_argument("--parent", metavar="PID", type=int, required=True)
    asyncio.run(_run(parser.parse_args(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
