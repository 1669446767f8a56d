"""The rows of a training: what is read of the source, what is copied, and how much memory may be taken."""

from __future__ import annotations

import re
import weakref
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import DataError, UsageError
from cumulant.data.snapshot import scan as data_scan
from cumulant.flows.data.validate import validate
from cumulant.flows.features.feature_table import featurize
from cumulant.flows.features.task import resolve_task
from cumulant.flows.registry import registration
from cumulant.flows.training import memory_check, search_step
from cumulant.flows.training import training_rows as rows_module
from cumulant.flows.training.memory_check import refuse_too_many_rows
from cumulant.flows.training.train import train
from cumulant.flows.training.training_identity import TrainingWork
from cumulant.flows.training.training_rows import labelled_rows
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.training import row_hash
from cumulant.training.dataset import TrainingSet
from cumulant.training.memory_need import TrainingNeed, TrainingRows
from cumulant.training.row_hash import row_hashes
from cumulant.training.trainers import linear_trainer
from cumulant.training.trainers.trainer import FitResult, Params, Problem, TrainingSample

pytestmark = pytest.mark.slow

ME = Principal("tester")
TIMED, UNTIMED = "event_time: at", ""
PROJECT = """\
version: 1
model: {{name: payments}}
data: {{tx: {{path: tx.parquet, key: [{key}]{timed}}}}}
training: {{target: fraud, trials: 1, time: null, trainers: [linear], ensemble: 1, {cost}}}
evaluation: {{slices: [{slices}], clusters: {clusters}, test: 20%}}
{resources}
"""
FEATURES = 'from cumulant.features import source\n\nrow = source("tx").columns("amount", "kind")\n'
ROWS = 600


def project(
    folder: Path,
    *,
    key: str = "id",
    timed: str = ", event_time: at",
    cost: str = "",
    slices: str = "",
    clusters: str = "auto",
    resources: str = "",
    rows: int = ROWS,
) -> Path:
    folder.mkdir()
    draw = np.random.default_rng(4)
    frame = pl.DataFrame(
        {
            "id": np.arange(rows),
            "amount": draw.lognormal(3, 1, rows).round(2),
            "kind": draw.choice(list("abc"), rows),
            "card": draw.integers(0, 40, rows),
            "harm": draw.random(rows).round(3),
            "note": [f"n{one}" for one in range(rows)],
            "fraud": draw.random(rows) < 0.3,
        }
    ).with_columns(at=pl.Series(np.arange(rows) * 3_600_000_000).cast(pl.Datetime("us", "UTC")))
    frame.write_parquet(folder / "tx.parquet")
    (folder / "features.py").write_text(FEATURES)
    text = PROJECT.format(key=key, timed=timed, cost=cost, slices=slices, clusters=clusters, resources=resources)
    (folder / "cumulant.yaml").write_text(text)
    return folder


def read(folder: Path) -> TrainingSet:
    found = load(folder)
    table = featurize(found, principal=ME)
    snapshot = validate(found, principal=ME).snapshots["tx"]
    return labelled_rows(
        found,
        resolve_task(found, {"tx": snapshot}),
        snapshot,
        table.table,
        spec=found.training(),
        evaluation=found.policies.evaluation,
        as_of=None,
    )


def same(one: TrainingSet, other: TrainingSet) -> bool:
    arrays = ("target", "at", "known", "groups", "false_negative", "false_positive", "identity", "rows")
    return (
        one.features.equals(other.features)
        and (one.slices is None) == (other.slices is None)
        and (one.slices is None or other.slices is None or one.slices.equals(other.slices))
        and all(
            np.array_equal(getattr(one, name), getattr(other, name))
            for name in arrays
            if getattr(one, name) is not None
        )
        and all((getattr(one, name) is None) == (getattr(other, name) is None) for name in arrays)
    )


