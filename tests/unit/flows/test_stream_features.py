"""Rows of ingested streams reach online features: once, after any kill, in every table that reads them."""

import json
import os
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from cumulant.cli.app import run as command
from cumulant.core.errors import UsageError
from cumulant.core.progress import silent
from cumulant.drivers.folder.streams import FolderStreams
from cumulant.features.ingested.batch_writer import EventBatchWriter
from cumulant.features.offline.offline import compute
from cumulant.features.online.online import OnlineFeatures
from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.data.stream_reader import IngestLimits
from cumulant.flows.data.stream_records import only_streamed_source
from cumulant.flows.data.stream_views import late_rows, stream_status
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.feature_table import scans, used_sources
from cumulant.flows.features.online_tables import online_tables
from cumulant.flows.features.stream_features import apply_in_background, apply_ingested
from cumulant.flows.features.stream_follower import refill_table
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.project import planning
from cumulant.flows.serving.serve import USES, materialize
from cumulant.flows.serving.services import note_use
from cumulant.project.file.loading import load

PROJECT = """
version: 1
model: {name: shop}
data:
  tx:
    stream: pay
    key: id
    event_time: at
    personal: [card]
    on_repeat: first
    rules: {amount: {type: float, min: 0}, card: {type: str}, at: {type: time}, fraud: {type: int}}
training: {target: fraud, predict_at: at, trainers: [naive]}
"""
FEATURES = """from cumulant.features import source
tx = source("tx")
own = tx.columns("amount")
card = tx.by("card")
spent = card.sum("amount", window=["1h", "7d"])
n = card.count(window="7d")
"""
START = datetime(2026, 11, 1, tzinfo=UTC)
#: seconds after which a process that works must have got on, on a busy machine too
PATIENCE = 120.0


@pytest.fixture
def streams(tmp_path):
    return FolderStreams(f"folder://{tmp_path}/.cumulant/streams")


@pytest.fixture
def project(tmp_path, streams):
    (tmp_path / "cumulant.yaml").write_text(PROJECT)
    (tmp_path / "features.py").write_text(FEATURES)
    streams.produce("pay", [payment(number) for number in range(20)], partition=0)
    with load(tmp_path) as project:
        ingest(project)
        yield project


def payment(number, **fields):
    at = (START + timedelta(minutes=7 * number)).isoformat()
    row = {"id": number, "card": "abc"[number % 3], "at": at, "amount": number / 2, "fraud": number % 2}
    return json.dumps(row | fields).encode()


def ingest(project):
    ingest_streams(project, principal=project.principal(), once=True)


def apply(project):
    return apply_ingested(project, principal=project.principal(), once=True)


def filled(project):
    """The plan of the features as they are now, and the table of its online state."""
    with open_run(project, "test", principal=project.principal(), progress=silent) as context:
        snapshots, _ = snapshots_of(context, project.spec.data)
        plan = resolve_task(project, snapshots).plan
        return plan, materialize(context, plan, snapshots, as_of=None)[0]


def check(project, plan, table, *, without=()):
    """The table answers as features that are computed of all rows."""
    with open_run(project, "test", principal=project.principal(), progress=silent) as context:
        snapshots, _ = snapshots_of(context, project.spec.data)
        frames = scans(project, snapshots, used_sources(plan, snapshots), as_of=None)
    rows = [
        {"id": 1000, "card": card, "at": START + timedelta(hours=hours), "amount": 1.0}
        for card in "abcd"
        for hours in (2, 5, 30)
    ]
    import polars as pl

    from cumulant.features.online.hashed_keys import HashedKeys

    tx = frames["tx"].filter(~pl.col("id").is_in(list(without)))
    right = compute(plan, {"tx": tx}, rows=pl.DataFrame(rows))
    hashed = HashedKeys.of(plan, project.salt)
    columns = OnlineFeatures(hashed.plan, project.online(), table).vectors(hashed.requests(rows)).columns
    assert columns == {name: right[name].to_list() for name in columns}


