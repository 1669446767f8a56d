"""Events per second of the journal, appended and read, and the time until a lease is taken over.

    python bench/journal/writers.py --seconds 3 --writers 1 2 4 8 16 32

Each writer is a process; a transaction writes one row and one event, as a step of a flow does. SQLite is one file;
PostgreSQL is a server that this program starts on the loopback, with its defaults (each commit is flushed to disk, as
SQLite's). A reader reads all events afterwards. A lease of `--ttl` seconds is held by a process of another (simulated)
machine, which is killed: the time from there to the moment that one of the waiters has it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import ClassVar

from cumulant.core.events import Actor, Fact
from cumulant.core.scope import Scope
from cumulant.drivers.local.journal import SqliteJournal
from cumulant.drivers.postgres.journal import PostgresJournal
from cumulant.flows.ledger.lease import LeaseWatch, take_lease
from cumulant.flows.ledger.processes import Process, this_process
from cumulant.ports.journal import Journal
from cumulant.testing.postgres import postgres_server

ACTOR = Actor("service:bench")
Open = Callable[..., Journal]


class Stepped(Fact, frozen=True, kw_only=True):
    kind: ClassVar[str] = "bench.stepped"
    writer: int
    number: int


def write(
    make: Open, url: str, writer: int, own: bool, ready: Barrier, until: Event, counts: multiprocessing.Queue[int]
) -> None:
    journal, number = make(url, scope=Scope(project=f"p{writer if own else 0}")), 0
    ready.wait()
    while not until.is_set():
        number += 1
        with journal.transaction(actor=ACTOR, run=f"w{writer}") as transaction:
            transaction.put("step", f"{writer}/{number % 100}", {"number": number, "status": "done"})
            transaction.emit(Stepped(writer=writer, number=number))
    journal.close()
    counts.put(number)


def append(make: Open, url: str, writers: int, seconds: float, *, own: bool) -> float:
    """Events per second of that many processes, of one project or each of its own."""
    context = multiprocessing.get_context("fork")
    ready, until, counts = context.Barrier(writers + 1), context.Event(), context.Queue()
    workers = [
        context.Process(target=write, args=(make, url, number, own, ready, until, counts)) for number in range(writers)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    begun = time.monotonic()
    time.sleep(seconds)
    until.set()
    total: int = sum(counts.get() for _ in workers)
    taken = time.monotonic() - begun
    for worker in workers:
        worker.join()
    return total / taken


def read(make: Open, url: str) -> tuple[float, int]:
    """Events per second of one reader of the whole chain, and how many there are."""
    journal, begun = make(url, scope=Scope(project="p0")), time.monotonic()
    number = sum(1 for _ in journal.events())
    taken = time.monotonic() - begun
    journal.close()
    return number / taken, number


def hold(make: Open, url: str, ttl: float, here: bool, held: Event) -> None:
    holder = this_process() if here else Process("far-away:0", os.getpid(), "1")
    lease = take_lease(make(url), "bench", ttl=ttl, actor=ACTOR, watch=LeaseWatch(), holder=holder)
    assert lease is not None
    held.set()
    with lease.renewed():
        time.sleep(3600)


def wait(make: Open, url: str, ready: Barrier, taken: multiprocessing.Queue[float]) -> None:
    journal, watch = make(url), LeaseWatch()
    ready.wait()
    while (lease := take_lease(journal, "bench", ttl=60.0, actor=ACTOR, watch=watch)) is None:
        time.sleep(0.02)
    taken.put(time.monotonic())
    lease.release()
    journal.close()


def take_over(make: Open, url: str, *, ttl: float, waiters: int, here: bool) -> float:
    """Seconds from the kill of the holder until the first waiter has the lease."""
    context = multiprocessing.get_context("fork")
    held, ready, taken = context.Event(), context.Barrier(waiters + 1), context.Queue()
    holder = context.Process(target=hold, args=(make, url, ttl, here, held))
    holder.start()
    held.wait()
    others = [context.Process(target=wait, args=(make, url, ready, taken)) for _ in range(waiters)]
    for other in others:
        other.start()
    ready.wait()
    time.sleep(ttl / 2)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    killed = time.monotonic()
    holder.join()
    first: float = min(taken.get() for _ in others)
    for other in others:
        other.join()
    return first - killed


def ended_children_seconds(process: int) -> float:
    """Processor seconds of a process's children that have ended."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def measure(
    name: str, make: Open, fresh: Callable[[], str], options: argparse.Namespace, *, server: int | None = None
) -> None:
    for writers, own in [*((number, False) for number in options.writers), (options.writers[-1], True)]:
        url = fresh()
        before, served = resource.getrusage(resource.RUSAGE_CHILDREN), ended_children_seconds(server) if server else 0.0
        appended = append(make, url, writers, options.seconds, own=own)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        reading, _ = read(make, url)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        number = round(appended * options.seconds)
        line = {
            "journal": name,
            "writers": writers,
            "projects": writers if own else 1,
            "appended_per_second": round(appended),
        }
        line |= {"read_per_second": round(reading), "client_cpu_us_per_event": round(1e6 * cpu / number)}
        if server:
            time.sleep(0.5)  # until the connections' processes have ended
            line["server_cpu_us_per_event"] = round(1e6 * (ended_children_seconds(server) - served) / number)
        print(json.dumps(line), flush=True)
    for here in (True, False):
        for waiters in options.waiters:
            times = [
                take_over(make, fresh(), ttl=options.ttl, waiters=waiters, here=here) for _ in range(options.repeats)
            ]
            line = {"journal": name, "holder": "this machine" if here else "another machine", "ttl": options.ttl}
            line |= {"waiters": waiters, "take_over_seconds": round(statistics.median(times), 3)}
            line |= {"slowest": round(max(times), 3)}
            print(json.dumps(line), flush=True)


@contextmanager
def sqlite_files() -> Iterator[Callable[[], str]]:
    folder = tempfile.mkdtemp(prefix="cumulant-bench-")
    numbers = iter(range(10_000))
    try:
        yield lambda: f"sqlite://{folder}/{next(numbers)}.db"
    finally:
        shutil.rmtree(folder)


@contextmanager
def postgres_databases() -> Iterator[tuple[Callable[[], str], int]]:
    with postgres_server() as server:
        numbers = iter(range(10_000))

        def fresh() -> str:
            name = f"bench{next(numbers)}"
            server.execute(f"CREATE DATABASE {name}")
            return server.url(name)

        yield fresh, server.pid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--waiters", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--ttl", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with sqlite_files() as files:
        measure("sqlite", SqliteJournal, files, options)
    with postgres_databases() as (databases, server):
        measure("postgresql", PostgresJournal, databases, options, server=server)


if __name__ == "__main__":
    main()
