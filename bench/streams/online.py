"""Events per second from a topic into online features, beside ingesting alone in the same run.

    python bench/streams/online.py --events 500000 --history 300000

The windows of the Fraud Detection Handbook (`examples/fraud/features.py`): each payment enters those of its customer
and of its terminal. "ingest" is `cumulant ingest run --once` without online features: read, decode, check, store,
commit. "online" is the same with them: the batches that it commits are put into a table that was filled from the
history before. Rates are per second of the clock and per second of processor time of this process (and, with Valkey, of
the server). "command" is one process of `cumulant ingest run`, which does both at once, from the moment that the events
are written until all are in the table. At the end features of some customers and terminals are compared with those
computed of all rows.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl

from cumulant.core.progress import silent
from cumulant.features.offline.offline import compute
from cumulant.features.online.online import OnlineFeatures
from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.data.stream_reader import IngestLimits
from cumulant.flows.data.stream_views import StreamStatus, stream_status
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.feature_table import scans, used_sources
from cumulant.flows.features.stream_features import apply_ingested
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.serving.serve import materialize
from cumulant.project.file.loading import load
from cumulant.testing.servers.valkey import ValkeyServer, valkey_server

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
START = datetime(2026, 10, 1, tzinfo=UTC)
PROJECT = """
version: 1
model: {{name: bench}}
data:
  tx:
    stream: tx
    key: TRANSACTION_ID
    event_time: {{column: TX_DATETIME, zone: UTC}}
    known_time: {{7d: [TX_FRAUD]}}
    on_repeat: first
    rules: {{TX_AMOUNT: {{type: float, min: 0}}, TX_FRAUD: {{type: int, in: [0, 1]}}, CUSTOMER_ID: {{type: int}}, TERMINAL_ID: {{type: int}}}}
features: features.py
training: {{target: TX_FRAUD, predict_at: TX_DATETIME}}
environments: {{bench: {{online: "{online}", streams: "folder://{streams}"}}}}
"""


def payments(first: int, count: int, begin: datetime, seconds: float, options: argparse.Namespace) -> list[bytes]:
    """Payments in the order of time, spread over so many seconds."""
    rng = np.random.default_rng(first + 1)
    customers, terminals = rng.integers(0, options.customers, count), rng.integers(0, options.terminals, count)
    amounts, frauds = rng.gamma(2, 25, count).round(2), rng.random(count) < 0.01
    known = rng.random(count) >= options.unlabelled
    return [
        json.dumps(
            {
                "TRANSACTION_ID": first + number,
                "TX_DATETIME": (begin + timedelta(seconds=seconds * number / count)).isoformat(),
                "CUSTOMER_ID": int(customers[number]),
                "TERMINAL_ID": int(terminals[number]),
                "TX_AMOUNT": float(amounts[number]),
                "TX_FRAUD": int(frauds[number]) if known[number] else None,
            }
        ).encode()
        for number in range(count)
    ]


def produce(folder: Path, values: list[bytes]) -> None:
    for partition in range(PARTITIONS):
        path = folder / "tx" / f"{partition}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.writelines(value + b"\n" for value in values[partition::PARTITIONS])


@contextmanager
def online_url(kind: str, folder: Path) -> Iterator[tuple[str, ValkeyServer | None]]:
    if kind == "sqlite":
        yield f"sqlite:///{folder}/online.db", None
        return
    with valkey_server() as server:
        yield server.url, server


def measure(options: argparse.Namespace, kind: str, template: Path, number: int) -> dict[str, float]:
    """One run: the history is ingested and filled, then the events are ingested, and put into the table."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
        url, server = stack.enter_context(online_url(kind, folder))
        (folder / "cumulant.yaml").write_text(PROJECT.format(online=url, streams=folder / "topics"))
        shutil.copy(ROOT / "examples/fraud/features.py", folder / "features.py")
        shutil.copytree(template / "history", folder / "topics/tx")
        project = stack.enter_context(load(folder, environment="bench"))
        who, limits = project.principal(), IngestLimits(bytes=options.batch << 20)
        ingest_streams(project, principal=who, once=True)
        with open_run(project, "bench", principal=who, progress=silent) as context:
            snapshots, _ = snapshots_of(context, ["tx"])
            plan = resolve_task(project, snapshots).plan
            table, _ = materialize(context, plan, snapshots, as_of=None)
        apply_ingested(project, principal=who, once=True)
        spent = {}
        if options.command:
            run_command(project, folder, template, server, options, spent)
            if number == 0:
                spent["compared"] = compare(project, plan, table, who, options)
            return spent
        append_events(folder, template)
        with timed(spent, "ingest"):
            ingest_streams(project, principal=who, once=True, limits=limits)
        profiler, before = cProfile.Profile(), 0.0 if server is None else server_seconds(server)
        if options.profile:
            profiler.enable()
        with timed(spent, "apply"):
            (applied,) = apply_ingested(project, principal=who, once=True)
        if options.profile:
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
        assert applied.accepted == options.events, applied
        if server is not None:
            spent["apply cpu"] += server_seconds(server) - before
        if number == 0:
            spent["compared"] = compare(project, plan, table, who, options)
    return spent


