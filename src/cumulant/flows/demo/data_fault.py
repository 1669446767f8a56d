"""`python -m cumulant.flows.demo.data_fault URL --http 127.0.0.1:0 --slow 0.2 --failing 0.02`: a server with a fault.

Stands before a sound server and passes everything on, so that a release can be shown what it has to find: answers that
come late, or a share of predictions that fail. Questions about health and models are answered as the server does. The
sound server believes what the gateway says of a request, as it does without the fault between them.
"""

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

import msgspec

from cumulant.core.network.gateway_token import read_key, token_for
from cumulant.core.traffic import TOKEN_HEADER
from cumulant.flows.replay.caller import ReplayClient, ReplayResponse

_LOOK = 0.5
#: of a connection between the two sides only
_OWN = {"host", "content-length", "connection", "transfer-encoding"}
_FAILED = ReplayResponse(
    500, {"content-type": "application/json"}, b'{"error": "the demo makes this request fail"}', 0.0
)


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """`slow`: seconds added to each prediction; `failing`: share of predictions that fail."""

    slow: float = 0.0
    failing: float = 0.0


class Faulty:
    """One connection after the other, each for as many requests as its caller likes."""

    def __init__(self, url: str, fault: Fault, key: bytes) -> None:
        self._caller = ReplayClient(url, timeout=30.0)
        self._fault = fault
        #: that the gateway would send to the sound server
        self._token = token_for(key, url)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled: the server ends, and nobody waits for what is left of a kept connection.
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, OSError, ValueError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                method, path, _ = first.split(" ", 2)
                pairs = (line.partition(":") for line in lines if line)
                headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                writer.write(_encode_answer(await self._answer(method, path, body, headers)))
                await writer.drain()
        writer.close()

    async def _answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> ReplayResponse:
        if method == "POST":
            await asyncio.sleep(self._fault.slow)
            if random.random() < self._fault.failing:  # noqa: S311 - nothing is secret here
                return _FAILED
        passed = {name: value for name, value in headers.items() if name not in _OWN}
        if TOKEN_HEADER in passed:
            passed[TOKEN_HEADER] = self._token
        return await self._caller.ask(method, path, body, passed)


def _encode_answer(answer: ReplayResponse) -> bytes:
    lines = [f"HTTP/1.1 {answer.status or 502} {'OK' if answer.status == 200 else 'Error'}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items() if name not in _OWN]
    lines += [f"content-length: {len(answer.body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + answer.body


async def _run(options: argparse.Namespace) -> None:
    fault = Fault(slow=options.slow, failing=options.failing)
    faulty = Faulty(options.url, fault, read_key(options.gateway_key_file))
    host, _, port = options.http.rpartition(":")
    server = await asyncio.start_server(faulty.serve, host, int(port))
    url = f"http://{host}:{server.sockets[0].getsockname()[1]}"
    draft = options.ready_file.with_suffix(".new")
    draft.write_text(url)
    draft.replace(options.ready_file)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    while not ended.is_set() and os.getppid() == options.parent:
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), _LOOK)
    server.close()


def main(words: Sequence[str] | None = None) -> int:
    """Until SIGTERM, or the end of the process `--parent`."""
    parser = argparse.ArgumentParser(prog="python -m cumulant.flows.demo.data_fault")
    parser.add_argument("url", help="of the sound server")
    parser.add_argument("--http", metavar="HOST:PORT", default="127.0.0.1:0")
    parser.add_argument("--slow", metavar="SECONDS", type=float, default=0.0)
    parser.add_argument("--failing", metavar="SHARE", type=float, default=0.0)
    parser.add_argument("--gateway-key-file", metavar="FILE", type=Path, required=True, help="of the stack")
    parser.add_argument("--ready-file", metavar="FILE", type=Path, required=True, help="gets the URL")
    parser.add_argument("--parent", metavar="PID", type=int, required=True)
    asyncio.run(_run(parser.parse_args(words)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
