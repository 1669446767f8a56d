"""Malformed requests on raw sockets: 2,000 to a server, to the gateway, and to the gateway's own metrics.

    python bench/serving/malformed.py [--requests 2000] [--seed 1]

Each request is a valid one with bytes changed, cut, repeated or inserted, or one of the known attacks on a head. Prints
the statuses, the resident memory of the process before and after, and the slowest answer of a live probe meanwhile. A
request that the server waits for is ended by its caller after a second. All run on one machine.
"""

from __future__ import annotations

import argparse
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hostile import Probe, Server, serving

from cumulant.core.traffic import Arm, Routes
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.ports.traffic import ListenOptions
from cumulant.testing.gateways import running

_POST = b"POST /v1/models/flight-late/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
_PLAIN = _POST + b'content-length: 18\r\n\r\n{"distance": 100.0'
_WHOLE = (
    _PLAIN,
    _POST + b'transfer-encoding: chunked\r\n\r\n5\r\n{"a":\r\n3\r\n1.0\r\n1\r\n}\r\n0\r\n\r\n',
    _POST + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n{}",
    b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n" * 3,
)
_ATTACKS = (
    _POST + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    _POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{} ",
    _POST + b"content-length: 99999999999999999999999\r\n\r\n{}",
    _POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    _POST + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    _POST + b"content-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00",
    _POST + b"x: " + b"y" * 300_000,
    _POST + b"".join(b"x%d: y\r\n" % number for number in range(500)) + b"\r\n",
    b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    bytes(range(256)),
)


def malformed(count: int, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for _ in range(count):
        if chance.random() < 0.3:
            yield chance.choice(_ATTACKS)
            continue
        found = bytearray(chance.choice(_WHOLE))
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(len(found))
            change = chance.randrange(4)
            if change == 0:
                found[at] = chance.randrange(256)
            elif change == 1:
                found[at:at] = chance.randbytes(chance.randint(1, 40))
            elif change == 2:
                found[at:at] = found[: chance.randrange(len(found))]
            elif len(found) > 10:
                del found[at : at + chance.randint(1, 10)]
        yield bytes(found)


def sent(address: tuple[str, int], request: bytes) -> str:
    """The status of the first answer, or how the connection ended."""
    try:
        with socket.create_connection(address, timeout=5) as connection:
            connection.settimeout(1)
            connection.sendall(request)
            answer = connection.recv(65_536)
    except TimeoutError:
        return "waited for"
    except OSError as error:
        return type(error).__name__
    return answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "closed" if not answer else "other"


def measure(name: str, url: str, server: Server, count: int, seed: int) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    probe, began, before = Probe(server.url), time.perf_counter(), server.memory("VmRSS")
    try:
        with ThreadPoolExecutor(16) as pool:
            statuses = Counter(pool.map(lambda one: sent((host, int(port)), one), malformed(count, seed)))
    finally:
        probe.close()
    print(
        f"{name}: {count} requests, {dict(sorted(statuses.items()))}; {before:.0f} -> {server.memory('VmRSS'):.0f} MiB,"
        f" highest {server.memory('VmHWM'):.0f}; probe {probe.slowest() * 1000:.0f} ms;"
        f" {time.perf_counter() - began:.0f} s",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--requests", type=int, default=2000)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    with serving() as server, tempfile.TemporaryDirectory() as folder:
        measure("server", server.url, server, given.requests, given.seed)
        traffic = EnvoyTraffic(f"envoy://{folder}")
        with running(traffic, ListenOptions(http="127.0.0.1:0"), sys.stderr.buffer):
            arm = Arm(name="champion", version="1", endpoints=(server.url,))
            traffic.apply(Routes(model="flight-late", champion=arm, candidate=None, revision=1))
            address = traffic.address()
            assert address is not None
            [envoy] = Path(f"/proc/{address.pid}/task/{address.pid}/children").read_text().split()
            passed = Server(address.url, int(envoy))
            measure("gateway", address.url, passed, given.requests, given.seed + 1)
            measure("gateway's metrics", address.admin, passed, given.requests, given.seed + 2)


if __name__ == "__main__":
    main()
