"""Small tables of a stream's batches are put together: batches, snapshots and refused messages stay what they are."""

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from cumulant.core.errors import StorageError, UsageError
from cumulant.core.events import Actor
from cumulant.core.progress import silent
from cumulant.core.refs import TableRef
from cumulant.data.snapshot import scan
from cumulant.data.streams import compaction
from cumulant.data.streams.batches import batch_inputs
from cumulant.data.streams.records import BATCH
from cumulant.flows.data import stream_compaction
from cumulant.flows.data.stream_compaction import StreamCompacted, _Compactor, compact_streams
from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.data.stream_reader import IngestLimits
from cumulant.flows.data.stream_records import batch_of, list_ingested, read_batches
from cumulant.flows.data.stream_views import refused_messages, stream_status
from cumulant.flows.data.validate import validate
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.maintenance.cleanup import clean
from cumulant.flows.maintenance.schedule import JOBS
from cumulant.project.file.loading import load

PROJECT = """
version: 1
model: {name: shop}
data:
  payments:
    stream: pay
    key: id
    quarantine: 50%
    personal: [shop]
    keep_refused: 30d
    rules: {amount: {min: 0}}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A source with 12 batches: of some columns, then of one more, each with a refused message."""
    monkeypatch.setattr(compaction, "FEWEST", 4)
    (tmp_path / "cumulant.yaml").write_text(PROJECT)
    with load(tmp_path) as project:
        for start in (0, 60):
            fields = {"shop": "a"} | ({"new": 1.5} if start else {})
            values = [{"id": number, "amount": number % 10 - 1, **fields} for number in range(start, start + 60)]
            project.streams().produce("pay", [json.dumps(value).encode() for value in values], partition=0)
            limits = IngestLimits(bytes=1800)
            ingest_streams(project, principal=project.principal(), once=True, limits=limits)
        assert len(read_batches(project, "payments")) >= 10
        yield project


def compact(project, **later):
    now = datetime.now(UTC) + timedelta(**later)
    return compact_streams(project, principal=project.principal(), now=lambda: now)


def contents(project):
    """Each batch with its rows and refused messages."""
    tables = project.tables()
    batches = []
    for batch in read_batches(project, "payments"):
        frames = [None if table is None else table.scan(tables).collect() for table in (batch.rows, batch.refused)]
        facts = (batch.number, batch.content, batch.positions, batch.messages, batch.rules, batch.at)
        batches.append((facts, [None if frame is None else (frame.schema, frame.rows()) for frame in frames]))
    return batches


def keys(project):
    return set(project.tables().keys("streams/"))


class _WholeTables(msgspec.Struct):
    """A batch as versions without compaction read it."""

    rows: TableRef | None
    refused: TableRef | None


def check_formats(project, before):
    """Versions without compaction refuse a batch with a range, and ranges that were written as objects are read."""
    journal = project.journal()
    rows = journal.rows(BATCH, "payments/")
    for row in rows:
        with pytest.raises(msgspec.ValidationError, match="got `array`"):
            msgspec.convert(row.value, _WholeTables)
    with journal.transaction(actor=Actor("ada")) as transaction:
        for row in rows:
            transaction.put(BATCH, row.key, msgspec.to_builtins(batch_of(row)), expect=row.version)
    assert contents(project) == before
    with journal.transaction(actor=Actor("ada")) as transaction:
        for row in rows:
            transaction.put(BATCH, row.key, row.value)


def test_batches_and_snapshots_are_the_same_after_it(project, tmp_path):
    before, tables = contents(project), keys(project)
    snapshot = validate(project, principal=project.principal()).snapshots["payments"]
    refused = refused_messages(project, "payments", principal=project.principal())
    listing = list_ingested(project, "payments")
    done = compact(project)
    assert (done.replaced, done.written, done.removed) == (len(tables), 3, 0)  # two kinds of rows, refused messages
    assert contents(project) == before
    check_formats(project, before)
    stored = [(batch.rows, batch.refused) for batch in read_batches(project, "payments")]
    assert {project.tables().protection(rows.key).columns for rows, _ in stored} == {("shop",)}
    assert {project.tables().protection(refused.key).columns for _, refused in stored if refused} == {("__value",)}
    assert validate(project, principal=project.principal()).reused == ("payments",)
    again = refused_messages(project, "payments", principal=project.principal())
    assert (again.total, again.frame.rows()) == (refused.total, refused.frame.rows())
    (event,) = project.journal().events(kinds=[StreamCompacted.kind])
    assert event.data["replaced"] == len(tables)

    # who has listed the batches before can read them, also after `clean`
    clean(project, principal=project.principal(), dry_run=False)
    spec = project.policies.source("payments").spec
    read = [item.rows(()).rows for item in batch_inputs(listing, spec, project.tables())]
    read_now = [item.rows(()).rows for item in batch_inputs(list_ingested(project, "payments"), spec, project.tables())]
    assert [frame.rows() for frame in read] == [frame.rows() for frame in read_now]
    assert tables < keys(project)

    # in an hour the tables that were replaced go, and a correction of the declaration reads those that there are
    with open_run(project, "train", principal=project.principal(), progress=silent):
        assert compact(project, hours=2).removed == 0
    assert compact(project, hours=2).removed == len(tables)
    assert len(keys(project)) == 3
    assert contents(project) == before
    assert sorted(scan(snapshot, project.tables()).collect()["id"]) == sorted(
        row[0] for _, (rows, _) in before for row in rows[1]
    )
    assert compact(project, hours=3) == compact(project, hours=4)  # there is nothing to do
    (tmp_path / "cumulant.yaml").write_text(PROJECT.replace("{min: 0}", "{max: 5}"))
    with load(tmp_path) as changed:
        corrected = validate(changed, principal=changed.principal()).snapshots["payments"]
        assert corrected.rows_passed == sum(row[1] <= 5 for _, (rows, _) in before for row in rows[1])


