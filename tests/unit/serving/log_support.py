"""Real log processes and workers for tests."""

import asyncio
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from cumulant.serving.prediction_log.client import LogClient
from cumulant.serving.prediction_log.entry import LogEntry
from cumulant.serving.prediction_log.log_command import log_command
from cumulant.serving.prediction_log.storage.scanning import scan
from cumulant.testing.log import folder_log

ANSWERS = b'[{"prediction":1}]'


def entry(name, *, rows=b'[{"x":1}]', now=None, **more):
    when = time.time_ns() // 1000 if now is None else now
    return LogEntry(id=name, time_us=when, latency_us=90, model="m", version="1", rows=rows, answers=ANSWERS, **more)


def client(socket, **more):
    return LogClient(socket, worker="w", personal={"m": []}, **more)


#: seconds in which anything happens on a machine with any other work: reached only by what never happens
LONG = 120.0


def wait_for(condition, seconds=LONG):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)
    return found


def start(socket, folder, *more, visible="200ms", stderr=None, env=None, **options):
    line = [*log_command(socket, folder, visible=visible, **options), *more]
    process = subprocess.Popen(line, stderr=stderr, env={**os.environ, **(env or {})})
    wait_for(lambda: listens(socket) or process.poll() is not None)
    return process


def listens(path):
    import socket

    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def end(process):
    if process.poll() is None:
        process.terminate()
    return process.wait(timeout=LONG)


@contextmanager
def running(socket, folder, *more, **options):
    process = start(socket, folder, *more, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def ids(folder):
    return sorted(scan(folder_log(folder)).dataset.to_table(columns=["id"])["id"].to_pylist())


def sequences(folder):
    return sorted(scan(folder_log(folder)).dataset.to_table(columns=["sequence"])["sequence"].to_pylist())


def lost(found):
    return sorted(number for gap in found for number in range(gap.first, gap.last + 1))


def memory(pid):
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def put(socket, entries, **more):
    """A worker that lives as long as its entries; returns its client."""

    async def work():
        one = client(socket, **more)
        for each in entries:
            one.put(each)
        await one.close(LONG)
        return one

    return asyncio.run(work())


async def handed_over(one, count):
    """Wait until the client has handed so many entries to the log process."""
    while one.written < count:  # noqa: ASYNC110 - a client tells nobody
        await asyncio.sleep(0.01)


def worker(socket, count, *, pause=0.0, flushes=True, tells=False):
    """A worker process: puts `count` entries, says so, and stays. Without `flushes` the last ones stay in it; one that
    `tells` says at each entry how many it has handed over.
    """
    line = [sys.executable, __file__, str(socket), str(count), str(pause), str(int(flushes)), str(int(tells))]
    return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def _work(socket, count, pause, flushes, tells):
    one = client(socket, interval=0.02 if flushes else 3600)
    for number in range(count):
        one.put(entry(f"r{number:06d}"))
        if pause or number % 256 == 0:
            await asyncio.sleep(pause)
        if tells:
            print(one.written, flush=True)
    print("done", flush=True)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.readline)
    await one.close(LONG)
    print(one.written, one.lost, flush=True)


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "1", sys.argv[5] == "1"))