def append_events(folder: Path, template: Path) -> None:
    for partition in range(PARTITIONS):
        name = f"{partition}.jsonl"
        with (folder / "topics/tx" / name).open("ab") as file:
            file.write((template / "events" / name).read_bytes())


def run_command(
    project, folder: Path, template: Path, server: ValkeyServer | None, options: argparse.Namespace, spent: dict
) -> None:
    """`cumulant ingest run`, started before the events are there, until the table has them all."""
    arguments = ["ingest", "run", "--every", "1s", "--batch-size", f"{options.batch}MiB", "--env", "bench", "--project"]
    with subprocess.Popen(
        [sys.executable, "-m", "cumulant", *arguments, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            while not stream(project, process).consumers:
                time.sleep(0.05)
            time.sleep(2)  # it has found its tables
            spent["command cpu"] = -process_seconds(process.pid) - (0.0 if server is None else server_seconds(server))
            before, now = time.perf_counter(), stream(project, process)
            append_events(folder, template)
            while now.messages < options.history + options.events or any(table.behind != 0 for table in now.online):
                time.sleep(0.05)
                now = stream(project, process)
            spent["command wall"] = time.perf_counter() - before
            spent["command cpu"] += process_seconds(process.pid) + (0.0 if server is None else server_seconds(server))
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()


def stream(project, process: subprocess.Popen) -> StreamStatus:
    assert process.poll() is None, "the command has ended"
    (status,) = stream_status(project, principal=project.principal())
    return status


def server_seconds(server: ValkeyServer) -> float:
    """Processor seconds of the server so far."""
    return process_seconds(server.process.pid)


def process_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def timed(spent: dict[str, float], name: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    spent[f"{name} wall"], spent[f"{name} cpu"] = time.perf_counter() - wall, time.process_time() - cpu


def compare(project, plan, table: str, who, options: argparse.Namespace) -> int:
    """Features of some rows after all events, of the table and computed of all rows; how many values were compared."""
    with open_run(project, "bench", principal=who, progress=silent) as context:
        snapshots, _ = snapshots_of(context, ["tx"])
        frame = scans(project, snapshots, used_sources(plan, snapshots), as_of=None)["tx"].collect()
    end = frame["TX_DATETIME"].max() + timedelta(seconds=1)
    rows = [
        {
            "TRANSACTION_ID": 10**12 + at,
            "TX_DATETIME": end + timedelta(hours=at % 200),
            "CUSTOMER_ID": at * 37 % options.customers,
            "TERMINAL_ID": at * 91 % options.terminals,
            "TX_AMOUNT": 1.0,
        }
        for at in range(300)
    ]
    right = compute(plan, {"tx": frame}, rows=pl.DataFrame(rows))
    mine = OnlineFeatures(plan, project.online(), table).vectors(rows).columns
    count = 0
    for name, values in mine.items():
        for value, other in zip(values, right[name].to_list(), strict=True):
            same = value == other or (value is not None and abs(value - other) <= 1e-9 * max(abs(value), 1))
            assert same, (name, value, other)
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--history", type=int, default=300_000, help="payments of 30 days before")
    parser.add_argument("--customers", type=int, default=5_000)
    parser.add_argument("--terminals", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=86_400, help="event time of the events")
    parser.add_argument("--unlabelled", type=float, default=0.0, help="share of events without TX_FRAUD")
    parser.add_argument("--batch", type=int, default=32, help="MiB of a batch")
    parser.add_argument("--store", choices=["sqlite", "valkey", "both"], default="both")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where to put files; default: the system's")
    parser.add_argument("--command", action="store_true", help="time `cumulant ingest run` instead")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        template = Path(name)
        history = payments(0, options.history, START, 30 * 86_400, options)
        produce(template, history)
        shutil.move(template / "tx", template / "history")
        begin = START + timedelta(days=30)
        produce(template, payments(options.history, options.events, begin, options.seconds, options))
        shutil.move(template / "tx", template / "events")
        del history
        for kind in ("sqlite", "valkey") if options.store == "both" else (options.store,):
            report(kind, [measure(options, kind, template, number) for number in range(options.repeats)], options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    packages = ", ".join(f"{name} {version(name)}" for name in ("polars", "msgspec", "numpy"))
    print(
        f"peak memory {peak:,.0f} MiB; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, {packages}"
    )


def report(kind: str, runs: list[dict[str, float]], options: argparse.Namespace) -> None:
    events = options.events
    steps = [("ingest", ["ingest"]), ("apply", ["apply"]), ("ingest with online", ["ingest", "apply"])]
    for name, parts in [("ingest run", ["command"])] if options.command else steps:
        rates = {
            clock: statistics.median(events / sum(run[f"{part} {clock}"] for part in parts) for run in runs)
            for clock in ("wall", "cpu")
        }
        print(
            f"{kind}, {name}: {rates['wall']:,.0f} events/s, {rates['cpu']:,.0f} a core second, {1e6 / rates['cpu']:.1f} CPU s a million"
        )
    if options.command:
        print(f"{kind}: {runs[0]['compared']:,.0f} values equal to those computed of all rows")
        return
    share = statistics.median(run["ingest wall"] / (run["ingest wall"] + run["apply wall"]) for run in runs)
    print(
        f"{kind}: with online / without: {share:.2f}; {runs[0]['compared']:,.0f} values equal to those computed of all rows"
    )


if __name__ == "__main__":
    main()