def test_rows_of_batches_enter_windows_once(project, streams):
    plan, table = filled(project)
    assert apply(project)[0].rows == 0  # the snapshot has them
    streams.produce("pay", [payment(number) for number in range(20, 40)], partition=0)
    streams.produce("pay", [payment(25), payment(21, card="z"), payment(50, amount=-1), b"no"], partition=1)
    ingest(project)
    (before,) = stream_status(project, principal=project.principal())
    assert [(online.table, online.batch, online.behind) for online in before.online] == [(table, 1, 1)]
    (applied,) = apply(project)
    assert (applied.table, applied.batch, applied.rows, applied.accepted, applied.duplicates) == (table, 2, 22, 20, 2)
    check(project, plan, table)
    assert apply(project)[0].rows == 0
    (after,) = stream_status(project, principal=project.principal())
    assert [(online.batch, online.behind, online.lag_seconds) for online in after.online] == [(2, 0, 0.0)]
    streams.produce("pay", [payment(22, card="d"), payment(3, card="d")], partition=0)  # rows of both batches
    ingest(project)
    (again,) = apply(project)
    assert (again.batch, again.accepted, again.duplicates) == (3, 0, 2)
    check(project, plan, table)


def test_a_table_that_another_process_fills_meanwhile_is_followed_further(project, streams, monkeypatch):
    plan, table = filled(project)
    streams.produce("pay", [payment(number) for number in range(20, 30)], partition=0)
    ingest(project)
    put_in = EventBatchWriter.apply

    def refilled(writer, *batch, **options):
        monkeypatch.setattr(EventBatchWriter, "apply", put_in)
        (one,) = online_tables(project, ["tx"])
        refill_table(project, one, principal=project.principal())
        return writer.apply(*batch, **options)

    monkeypatch.setattr(EventBatchWriter, "apply", refilled)
    (applied,) = apply(project)
    assert (applied.batch, applied.rows) == (2, 0)  # which the filling had
    check(project, plan, table)


def test_a_table_ahead_of_a_journal_that_was_restored_is_filled_again(tmp_path, project, streams):
    plan, table = filled(project)
    project.close()
    shutil.copytree(tmp_path / ".cumulant", tmp_path / "backup")
    with load(tmp_path) as project:
        for number in (20, 21):
            streams.produce("pay", [payment(number)], partition=0)
            ingest(project)
        assert apply(project)[0].batch == 3
    for file in (tmp_path / ".cumulant").glob("journal*"):
        file.unlink()
    for file in (tmp_path / "backup").glob("journal*"):
        shutil.copy(file, tmp_path / ".cumulant" / file.name)
    with load(tmp_path) as project:
        assert errors(project, batches=1) == [True]  # the table has batch 3
        ingest(project)  # the same messages, as one batch
        streams.produce("pay", [payment(40)], partition=0)
        assert errors(project, batches=2) == [True]
        ingest(project)
        assert errors(project, batches=3) == [True]  # the table has another batch 3
        assert [(result.table, result.batch) for result in apply(project)] == [(table, 3)]
        assert errors(project, batches=3) == [False]
        check(project, plan, table)


def errors(project, *, batches):
    """Of each table whether the status says that it is of another journal."""
    (status,) = stream_status(project, principal=project.principal())
    assert status.batches == batches
    return ["batch 3 of another journal" in (online.error or "") for online in status.online]


def test_a_new_definition_beside_the_old_one_and_a_store_that_lost_a_table(project, streams, tmp_path):
    plan, table = filled(project)
    streams.produce("pay", [payment(number, fraud=None) for number in range(20, 30)], partition=0)
    ingest(project)
    (tmp_path / "features.py").write_text(FEATURES + 'most = card.max("amount", window="7d")\n')
    newer, other = filled(project)  # which has both batches
    note_use(project.state / USES, os.getpid(), folder="", table=table)
    streams.produce("pay", [payment(number) for number in range(30, 40)], partition=1)
    ingest(project)
    applied = {result.table: result.rows for result in apply(project)}
    assert applied == {table: 20, other: 10}
    check(project, plan, table)
    check(project, newer, other)
    for name in (table, other):
        project.online().drop(name)
    assert {result.table: result.batch for result in apply(project)} == {table: 3, other: 0}
    check(project, plan, table)  # that which is served is filled again; the other one nobody reads


