"""A project whose source corrects and deletes rows: training sets of then and now, online state, and what is shown."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from cumulant import features
from cumulant.cli.data import document, rows_line, versions_line
from cumulant.ports.access import Principal
from cumulant.project import Project, load
from cumulant.runtime.batch.models import _columns
from cumulant.runtime.features import featurize, scans, used_sources
from cumulant.runtime.rows import labelled_rows
from cumulant.runtime.task import resolve_task
from cumulant.runtime.validate import newest, validate
from cumulant.testing import MemoryOnline

ME = Principal("tester")
HEAD = "id,card,at,amount,fraud,op\n"
PROJECT = """version: 1
model: {name: corrections}
data:
  tx:
    path: rows
    key: id
    event_time: at
    on_repeat: latest
    deleted: {column: op, values: [D]}
training: {target: fraud, predict_at: at, trainers: [naive]}
"""
FEATURES = """from cumulant.features import source
tx = source("tx")
own = tx.columns("amount")
spent = tx.by("card").sum("amount", window="36500d")
"""


def line(number: int, amount: float, fraud: int, *, year: int = 2024, op: str = "U") -> str:
    return f"{number},{'ab'[number % 2]},{year}-01-01T{number:02}:00:00Z,{amount},{fraud},{op}\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "cumulant.yaml").write_text(PROJECT, encoding="utf-8")
    (tmp_path / "features.py").write_text(FEATURES, encoding="utf-8")
    (tmp_path / "rows").mkdir()
    first = "".join(line(number, number, int(number % 3 == 0)) for number in range(20))
    (tmp_path / "rows/b.csv").write_text(HEAD + first + line(20, 0, 0, year=2090), encoding="utf-8")
    return load(tmp_path)


def computed(project: Project, as_of: datetime | None) -> tuple[list[float], list[float], list[bool]]:
    """Amounts, sums of the card and labels of the training set as of a moment."""
    table = featurize(project, principal=ME, as_of=as_of).table
    snapshot = newest(project, "tx")
    assert snapshot is not None
    task = resolve_task(project, {"tx": snapshot})
    rows = labelled_rows(
        project, task, snapshot, table, spec=project.training(), evaluation=project.spec.evaluation, as_of=as_of
    )
    return rows.features["amount"].to_list(), rows.features["spent_36500d"].to_list(), list(rows.target.astype(bool))


def test_a_training_set_of_then_has_the_old_values_and_one_of_now_the_new_ones(project: Project) -> None:
    validate(project, principal=ME)
    before = computed(project, None)
    then = datetime.now(UTC)
    corrected = line(2, 1002, 1) + line(4, 4, 0, op="D") + line(6, 6, 1)
    (project.root / "rows/a.csv").write_text(HEAD + corrected, encoding="utf-8")
    found = validate(project, principal=ME).snapshots["tx"]
    assert rows_line(found) == "24  =  24 passed + 0 quarantined"
    assert versions_line(found) == ("20  =  24 passed - 2 corrected or deleted - 1 repeated unchanged - 1 deletions")
    assert document(found)["rows_current"] == 20
    assert computed(project, then)[2] == before[2][:20]
    assert computed(project, then)[:2] == (before[0][:20], before[1][:20])
    amounts, spent, labels = computed(project, None)
    # The row of 2090 comes after all corrections; those before were predicted when only the old values were known.
    expected = [number for number in range(20) if number != 4]
    assert sorted(amounts) == [0.0, *expected]
    evens = sum(range(0, 20, 2))
    assert max(spent) == evens - 4 - 2 + 1002
    assert sum(labels) == sum(before[2]) + 1
    check_online(project)


def check_online(project: Project) -> None:
    """State, rows given apart, and batches see what the last training row saw."""
    snapshot = newest(project, "tx")
    assert snapshot is not None
    task = resolve_task(project, {"tx": snapshot})
    used = used_sources(task.plan, {"tx": snapshot})
    frames, store = scans(project, {"tx": snapshot}, used, as_of=None), MemoryOnline()
    features.materialize(task.plan, frames, store, table="t")
    asked = [{"id": 77, "card": "a", "at": datetime(2091, 1, 1, tzinfo=UTC), "amount": 1}]
    served = features.OnlineFeatures(task.plan, store, "t").vectors(asked)
    evens = sum(range(0, 20, 2))
    assert served.columns["spent_36500d"] == [evens - 4 - 2 + 1002 + 1]
    for history in (frames, {"tx": _columns(frames["tx"], task.plan, "tx")}):
        offline = features.compute(task.plan, history, rows=pl.DataFrame(asked))
        assert offline["spent_36500d"].to_list() == served.columns["spent_36500d"]