SETTINGS = [
    {},
    {"slices": "card, kind", "cost": "cost: {false_negative: harm, false_positive: 1}"},
    {"clusters": "card"},
    {"timed": ""},
    {"timed": "", "key": "card, id"},
    {"timed": "", "clusters": "card", "slices": "harm"},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_columns_that_are_needed_make_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    folder = project(tmp_path / "some", **settings)
    found = read(folder)
    every = {"id", "amount", "kind", "card", "harm", "note", "fraud", "at"}
    monkeypatch.setattr(rows_module, "columns_read", lambda *_: every)
    assert same(found, read(folder))


def test_a_column_that_nothing_needs_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = data_scan

    def scan(*words: object, **named: object) -> pl.LazyFrame:
        def fail(_: pl.Series) -> pl.Series:
            raise AssertionError("the notes were read")

        return original(*words, **named).with_columns(pl.col("note").map_batches(fail, return_dtype=pl.String))  # type: ignore[arg-type]

    folder = project(tmp_path / "notes")
    read(folder)
    monkeypatch.setattr("cumulant.data.snapshot.scan", scan)
    assert len(read(folder)) == ROWS


@pytest.mark.parametrize("timed", [TIMED, UNTIMED])
def test_no_step_of_a_training_reads_a_column_that_nothing_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed: str
) -> None:
    """Rows without times are recognised later by the hashes of some, which need their key alone."""
    original = data_scan

    def scan(*words: object, **named: object) -> pl.LazyFrame:
        def fail(_: pl.Series) -> pl.Series:
            raise AssertionError("the notes were read")

        return original(*words, **named).with_columns(pl.col("note").map_batches(fail, return_dtype=pl.String))  # type: ignore[arg-type]

    made = load(project(tmp_path / "notes", timed=f", {timed}" if timed else ""))
    featurize(made, principal=ME)
    monkeypatch.setattr("cumulant.data.snapshot.scan", scan)
    assert train(made, principal=ME).model.version


def test_no_rows_are_read_to_register_what_was_packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_again(*_: object) -> None:
        raise AssertionError("all rows were read")

    monkeypatch.setattr(registration, "rows_of", read_again)
    assert train(load(project(tmp_path / "once")), principal=ME).model.version


def test_the_features_are_let_go_before_anything_is_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[pl.DataFrame]] = []
    original = search_step.sample_training_rows

    def learned(rows: TrainingSet, work: TrainingWork) -> TrainingSet:
        found = original(rows, work)
        held.append(weakref.ref(found.features))
        return found

    def fit(trainer: linear_trainer.Linear, problem: Problem, params: Params, train: TrainingSample) -> FitResult:
        assert [one() for one in held] == [None]
        return fitted(trainer, problem, params, train)

    fitted = linear_trainer.Linear.fit
    monkeypatch.setattr(search_step, "sample_training_rows", learned)
    monkeypatch.setattr(linear_trainer.Linear, "fit", fit)
    assert train(load(project(tmp_path / "let_go")), principal=ME).model.version


def test_a_misspelt_slice_is_still_compared_with_all_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'evaluation\.slices names "noted"') as raised:
        read(project(tmp_path / "noted", slices="noted"))
    assert raised.value.hint == 'did you mean "note"?'


def test_rows_that_are_all_taken_are_not_copied(tmp_path: Path) -> None:
    rows = read(project(tmp_path / "all"))
    assert rows.take(np.ones(len(rows), dtype=bool)) is rows
    some = rows.take(np.arange(len(rows)) % 2 == 0)
    assert some.features.equals(rows.features[::2])


def test_hashes_by_blocks_are_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pl.DataFrame({"key": [f"é{one % 40}" for one in range(500)], "part": [None, 1, 2, 3, 4] * 100})
    at_once = row_hashes(frame, frame.columns, copies=True)
    monkeypatch.setattr(row_hash, "_BLOCK", 7)
    assert np.array_equal(row_hashes(frame, frame.columns, copies=True), at_once)
    assert len(set(at_once.tolist())) == 500


