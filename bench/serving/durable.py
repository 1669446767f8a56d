"""What kills cost the prediction log, with and without answers that wait for it, and what the waiting costs.

    python bench/serving/durable.py [--kills 20] [--seconds 3] [--rounds 5]

First real servers answer callers while their log process, or every process of the server at once, is killed again and
again; requests that were acknowledged are then looked up in the log by their ids. Then one server of each kind runs,
and closed loops of 1 and 32 connections take turns on them. Servers and callers share the machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "unit" / "serving"))
from kill_support import PREDICT, Load, kill_all, kill_log, log_process, missing, start, stop
from serving_models import ROW, servable

MODES = ("background", "durable")


def log_kills(model: Path, log: Path, mode: str, kills: int, seconds: float) -> tuple[int, float, int, int]:
    """Acknowledged requests and the seconds that they took; those lost, and those in gaps. The log process is killed
    every so many seconds.
    """
    process, ready = start(model, log, "--log-write", mode, stderr=subprocess.DEVNULL)
    load, began = Load(ready["url"]), time.monotonic()
    for _ in range(kills):
        log_process(process)
        time.sleep(seconds)
        kill_log(process)
    time.sleep(seconds)
    load.end()
    stop(process)
    return len(load.acknowledged), time.monotonic() - began, *missing(log, load.acknowledged)


def server_kills(model: Path, log: Path, mode: str, kills: int, seconds: float) -> tuple[int, float, int, int]:
    """As `log_kills`, of all processes at once; a server is started again after each."""
    acknowledged: list[str] = []
    for number in range(kills):
        process, ready = start(model, log, "--log-write", mode, stderr=subprocess.DEVNULL)
        log_process(process)
        load = Load(ready["url"], first=number * 1_000_000)
        time.sleep(seconds)
        kill_all(process)
        load.end()
        acknowledged += load.acknowledged
    process, _ = start(model, log, "--log-write", mode)
    stop(process)
    return len(acknowledged), kills * seconds, *missing(log, acknowledged)


def closed_loop(address: tuple[str, int], connections: int, seconds: float) -> tuple[float, float, float]:
    """Answers a second, and the median and the 99th percentile of the latency in milliseconds."""
    body = json.dumps(ROW).encode()
    request = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    request %= (PREDICT.encode(), len(body), body)
    latencies: list[float] = []
    with selectors.DefaultSelector() as selector:
        sent: dict[socket.socket, float] = {}
        for _ in range(connections):
            connection = socket.create_connection(address)
            selector.register(connection, selectors.EVENT_READ)
            sent[connection] = time.perf_counter()
            connection.sendall(request)
        end = time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            for key, _ in selector.select(1.0):
                connection = key.fileobj
                answer = connection.recv(65536)  # small answers come whole
                now = time.perf_counter()
                if answer.startswith(b"HTTP/1.1 200"):
                    latencies.append(now - sent[connection])
                sent[connection] = now
                connection.sendall(request)
        for connection in sent:
            connection.close()
    latencies.sort()
    middle, high = latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
    return len(latencies) / seconds, middle * 1e3, high * 1e3


def disk_alone(folder: Path, seconds: float) -> float:
    """The median of an append of 400 bytes and its fdatasync, in milliseconds."""
    found, end = [], time.perf_counter() + seconds
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        while (began := time.perf_counter()) < end:
            file.write(bytes(400))
            os.fdatasync(file.fileno())
            found.append(time.perf_counter() - began)
    return statistics.median(found) * 1e3


def price(model: Path, place: Path, rounds: int, seconds: float) -> None:
    servers = {mode: start(model, place / f"price-{mode}", "--log-write", mode) for mode in MODES}
    with multiprocessing.get_context("spawn").Pool(1) as apart:
        for connections in (1, 32):
            found: dict[str, list[tuple[float, float, float]]] = {mode: [] for mode in MODES}
            disk = []
            for _ in range(rounds):
                disk.append(disk_alone(place, seconds / 4))
                for mode, (_, ready) in servers.items():
                    host, port = ready["url"].removeprefix("http://").split(":")
                    found[mode].append(apart.apply(closed_loop, ((host, int(port)), connections, seconds)))
            for mode in MODES:
                rate, p50, p99 = (statistics.median(values) for values in zip(*found[mode], strict=True))
                print(f"{connections} connections, {mode}: {rate:,.0f}/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms")
            ratios = [b[0] / a[0] for a, b in zip(found["background"], found["durable"], strict=True)]
            told = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            print(
                f"{connections} connections, throughput of durable against background: {told};"
                f" the disk alone: {statistics.median(disk):.2f} ms",
                flush=True,
            )
    for process, _ in servers.values():
        stop(process)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=20, help="of each kind; 0: none")
    options.add_argument("--seconds", type=float, default=3.0, help="between two kills, and of a closed loop")
    options.add_argument("--rounds", type=int, default=5, help="turns of the closed loops; 0: none")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model = servable(place / "model")
        for mode in MODES if given.kills else ():
            for name, kill in {"the log process": log_kills, "the server": server_kills}.items():
                log = place / f"{mode}-{kill.__name__}"
                acknowledged, took, lost, counted = kill(model, log, mode, given.kills, given.seconds)
                worth = lost / given.kills / (acknowledged / took)
                print(
                    f"{mode}, {given.kills} kills of {name}: {acknowledged:,} acknowledged, {lost:,} lost,"
                    f" {counted:,} in gaps; a kill costs what is acknowledged in {worth:.2f} s",
                    flush=True,
                )
        if given.rounds:
            price(model, place, given.rounds, given.seconds)


if __name__ == "__main__":
    main()