@pytest.mark.parametrize("moment", ["written", "committed", "removed"])
def test_what_is_killed_is_done_again(project, monkeypatch, moment):
    before, tables = contents(project), keys(project)

    def fail(*_):
        raise StorageError("the process was killed")

    with monkeypatch.context() as patch:
        if moment == "written":
            patch.setattr(_Compactor, "_commit", fail)
        elif moment == "committed":
            patch.setattr(_Compactor, "_expire", fail)
        else:
            compact(project)
            patch.setattr(project.tables(), "delete", fail)
        with pytest.raises(StorageError):
            compact(project, hours=2)
    assert contents(project) == before
    left = keys(project) - tables
    assert len(left) == 3
    compact(project, hours=2)
    compact(project, hours=4)
    clean(project, principal=project.principal(), dry_run=False)
    assert len(keys(project)) == 3
    assert (left == keys(project)) == (moment != "written")
    assert contents(project) == before


def test_new_batches_wait_until_there_are_enough_and_large_ones_stay(project, monkeypatch):
    assert compact(project).replaced
    project.streams().produce("pay", [b'{"id": 1000, "amount": 1, "shop": "b", "new": 2.5}'], partition=0)
    ingest_streams(project, principal=project.principal(), once=True)
    assert not compact(project).replaced
    monkeypatch.setattr(compaction, "FEWEST", 1)
    monkeypatch.setattr(compaction, "SMALL_BYTES", 10)
    assert not compact(project).replaced
    assert read_batches(project, "payments")[-1].rows.first is None


def test_a_step_is_bounded(project, monkeypatch):
    before = contents(project)
    monkeypatch.setattr(compaction, "MOST_BATCHES", 3)
    assert compact(project).written > 3
    assert contents(project) == before


def test_refused_messages_expire_and_their_counts_stay(project, monkeypatch):
    (status,) = stream_status(project, principal=project.principal())
    compact(project)
    assert refused_messages(project, "payments", principal=project.principal()).total == status.refused > 0
    compact(project, days=29)
    assert refused_messages(project, "payments", principal=project.principal()).total == status.refused
    with monkeypatch.context() as patch:  # of a table that was put together, some batches expire, and others name it
        patch.setattr(stream_compaction, "_STEPS", 1)
        patch.setattr(compaction, "MOST_BATCHES", 3)
        for hours in (1, 3):
            compact(project, days=31, hours=hours)
            total = refused_messages(project, "payments", principal=project.principal()).total
            assert 0 < total < status.refused
    compact(project, days=31, hours=4)
    assert refused_messages(project, "payments", principal=project.principal()).total == 0
    compact(project, days=32)
    assert not [key for key in keys(project) if key.endswith("refused")]
    (after,) = stream_status(project, principal=project.principal())
    assert (after.rows, after.refused) == (status.rows, status.refused)
    assert validate(project, principal=project.principal()).snapshots["payments"].rows_in == status.rows


def test_the_job_of_tick_and_wrong_settings(project, tmp_path):
    (job,) = [job for job in JOBS if job.name == "streams"]
    assert "became 3" in job.run(project)
    assert job.run(project) == "no table of a stream to put together"
    (tmp_path / "rows.csv").write_text("id\n1\n")
    (tmp_path / "cumulant.yaml").write_text(
        "version: 1\nmodel: {name: shop}\ndata: {rows: {path: rows.csv, keep_refused: 3d}}\n"
    )
    with pytest.raises(UsageError, match="keep_refused"):
        load(tmp_path)