def test_rows_that_follow_each_other_are_not_copied(tmp_path: Path) -> None:
    rows = read(project(tmp_path / "part"))
    some = rows.take(np.arange(100, 400))
    assert np.shares_memory(some.features["amount"].to_numpy(), rows.features["amount"].to_numpy())
    assert np.shares_memory(some.target, rows.target)
    for index in (np.arange(100, 400), np.arange(3), np.array([7]), np.array([5, 7, 6, 8]), np.arange(9)[::-1]):
        found, every = rows.take(index), index.tolist()
        assert found.features.equals(rows.features[every])
        assert found.rows.tolist() == every
        assert found.target.tolist() == rows.target[every].tolist()
    assert len(rows.take(np.arange(0))) == 0


def test_a_training_that_is_done_already_is_not_refused(tmp_path: Path) -> None:
    folder = project(tmp_path / "done", rows=150_000)
    train(load(folder), principal=ME)
    (folder / "cumulant.yaml").write_text((folder / "cumulant.yaml").read_text() + "resources: {memory: 40MiB}\n")
    assert "search" in train(load(folder), principal=ME).reused


def test_a_search_that_ended_is_not_lost_to_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process holds grows while it searches."""
    made = load(project(tmp_path / "grown", resources="resources: {memory: 8GiB}"))
    held = iter([1 << 20])
    monkeypatch.setattr(memory_check, "resident_memory", lambda: next(held, 64 << 30))
    monkeypatch.setattr(memory_check, "_LEAST", 1)
    assert train(made, principal=ME).model.version


def test_a_training_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    made = load(project(tmp_path / "large", resources="resources: {memory: 40MiB}", rows=250_000))
    sentence = r"250,000 rows of tx with 2 features takes \d+ MiB, beside the [\d.]+ [MG]iB of the program itself"
    with pytest.raises(UsageError, match=sentence) as raised:
        train(made, principal=ME)
    assert raised.value.subject == "resources.memory"
    assert re.search(r"set resources.memory to [\d.]+[MG]iB or more", str(raised.value.hint))
    assert "training.since" in str(raised.value.hint)


def test_a_training_with_the_memory_that_the_refusal_names_is_admitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_check, "resident_memory", lambda: 300 << 20)
    folder = project(tmp_path / "hinted", resources="resources: {memory: 300MiB}", rows=400_000)
    made = load(folder)
    snapshot = validate(made, principal=ME).snapshots["tx"]
    task, spec = resolve_task(made, {"tx": snapshot}), made.training()
    with pytest.raises(UsageError) as raised:
        refuse_too_many_rows(made, task, snapshot, spec, as_of=None)
    named = re.search(r"set resources.memory to ([\d.]+[MG]iB) or more", str(raised.value.hint))
    assert named is not None
    text = (folder / "cumulant.yaml").read_text()
    (folder / "cumulant.yaml").write_text(text.replace("300MiB", named[1]))
    refuse_too_many_rows(load(folder), task, snapshot, spec, as_of=None)


def test_a_quick_look_needs_the_memory_of_the_rows_that_it_learns_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = list[float]()

    def training_need(rows: TrainingRows, *_: object, **__: object) -> TrainingNeed:
        shares.append(rows.share)
        return TrainingNeed(0, 0)

    monkeypatch.setattr(memory_check, "training_need", training_need)
    made = load(project(tmp_path / "quick"))
    train(made, principal=ME)
    train(made, principal=ME, quick=True)
    assert shares == [1.0, 0.1]


@pytest.mark.parametrize(("since", "refused"), [("", True), ("since: 1998-01-01", False)])
def test_only_the_rows_that_are_trained_on_count(tmp_path: Path, since: str, *, refused: bool) -> None:
    """Of 250,000 hours since 1970 some 4,700 are of 1998 or later."""
    resources = "resources: {memory: 40MiB}"
    made = load(project(tmp_path / "since", resources=resources, cost=since, rows=250_000))
    snapshot = validate(made, principal=ME).snapshots["tx"]
    task, spec = resolve_task(made, {"tx": snapshot}), made.training()
    if refused:
        with pytest.raises(UsageError):
            refuse_too_many_rows(made, task, snapshot, spec, as_of=None)
    else:
        refuse_too_many_rows(made, task, snapshot, spec, as_of=None)
