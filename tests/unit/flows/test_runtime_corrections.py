"""A project whose source corrects and deletes rows: training sets of then and now, online state, and what is shown."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from cumulant.cli.training.data import document, rows_line, versions_line
from cumulant.core.plan import FeaturePlan
from cumulant.core.progress import silent
from cumulant.features.offline.offline import compute
from cumulant.features.online.materialization import materialize as features_materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.flows.data.validate import newest_snapshot, snapshots_of, validate
from cumulant.flows.features.feature_table import featurize, scans, used_sources
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.serving.batch.batch_model import _columns
from cumulant.flows.serving.serve import materialize
from cumulant.flows.training.training_rows import labelled_rows
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.project.project import Project
from cumulant.testing.online import MemoryOnline

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
    day, hour = divmod(number, 24)
    return f"{number},{'ab'[number % 2]},{year}-01-{1 + day:02}T{hour:02}:00:00Z,{amount},{fraud},{op}\n"


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
    snapshot = newest_snapshot(project, "tx")
    assert snapshot is not None
    task = resolve_task(project, {"tx": snapshot})
    rows = labelled_rows(
        project, task, snapshot, table, spec=project.training(), evaluation=project.policies.evaluation, as_of=as_of
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
    snapshot = newest_snapshot(project, "tx")
    assert snapshot is not None
    task = resolve_task(project, {"tx": snapshot})
    used = used_sources(task.plan, {"tx": snapshot})
    frames, store = scans(project, {"tx": snapshot}, used, as_of=None), MemoryOnline()
    features_materialize(task.plan, frames, store, table="t")
    asked = [{"id": 77, "card": "a", "at": datetime(2091, 1, 1, tzinfo=UTC), "amount": 1}]
    served = OnlineFeatures(task.plan, store, "t").vectors(asked)
    evens = sum(range(0, 20, 2))
    assert served.columns["spent_36500d"] == [evens - 4 - 2 + 1002 + 1]
    for history in (frames, {"tx": _columns(frames["tx"], task.plan, "tx")}):
        offline = compute(task.plan, history, rows=pl.DataFrame(asked))
        assert offline["spent_36500d"].to_list() == served.columns["spent_36500d"]


def test_what_is_posted_corrects_and_the_file_that_brings_it_too_counts_once(project: Project) -> None:
    """Through the store of the project, which is opened anew, and a snapshot that holds half of what was posted."""
    validate(project, principal=ME)
    plan, before = filled(project)
    posted = [json_row(2, 1002), json_row(4, 4, op="D"), json_row(5, 70), json_row(40, 8)]
    online = OnlineFeatures(plan, project.online(), before)
    assert online.advance("tx", posted).accepted == 4
    assert online.advance("tx", [*posted, json_row(6, 6)]).duplicates == 5
    again = load(project.root)
    assert spent(again, plan, before) == corrected()
    files = line(2, 1002, 1) + line(4, 4, 0, op="D")
    (project.root / "rows/a.csv").write_text(HEAD + files, encoding="utf-8")
    validate(again, principal=ME)
    plan, after = filled(again)
    assert after != before
    assert spent(again, plan, after) == corrected()
    rest = line(5, 70, 0) + line(40, 8, 0)
    (project.root / "rows/c.csv").write_text(HEAD + rest, encoding="utf-8")
    validate(again, principal=ME)
    plan, last = filled(again)
    assert spent(again, plan, last) == corrected()
    # a deletion that comes with the files, of a row that was only posted
    online = OnlineFeatures(plan, again.online(), last)
    assert online.advance("tx", [json_row(44, 500)]).accepted == 1
    assert spent(again, plan, last) == [corrected()[0] + 500, corrected()[1]]
    (project.root / "rows/d.csv").write_text(HEAD + line(44, 0, 0, op="D"), encoding="utf-8")
    validate(again, principal=ME)
    plan, last = filled(again)
    assert spent(again, plan, last) == corrected()
    # offline features of the snapshot that holds the same versions
    snapshot = newest_snapshot(again, "tx")
    assert snapshot is not None
    frames = scans(again, {"tx": snapshot}, used_sources(plan, {"tx": snapshot}), as_of=None)
    asked = pl.DataFrame([row | {"at": datetime.fromisoformat(row["at"])} for row in ASKED])
    assert compute(plan, frames, rows=asked)["spent_36500d"].to_list() == corrected()
    # and so does a state that is filled from nothing else
    features_materialize(plan, frames, alone := MemoryOnline(), table="t")
    assert OnlineFeatures(plan, alone, "t").vectors(ASKED).columns["spent_36500d"] == corrected()


ASKED = [{"id": 77 + at, "card": card, "at": "2091-01-01T00:00:00+00:00", "amount": 1} for at, card in enumerate("ab")]


def corrected() -> list[float]:
    """The sums of both cards with what was posted, and the row itself."""
    evens, odds = sum(range(0, 20, 2)), sum(range(1, 20, 2))
    return [evens - 2 + 1002 - 4 + 8 + 1, odds - 5 + 70 + 1]


def json_row(number: int, amount: float, *, op: str = "U") -> dict[str, object]:
    day, hour = ("2024-01-01", number) if number < 24 else ("2024-01-02", number - 24)
    return {"id": number, "card": "ab"[number % 2], "at": f"{day}T{hour:02}:00:00Z", "amount": amount, "op": op}


def filled(project: Project) -> tuple[FeaturePlan, str]:
    """What `serve` does before it starts a server."""
    with open_run(project, "serve", principal=ME, progress=silent) as context:
        snapshots, _ = snapshots_of(context)
        plan = resolve_task(project, snapshots).plan
        return plan, materialize(context, plan, snapshots, as_of=None)[0]


def spent(project: Project, plan: FeaturePlan, table: str) -> list[float]:
    found: list[float] = OnlineFeatures(plan, project.online(), table).vectors(ASKED).columns["spent_36500d"]
    return found