def test_late_rows_are_counted_and_enter_when_the_table_is_filled_again(project, streams, tmp_path):
    (tmp_path / "cumulant.yaml").write_text(PROJECT.replace("    personal:", "    lateness: 30m\n    personal:"))
    with load(tmp_path) as project:
        plan, table = filled(project)
        late, early, first = [payment(80), payment(70)], [payment(60)], [payment(5, id=100)]
        streams.produce("pay", late, partition=0)
        streams.produce("pay", early + first, partition=1)  # which has had no row: each partition has its own time
        ingest(project)
        (status,) = stream_status(project, principal=project.principal())
        assert (status.late, status.watermark) == (2, START + timedelta(minutes=7 * 60 - 30))
        assert command(["ingest", "late", "--project", str(tmp_path)]) == 0  # there is one source with a stream
        assert only_streamed_source(project) == "tx"
        shown = late_rows(project, "tx", principal=project.principal())
        assert sorted(shown["id"].to_list()) == [70, 100]
        assert not {"a", "b", "c"} & set(shown["card"].to_list())  # which is personal
        (applied,) = apply(project)
        assert (applied.rows, applied.late, applied.accepted) == (4, 2, 2)
        check(project, plan, table, without=[70, 100])
        check(project, plan, filled(project)[1])


def test_a_correction_is_late_by_when_it_became_known(project, streams, tmp_path):
    declared = "lateness: 30m\n    known_time: {told: [fraud]}\n    on_repeat: latest"
    (tmp_path / "cumulant.yaml").write_text(PROJECT.replace("on_repeat: first", declared))
    with load(tmp_path) as project:
        told = [(START + timedelta(hours=hours)).isoformat() for hours in (3, 1)]
        streams.produce("pay", [payment(0, fraud=1, told=told[0]), payment(1, fraud=0, told=told[1])], partition=0)
        ingest(project)
        assert late_rows(project, "tx", principal=project.principal())["id"].to_list() == [1]


def test_rows_enter_while_they_are_ingested(project, streams):
    plan, table = filled(project)
    stop = threading.Event()

    def run():
        limits = IngestLimits(seconds=0.1)
        ingest_streams(project, principal=project.principal(), stop=stop, limits=limits)

    with apply_in_background(project, principal=project.principal(), sources=(), progress=silent) as results:
        ingesting = threading.Thread(target=run)
        ingesting.start()
        for first in (20, 30):
            streams.produce("pay", [payment(number) for number in range(first, first + 10)], partition=0)
            deadline = time.monotonic() + PATIENCE
            while online_batch(project) != first // 10:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        stop.set()
        ingesting.join()
    assert [result.rows for result in results] == [20]
    check(project, plan, table)


def test_a_stream_without_a_key_is_named_by_plan_and_left_to_the_next_filling(project, streams, tmp_path):
    (tmp_path / "cumulant.yaml").write_text(PROJECT.replace("key: id", "").replace("    on_repeat: first\n", ""))
    with load(tmp_path) as project:
        notes = planning.plan(project, principal=project.principal(), checks=False).notes
        assert any("source tx has no key" in note for note in notes)
        filled(project)
        assert apply(project) == []
        (status,) = stream_status(project, principal=project.principal())
        assert ["no key" in (online.error or "") for online in status.online] == [True]


def online_batch(project):
    (status,) = stream_status(project, principal=project.principal())
    return status.online[0].batch


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lateness: 1h\n    path: x.csv", "is of a stream"),
        ("stream: t\n    lateness: 1h", "needs the time of each row"),
        ("stream: t\n    event_time: at\n    lateness: 1h", "rows without a key"),
        ("stream: t\n    event_time: at\n    idle: 0s", "every partition is idle"),
        ("path: x.csv\n    on_expired: refuse", "needs a `ttl`"),
    ],
)
def test_event_time_that_makes_no_sense_is_refused_by_plan(tmp_path, text, message):
    (tmp_path / "cumulant.yaml").write_text(f"version: 1\nmodel: {{name: shop}}\ndata:\n  tx:\n    {text}\n")
    with pytest.raises(UsageError, match=message):
        load(tmp_path)
