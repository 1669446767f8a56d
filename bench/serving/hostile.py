"""Memory and liveness of a server under bodies that want too much of it.

    python bench/serving/hostile.py [--refused 1000]

Starts a real server of one worker, sends each kind of body to it, and prints what answered, the worker's resident
memory after it and its highest up to then, and the slowest answer of a probe that asks all the while. The server, its
callers and the probe share the machine.
"""

from __future__ import annotations

import argparse
import gzip
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "unit" / "serving"))
from serving_models import ROW, servable

_ZIPPED = {"content-encoding": "gzip"}
_EMPTY_ROWS = b"[" + b",".join([b"{}"] * 2_700_000) + b"]"
_NUMBERS = b",".join([b"1"] * 4_000_000)
_SECONDS = 6.0


class Server(NamedTuple):
    url: str
    pid: int

    def memory(self, name: str) -> float:
        """MiB of `VmRSS` or `VmHWM`."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


@contextmanager
def serving() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as place:
        line = [sys.executable, "-m", "cumulant.serving", str(servable(Path(place) / "model")), "--http", "127.0.0.1:0"]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        try:
            yield Server(told["url"], told["pid"])
        finally:
            process.terminate()
            process.wait()


class Probe:
    """The slowest answer of the live probe since the last reading, in seconds."""

    def __init__(self, url: str) -> None:
        self._url, self._over, self._slowest = f"{url}/v2/health/live", threading.Event(), 0.0
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        with httpx.Client(timeout=120) as client:
            while not self._over.wait(0.02):
                began = time.perf_counter()
                client.get(self._url)
                self._slowest = max(self._slowest, time.perf_counter() - began)

    def slowest(self) -> float:
        found, self._slowest = self._slowest, 0.0
        return found

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--refused", type=int, default=1000, help="refused bodies of the last phases")
    count = options.parse_args().refused
    with serving() as server:
        probe = Probe(server.url)
        try:
            for name, send in phases(server.url, count):
                began = time.perf_counter()
                answers = sorted(set(send()))
                print(
                    f"{name}: {answers}; {server.memory('VmRSS'):.0f} MiB, highest {server.memory('VmHWM'):.0f};"
                    f" probe {probe.slowest() * 1000:.0f} ms; {time.perf_counter() - began:.1f} s",
                    flush=True,
                )
        finally:
            probe.close()


def phases(url: str, count: int) -> Iterator[tuple[str, Callable[[], Iterable[int]]]]:
    predict, invocations = f"{url}/v1/models/flight-late/predict", f"{url}/invocations"
    bomb, csv = gzip.compress(_EMPTY_ROWS, 9), gzip.compress(b"distance\n" + b"1\n" * 4_000_000)
    columns = gzip.compress(b'{"inputs":{"distance":[' + _NUMBERS + b"]}}")
    wrong = gzip.compress(json.dumps([ROW | {"distance": "far"}] * 4000).encode())

    def posted(to: str, body: bytes, times: int, kind: str = "application/json") -> Callable[[], list[int]]:
        headers = {**_ZIPPED, "content-type": kind}

        def send(_: int) -> int:
            return httpx.post(to, content=body, headers=headers, timeout=180).status_code

        def together() -> list[int]:
            with ThreadPoolExecutor(16) as pool:
                return list(pool.map(send, range(times)))

        return together

    yield "200 rows", lambda: [httpx.post(predict, json=ROW).status_code for _ in range(200)]
    yield f"16 of {len(bomb):,} bytes with 2.7 million empty rows", posted(predict, bomb, 16)
    yield "a column of 4 million numbers", posted(invocations, columns, 1)
    yield "CSV of 4 million lines", posted(invocations, csv, 1, "text/csv")
    yield f"{count} of 4,000 rows with a wrong field", posted(predict, wrong, count)
    yield f"{count} of 2.7 million empty rows", posted(predict, bomb, count)
    yield "8 connections with endless trailers", lambda: endless(url)


def endless(url: str) -> list[int]:
    """MiB of trailers that each of eight connections could send."""
    host, port = url.removeprefix("http://").split(":")
    trailers = b"".join(b"t%d: %s\r\n" % (number, b"x" * 100) for number in range(500))

    def send(_: int) -> int:
        sent, end = 0, time.monotonic() + _SECONDS
        with socket.create_connection((host, int(port))) as connection, suppress(OSError):
            connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
            while time.monotonic() < end:
                connection.sendall(trailers)
                sent += len(trailers)
        return sent >> 20

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(send, range(8)))


if __name__ == "__main__":
    main()
