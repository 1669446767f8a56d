"""Rows of ingested streams reach online features: once, after any kill, in every table that reads them."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from cumulant.core.progress import silent
from cumulant.drivers.folder.streams import FolderStreams
from cumulant.features.offline.offline import compute
from cumulant.features.online.online import OnlineFeatures
from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.feature_table import scans, used_sources
from cumulant.flows.features.stream_features import apply_ingested
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.serving.serve import materialize
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
    (applied,) = apply(project)
    assert (applied.table, applied.batch, applied.rows, applied.accepted, applied.duplicates) == (table, 2, 22, 20, 2)
    check(project, plan, table)
    assert apply(project)[0].rows == 0
