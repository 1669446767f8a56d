"""How long refusals of a light model beyond its peak take, with a client in C: `refused.py [--seconds 4] [--rounds 3]`.

Needs `h2load` and `wrk`. `--connections` (1,000) that are kept, each with one request at a time, at twice the peak of the
closed loop. The same client at the same rate of a server that answers 503 to everything, and does nothing else, says
how much of a latency is that of the client and of the system. Prints a table; latencies count from when a request was
sent, processor time is that of the server's processes a request.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httptools
import numpy as np
import payloads
import uvloop
from bench import Bench
from processes import Server, free_port

_ANSWER = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


class Refuse(asyncio.Protocol):
    """Answers 503 to each whole request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._parser = transport, httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._transport.write(_ANSWER)


async def refuse(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Refuse, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def measured(bench: Bench, server: Server, rate: float, connections: int, body: Path) -> dict[int, np.ndarray]:
    """Latencies in milliseconds by status; 0: processor time of a request, in microseconds."""
    log = bench.work / "h2load.log"
    log.unlink(missing_ok=True)
    before = server.cpu()
    subprocess.run(
        [
            "h2load",
            "--h1",
            "-t1",
            f"-c{connections}",
            f"--rps={rate / connections:.3f}",
            f"-D{bench.long:g}s",
            "-d",
            body,
            "-H",
            "content-type: application/json",
            f"--log-file={log}",
            f"http://127.0.0.1:{server.port}/v2/models/bench/infer",
        ],
        check=True,
        capture_output=True,
        timeout=bench.long + 60,
    )
    spent = server.cpu() - before
    rows = np.loadtxt(log, dtype=np.int64, ndmin=2)
    found = {int(status): rows[rows[:, 1] == status, 2] / 1e3 for status in np.unique(rows[:, 1])}
    return found | {0: np.array([spent / len(rows) * 1e6])}


def line(name: str, found: dict[int, np.ndarray], seconds: float) -> str:
    cells = [name, f"{found.pop(0)[0]:.0f} us"]
    for status in (200, 429, 503):
        times = found.pop(status, np.zeros(0))
        p50, p99 = np.percentile(times, [50, 99]) if len(times) else (np.nan, np.nan)
        cells.append(f"{len(times) / seconds:,.0f}/s, {p50:.1f}, {p99:.1f} ms" if len(times) else "")
    return "| " + " | ".join([*cells, str(sum(map(len, found.values())))]) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--rate", type=float, help="requests a second; default: twice the peak, measured first")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "cumulant-bench-serving")
    given = parser.parse_args()
    for name, package in (("h2load", "nghttp2-client"), ("wrk", "wrk")):
        if shutil.which(name) is None:
            sys.exit(f"{name} is not here: apt-get install {package}")
    given.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(given.work, short=2, long=given.seconds, rounds=given.rounds)
    body = given.work / "one.json"
    body.write_bytes(payloads.read(bench.one)[0].partition(b"\r\n\r\n")[2])
    port = free_port()
    with bench.servers() as keep:
        ours = bench.ours(keep)
        command = [sys.executable, __file__, "--refuse", str(port)]
        bare = keep(Server("refuse", command, port=port, log=given.work / "refuse.log"))
        rate = given.rate or 2 * float(np.median([bench.wrk(ours.port, 2).rate for _ in range(given.rounds)]))
        print(
            f"{rate:,.0f} requests/s\n\n| server | CPU a request | 200: rate, p50, p99 | 429 | 503 | other |\n|"
            + " --- |" * 6
        )
        for _ in range(given.rounds):
            for name, server in (("ours", ours), ("503 to everything", bare)):
                print(line(name, measured(bench, server, rate, given.connections, body), bench.long), flush=True)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--refuse"]:
        uvloop.run(refuse(int(sys.argv[2])))
    sys.exit(main())
