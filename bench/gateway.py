"""What the gateway costs: the same requests straight to a server, and through it with and without a key in the body.

`python bench/gateway.py [--seconds 5] [--connections 16]` prints medians and rates, as ratios to the straight ones of
the same round; three rounds, in turn, so that a busy machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cumulant.core.traffic import Arm, Limits, Routes
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.ports.traffic import ListenOptions

BODY = json.dumps({"rows": [{"card": "c-17", "x": 1.0, "note": "a row of a usual size" * 4}]}).encode()
REQUEST = (
    b"POST /v1/models/m/predict HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n" + b'{"score": 0.25}'
ROUNDS = 3


class Answering(asyncio.Protocol):
    """A server that answers at once; a request comes whole, or its rest is waited for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._found = b""

    def data_received(self, data: bytes) -> None:
        self._found += data
        while b"\r\n\r\n" in self._found:
            head, _, body = self._found.partition(b"\r\n\r\n")
            at = head.lower().find(b"content-length: ")
            length = int(head[at + 16 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(body) < length:
                return
            self._found = body[length:]
            self._transport.write(ANSWER)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Asking(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, request: bytes, took: list[float]) -> None:
        self._request, self._took = request, took

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._found, self._began = b"", time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._found += data
        if self._found.endswith(b'{"score": 0.25}'):
            assert self._found.startswith(b"HTTP/1.1 200"), self._found[:200]
            self._took.append(time.perf_counter() - self._began)
            self._ask()


async def measure(port: int, seconds: float, connections: int) -> tuple[float, float, float]:
    """Median and 99th percentile (milliseconds), and answers a second."""
    took: list[float] = []
    request = REQUEST % (len(BODY), BODY)
    loop = asyncio.get_running_loop()
    wires = [
        (await loop.create_connection(lambda: Asking(request, took), "127.0.0.1", port))[0] for _ in range(connections)
    ]
    await asyncio.sleep(0.3)
    took.clear()
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed, found = time.perf_counter() - began, sorted(took)
    for wire in wires:
        wire.abort()
    return statistics.median(found) * 1e3, found[int(len(found) * 0.99)] * 1e3, len(found) / elapsed


@contextmanager
def server() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@contextmanager
def gateway(folder: Path, upstream: int, key: str | None) -> Iterator[int]:
    traffic = EnvoyTraffic(f"envoy://{folder}")
    process = subprocess.Popen(traffic.command(ListenOptions(http="127.0.0.1:0")))
    try:
        while (address := traffic.address()) is None:
            assert process.poll() is None, "the gateway ended"
            time.sleep(0.05)
        url = f"http://127.0.0.1:{upstream}"
        arms = Arm(name="champion", version="1", endpoints=(url,)), Arm(name="candidate", version="2", endpoints=(url,))
        limits = Limits(health_every=5.0)
        traffic.apply(
            Routes(model="m", revision=1, champion=arms[0], candidate=arms[1], weight=10.0, key=key, limits=limits)
        )
        yield int(address.url.rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--serve", action="store_true")
    given = parser.parse_args()
    try:
        import uvloop as loops
    except ModuleNotFoundError:
        loops = asyncio
    if given.serve:
        loops.run(serve())
        return
    with ExitStack() as stack:
        upstream = stack.enter_context(server())
        ports = {"straight": upstream}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, key in (("gateway", None), ("gateway, key in the body", "card")):
            ports[name] = stack.enter_context(gateway(folder / name.replace(" ", "-"), upstream, key))
        for connections in (1, given.connections):
            found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ports}
            for _ in range(ROUNDS):
                for name, port in ports.items():
                    found[name].append(loops.run(measure(port, given.seconds, connections)))
            report(found, connections)


def report(found: dict[str, list[tuple[float, float, float]]], connections: int) -> None:
    print(
        f"\n{connections} connections: p50 ms, p99 ms, requests/s; p50 added and rate, against straight in the same round"
    )
    for name, rounds in found.items():
        p50, p99, rate = (statistics.median(one[at] for one in rounds) for at in range(3))
        added = statistics.median(one[0] - base[0] for one, base in zip(rounds, found["straight"], strict=True))
        share = statistics.median(one[2] / base[2] for one, base in zip(rounds, found["straight"], strict=True))
        print(f"{name:24} {p50:8.3f} {p99:8.3f} {rate:9.0f}   +{added:.3f} ms  x{share:.2f}")


if __name__ == "__main__":
    main()
