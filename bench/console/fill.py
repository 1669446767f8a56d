"""Projects with as much in them as a console has to show: rows and events of a real SQLite journal, a real registry.

Sources are validated by the flow itself; runs, releases, cases and the other events are written as the flows write them,
many in a transaction.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import msgspec

from cumulant.core.events import Actor, Fact
from cumulant.core.traffic import Arm
from cumulant.data.events import SnapshotAccepted
from cumulant.drivers.mlflow.database import make_database
from cumulant.flows.data.validate import validate
from cumulant.flows.ledger.ledger_records import RUN, RunRecord, StepUse
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.ledger.run_events import RunFinished, RunStarted
from cumulant.flows.release.store import PAST
from cumulant.ports.journal import Journal
from cumulant.project.file.loading import load
from cumulant.project.project import Project
from cumulant.release.state import Board, Release
from cumulant.review.cases import ReviewCase, case_id
from cumulant.review.events import CaseMoved, CasesQueued
from cumulant.review.queue import CLOSED, OPEN

NOW = datetime.now(UTC).replace(microsecond=0)
BATCH = 2_000
SOURCES, RUNS, RELEASES = 50, 1_000, 200
_ACTOR = Actor("service:bench")
REVIEW = "monitoring: {review: {budget: 50/day}}\n"


def make_large(folder: Path, *, models: int, events: int, cases: int) -> None:
    """A project with so many model versions, events and cases, and with sources, runs and releases."""
    (folder / "data").mkdir(parents=True)
    for number in range(SOURCES):
        rows = "\n".join(f"{row},{row % 7},2026-05-{row % 28 + 1:02d}" for row in range(40))
        (folder / f"data/source_{number:02d}.csv").write_text(f"id,amount,day\n{rows}\n")
    sources = "".join(f"  source_{n:02d}: {{path: data/source_{n:02d}.csv, key: [id]}}\n" for n in range(SOURCES))
    _write(folder, "large", f"{REVIEW}data:\n{sources}")
    with load(folder, via="cli") as project:
        validate(project, principal=project.principal())
        journal, draw = project.journal(), random.Random(1)
        _put(journal, RUN, {run.id: run for run in _runs(draw)})
        _put(journal, PAST, {f"large/{release.id}": release for release in _releases(project)})
        waiting = {case.id: case for case in _cases(draw, cases)}
        _put(journal, OPEN, {f"large/{name}": case for name, case in waiting.items() if case.status == "waiting"})
        _put(journal, CLOSED, {f"large/{name}": case for name, case in waiting.items() if case.status != "waiting"})
        _register(folder, models)
        _emit(journal, draw, events - journal.head().seq)


def make_empty(folder: Path, name: str = "empty") -> None:
    """A project in which nothing has happened."""
    folder.mkdir(parents=True)
    _write(folder, name, REVIEW)
    with load(folder, via="cli") as project:
        make_database(project.state / "mlflow.db", project.state / "artifacts")


def make_small(folder: Path, name: str) -> None:
    """One of many projects, with a release that has ended and some events."""
    folder.mkdir(parents=True)
    _write(folder, name, REVIEW)
    with load(folder, via="cli") as project, project.journal().transaction(actor=_ACTOR) as transaction:
        release = msgspec.structs.replace(next(_releases(project)), model=name)
        transaction.put("release", name, _plain(release))
        for number in range(20):
            transaction.emit(RunFinished(flow="train", seconds=float(number), steps=6, reused=2))


def _write(folder: Path, name: str, text: str) -> None:
    (folder / "cumulant.yaml").write_text(f"version: 1\nmodel: {{name: {name}, owner: ops@example.com}}\n{text}")


def _put(journal: Journal, kind: str, rows: dict[str, msgspec.Struct]) -> None:
    listed = list(rows.items())
    for begin in range(0, len(listed), BATCH):
        with journal.transaction(actor=_ACTOR) as transaction:
            for key, value in listed[begin : begin + BATCH]:
                transaction.put(kind, key, _plain(value))


def _emit(journal: Journal, draw: random.Random, count: int) -> None:
    for begin in range(0, count, BATCH):
        with journal.transaction(actor=_ACTOR, run=f"run-{begin}") as transaction:
            for _ in range(min(BATCH, count - begin)):
                transaction.emit(_fact(draw))


def _fact(draw: random.Random) -> Fact:
    """An event of the kinds that a project has most of."""
    chance = draw.random()
    if chance < 0.3:
        return RunStarted(flow=draw.choice(["validate", "monitor", "train"]))
    if chance < 0.6:
        return RunFinished(flow="monitor", seconds=draw.random(), steps=6, reused=5)
    if chance < 0.8:
        return SnapshotAccepted(
            source=f"source_{draw.randrange(SOURCES):02d}",
            snapshot=draw.randbytes(32).hex(),
            rows_in=1_000,
            rows_passed=990,
            rows_quarantined=10,
            rows_dropped=0,
            bytes=40_000,
            csv_bytes=60_000,
            files=3,
            processed=1,
        )
    if chance < 0.9:
        return CaseMoved(model="large", case=draw.randbytes(6).hex(), what="taken")
    return CasesQueued(model="large", draw=1, rows=9_000, ranked=40, sample=10, reasons={"unsure": 40, "sample": 10})


def _runs(draw: random.Random) -> Iterator[RunRecord]:
    for number in range(RUNS):
        started = NOW - timedelta(minutes=10 * number)
        yield RunRecord(
            id=f"{started:%Y%m%d-%H%M%S}-{draw.randbytes(2).hex()}",
            flow=("train", "monitor", "validate")[number % 3],
            status="done",
            principal="user:ada",
            settings={"project": "large", "sources": ["source_00", "source_01"], "seed": number},
            process=this_process(),
            started=started,
            finished=started + timedelta(seconds=9),
            seconds=9.0,
            steps=tuple(StepUse(f"step {n}", draw.randbytes(32).hex(), n % 2 == 0, 1.5) for n in range(6)),
        )


def _releases(project: Project) -> Iterator[Release]:
    policy = project.policies.release
    boards = {
        name: Board(metric=name, unit="%", margin=0.5, harm_bar=3.0, fine_bar=3.0, champion=0.4, candidate=0.5)
        for name in ("errors", "timeouts", "latency", "scores", "brier")
    }
    for number in range(RELEASES):
        begun = NOW - timedelta(days=2 + number)
        yield Release(
            id=f"{begun:%Y%m%d}-{number}",
            model="large",
            champion=Arm(name="champion", version=str(number + 1), endpoints=("http://127.0.0.1:9001",)),
            candidate=Arm(name="candidate", version=str(number + 2), endpoints=("http://127.0.0.1:9002",)),
            policy=policy,
            status="promoted" if number % 3 else "rolled_back",
            boards=boards,
            begun=begun,
            ended=begun + timedelta(hours=5),
            reason="errors: the candidate is not worse by more than 0.5%",
        )


def _cases(draw: random.Random, count: int) -> Iterator[ReviewCase]:
    for number in range(count):
        queued = NOW - timedelta(minutes=number % 4_000)
        done = number % 2 == 0
        yield ReviewCase(
            id=case_id("w", number, 0),
            model="large",
            version=str(number % 5),
            request=draw.randbytes(16).hex(),
            row=0,
            worker="w",
            sequence=number,
            time=queued,
            reasons=("unsure", "sample")[: 1 + number % 2],
            useful=draw.random(),
            chance=1.0,
            draw=number // 50,
            order=draw.random(),
            queued=queued,
            deadline=NOW + timedelta(days=30),
            status="done" if done else "waiting",
            label="true" if done else None,
            closed=queued if done else None,
            labelled=done,
        )


def _register(folder: Path, count: int) -> None:
    """Half of them versions of the project's own model, each of the others a model of its own."""
    with load(folder, via="cli") as project:
        database = project.state / "mlflow.db"
        make_database(database, project.state / "artifacts")
    own = [("large", number) for number in range(1, count // 2 + 1)]
    others = [(f"model-{number:04d}", 1) for number in range(count - len(own))]
    moment = int(NOW.timestamp() * 1000)
    tags = {
        "cumulant.verdict": "passed",
        "cumulant.release.verdict": "promoted",
        "cumulant.trainer": "lightgbm",
        "cumulant.learned_to": "2026-05-01",
        "cumulant.run": "20260501-1",
    }
    with closing(sqlite3.connect(database)) as opened, opened:
        names = list(dict.fromkeys(name for name, _ in own + others))
        opened.executemany(
            "INSERT INTO registered_models (name, creation_time, last_updated_time) VALUES (?, ?, ?)",
            [(name, moment, moment) for name in names],
        )
        opened.executemany(
            "INSERT INTO model_versions (name, version, creation_time, last_updated_time, current_stage, status)"
            " VALUES (?, ?, ?, ?, 'None', 'READY')",
            [(name, version, moment + version, moment) for name, version in own + others],
        )
        opened.executemany(
            "INSERT INTO model_version_tags (name, version, key, value) VALUES (?, ?, ?, ?)",
            [(name, version, key, value) for name, version in own + others for key, value in tags.items()],
        )
        opened.executemany(
            "INSERT INTO registered_model_aliases (name, version, alias) VALUES (?, 1, 'champion')",
            [(name,) for name in names],
        )


def _plain(value: msgspec.Struct) -> dict[str, object]:
    return cast("dict[str, object]", json.loads(msgspec.json.encode(value)))
