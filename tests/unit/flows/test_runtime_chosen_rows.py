"""`training.rows`: which rows are read, what is said of them, and that nothing takes another row for learned."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from cumulant.cli.training.models import learned_text
from cumulant.core.errors import UsageError
from cumulant.core.progress import silent
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.feature_table import FeatureSet, feature_set
from cumulant.flows.features.task import Task, resolve_task
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.maintenance.cleanup import clean
from cumulant.flows.monitoring.reference import served_reference
from cumulant.flows.project.plan_checks import check_rows
from cumulant.flows.registry import champion_scores
from cumulant.flows.registry.lineage import lineage, reproduce
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.registry.models import show_model
from cumulant.flows.reports.origins import lines
from cumulant.flows.training import chosen_rows as chosen_module
from cumulant.flows.training import memory_check
from cumulant.flows.training.chosen_rows import CHOSEN, chosen_rows
from cumulant.flows.training.search_step import all_rows, rows_of
from cumulant.flows.training.split_rule import rule_of, unlearned_rows
from cumulant.flows.training.train import train, work_of
from cumulant.flows.training.training_identity import TrainingWork
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.project.project import Project
from cumulant.training import memory_need, row_hash
from cumulant.training.dataset import TrainingSet

pytestmark = pytest.mark.slow

ME = Principal("tester")
PROJECT = """\
version: 1
model: {{name: payments}}
data: {{tx: {{path: tx.parquet{key}{timed}}}}}
training:
  target: fraud
  trials: 1
  time: null
  trainers: [linear]
  ensemble: 1
  threads: 1
{training}
evaluation: {{slices: [kind], clusters: {clusters}, test: 20%}}
{more}
"""
FEATURES = 'from cumulant.features import source\n\nrow = source("tx").columns("amount", "kind")\n'
ROWS, START = 4000, datetime(2026, 1, 1, tzinfo=UTC)
KEY, TIMED = ", key: [id]", ", event_time: at"


def payments(rows: int = ROWS) -> pl.DataFrame:
    """One an hour; whoever takes more of them has the same rows first. Each 50th has no label."""
    draw = np.random.default_rng(4)
    most = max(rows, 3 * ROWS)
    amount = draw.lognormal(3, 1, most).round(6)
    fraud = draw.random(most) < 1 / (1 + np.exp(2 - amount / 20))
    frame = pl.DataFrame(
        {
            "id": [f"p{one}" for one in range(most)],
            "amount": amount,
            "kind": draw.choice(list("abc"), most),
            "card": draw.integers(0, 40, most),
            "at": [START + timedelta(hours=one) for one in range(most)],
            "fraud": [None if one % 50 == 0 else bool(value) for one, value in enumerate(fraud)],
        }
    )
    return frame.head(rows)


def write(
    folder: Path,
    *,
    rows: str | int | None = None,
    key: str = KEY,
    timed: str = TIMED,
    clusters: str = "auto",
    training: str = "",
    more: str = "",
    frame: pl.DataFrame | None = None,
) -> Path:
    folder.mkdir(exist_ok=True)
    if frame is not None or not (folder / "tx.parquet").exists():
        (payments() if frame is None else frame).write_parquet(folder / "tx.parquet")
    (folder / "features.py").write_text(FEATURES)
    bound = "" if rows is None else f"  rows: {rows}\n"
    text = PROJECT.format(key=key, timed=timed, clusters=clusters, training=bound + training, more=more)
    (folder / "cumulant.yaml").write_text(text)
    return folder


def work_in(context: Context, *, as_of: datetime | None = None) -> TrainingWork:
    project = context.project
    snapshots, _ = snapshots_of(context)
    task: Task = resolve_task(project, snapshots)
    table: FeatureSet = feature_set(context, task, snapshots, as_of=as_of)
    return work_of(project, task, snapshots, table, as_of=as_of, quick=False, trials=None, time=None)


def opened(project: Project):
    return open_run(project, "evaluate", principal=ME, progress=silent)


def read(folder: Path, *, as_of: datetime | None = None) -> TrainingSet:
    with load(folder) as project, opened(project) as context:
        return all_rows(context, work_in(context, as_of=as_of))


def smallest(frame: pl.DataFrame, most: int) -> list[int]:
    """Positions of the rows with the smallest hashes of `id`, by a sort of all."""

    def hashed(place: int) -> tuple[int, int]:
        digest = hashlib.blake2b(frame["id"][place].encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little"), place

    return sorted(sorted(range(frame.height), key=hashed)[:most])


SETTINGS = [
    {},
    {"timed": ""},
    {"clusters": "card"},
    {"timed": "", "clusters": "card"},
    {"training": '  since: "2026-03-01"\n'},
    {"training": "  cost: {false_negative: amount, false_positive: 1}\n"},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("block", [97, 65_536])
def test_the_rows_are_those_with_the_smallest_hashes_and_as_they_are_among_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], block: int
) -> None:
    monkeypatch.setattr(chosen_module, "_BLOCK", block)
    every = read(write(tmp_path / "one", **settings))
    some = read(write(tmp_path / "one", rows="1.5k", **settings))
    eligible = (
        payments().filter(pl.col("at") >= datetime(2026, 3, 1, tzinfo=UTC)) if "since" in str(settings) else payments()
    )
    wanted = [place for place in smallest(eligible, 1500) if eligible["fraud"][place] is not None]
    # positions of the chosen rows among all eligible ones, through the amounts, which are different in each row
    places = {value: place for place, value in enumerate(eligible["amount"].to_list())}
    assert [places[value] for value in some.features["amount"].to_list()] == wanted
    picked = every.take(np.isin(every.rows, wanted))
    assert some.features.equals(picked.features)
    assert some.slices is not None
    assert picked.slices is not None
    assert some.slices.equals(picked.slices)
    for name in ("target", "at", "known", "false_negative", "false_positive", "identity", "weight"):
        one, other = getattr(some, name), getattr(picked, name)
        assert (one is None and other is None) or np.array_equal(one, other)
    counted = some.sampling_weight.sum() + some.traffic.sampling_weight.sum()
    assert counted == pytest.approx(eligible.height)
    assert any(f"1,500 of {eligible.height:,} rows" in note for note in some.notes)


def test_what_was_not_known_then_is_no_row_to_choose_from(tmp_path: Path) -> None:
    moment = START + timedelta(hours=2500)
    then = read(write(tmp_path / "then", rows=1000), as_of=moment)
    eligible = payments().filter(pl.col("at") <= moment)
    wanted = [place for place in smallest(eligible, 1000) if eligible["fraud"][place] is not None]
    assert then.features["amount"].to_list() == eligible["amount"].gather(wanted).to_list()


def test_rows_without_a_key_are_chosen_one_by_one(tmp_path: Path) -> None:
    """Equal rows have equal hashes of their values, and would be chosen all or none."""
    half = payments(40).drop("id")
    frame = pl.concat([half] * 100)
    some = read(write(tmp_path / "keyless", rows=1000, key="", timed="", frame=frame))
    counts = some.features["amount"].value_counts()["count"]
    assert len(some) == pytest.approx(980, abs=30)  # the others have no label
    assert len(counts) == 39
    assert 10 < counts.min() < counts.max() < 50


def test_a_bound_beyond_the_rows_is_no_part_of_the_identity(tmp_path: Path) -> None:
    found = {}
    for rows in (None, "5k", 4000, "4k", 3999, "3.999k"):
        with load(write(tmp_path / "same", rows=rows)) as project, opened(project) as context:
            work = work_in(context)
            found[rows] = work.identity
            assert (chosen_rows(project, work.snapshot, work.training, as_of=None) is None) == (
                found[rows] == found[None]
            )
    assert found[None] == found["5k"] == found[4000] == found["4k"]
    assert found[3999] == found["3.999k"] != found[None]


def test_a_plan_checks_the_rows_that_a_training_would_read(tmp_path: Path) -> None:
    with load(write(tmp_path / "plan", rows=1000)) as project, opened(project) as context:
        work = work_in(context)
        facts = check_rows(context, work.task, work.snapshot)
    assert sum(facts.counts.values()) == pytest.approx(980, abs=15)


def test_few_rows_of_a_class_are_named(tmp_path: Path) -> None:
    frame = payments().with_columns(fraud=pl.col("amount") > 100)
    some = read(write(tmp_path / "rare", rows=1000, frame=frame))
    count, whole = int(some.target.sum()), int(frame["fraud"].sum())
    (text,) = some.warnings
    assert text.startswith(f'training.rows leaves {count} rows of the class "true", of about')
    assert count == pytest.approx(whole / 4, rel=0.4)
    assert not read(write(tmp_path / "rare")).warnings


@pytest.mark.parametrize("clusters", ["auto", "card"])
def test_no_row_that_a_version_learned_is_taken_for_one_that_it_did_not(tmp_path: Path, clusters: str) -> None:
    """Rows without times, of which more came, under another bound and another share of test rows."""
    plain = {"timed": "", "clusters": clusters}
    with load(write(tmp_path / "grown", rows=2000, **plain)) as project, opened(project) as context:
        work = work_in(context)
        split = rows_of(context, work)
        rule, learned = rule_of(project, work, split), set(split.train.features["amount"].to_list())
        assert rule is not None
    assert bool(rule.largest) == (clusters == "auto")
    for rows in (1000, 3000, None):
        write(tmp_path / "grown", rows=rows, frame=payments(2 * ROWS), **plain)
        with load(tmp_path / "grown") as project, opened(project) as context:
            later = work_in(context)
            known = unlearned_rows(rule, project, later)
            today = all_rows(context, later)
        assert known is not None  # although rows that were learned are not chosen among twice as many
        unseen = set(today.features["amount"].filter(pl.Series(known[today.rows])).to_list())
        assert not unseen & learned
        assert unseen
        if rows is None and clusters == "auto":
            # rows that came later count as learned where they would have been: as many as there were
            assert len(unseen) == pytest.approx(len(today) - 2 * len(learned), rel=0.05)


def test_features_of_another_plan_are_those_of_the_same_rows_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(champion_scores, "_same", lambda *_: False)
    for rows in (1500, None):
        folder = write(tmp_path / "plans", rows=rows, training='  since: "2026-02-01"\n')
        with load(folder) as project, opened(project) as context:
            work = work_in(context)
            test = rows_of(context, work).test
            test = test.take(np.random.default_rng(1).permutation(len(test)))
            found = champion_scores._features(context, work, work.task.plan, ("amount", "kind"), test)
        assert found.select("amount", "kind").equals(test.features.select("amount", "kind"))


def test_a_refused_training_runs_with_the_number_that_the_refusal_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program itself is left out of the sum, since libraries take more than some thousand rows."""
    for name in ("LIBRARIES", "SEARCH_LIBRARIES"):
        monkeypatch.setattr(memory_need, name, 0)
    monkeypatch.setattr(memory_check, "resident_memory", lambda: 0)
    monkeypatch.setattr(memory_check, "_LEAST", 1)
    memory = {"more": "resources: {memory: 12.5MiB}"}
    folder = write(tmp_path / "refused", **memory)
    with load(folder) as project, pytest.raises(UsageError) as raised:
        train(project, principal=ME)
    named = re.search(r"train on a part of the rows \(training\.rows: ([\d.]+k?)\)", str(raised.value.hint))
    assert named is not None
    most = int(float(named[1].removesuffix("k")) * (1000 if named[1].endswith("k") else 1))
    with load(write(folder, rows=most + 10, **memory)) as project, pytest.raises(UsageError):
        train(project, principal=ME)
    with load(write(folder, rows=named[1], **memory)) as project:
        first = train(project, principal=ME)
        assert 1000 <= most < ROWS
        assert "search" in train(project, principal=ME).reused
        record = find_record(project, first.model)
        assert record is not None
        split = record.fitted.split
        assert split.chosen is not None
        assert (split.chosen.rows, split.chosen.of) == (most, ROWS)
        assert split.train + split.test + split.left_out == pytest.approx(most * 0.98, rel=0.02)
        part = f"training.rows chose {most:,} of {ROWS:,} to train and test on"
        shown = show_model(project, "payments", principal=ME)
        assert shown.learned is not None
        assert learned_text(shown.learned) == f"{split.train:,} rows; the test rows are not among them; {part}"
        assert any(f"trained and tested on {most:,} of {ROWS:,} rows" in note for note in first.notes)
        told = dict(lines(lineage(project, "payments", principal=ME)))
        assert told["learned from"] == f"{split.train:,} rows, of the {most:,} that training.rows chose out of {ROWS:,}"
        _check_reference(project, most)
        gone = {one.key for one in clean(project, principal=ME, dry_run=False)}
        assert any(key.startswith(CHOSEN) for key in gone)
        assert reproduce(project, "payments/1", principal=ME).identical
    with load(write(folder, rows=1000, **memory)) as project:
        assert "search" not in train(project, principal=ME).reused


def _check_reference(project: Project, most: int) -> None:
    """What drift is measured against is of the chosen rows, each with its own truth."""
    with served_reference(project, principal=ME) as served:
        rows = pl.read_parquet(served.path)
    source = payments()
    chosen = source[smallest(source, most)].drop_nulls("fraud")
    assert sorted(rows["amount"].to_list()) == sorted(chosen["amount"].to_list())
    tested = rows.drop_nulls("fraud").join(source.select("amount", truth="fraud"), on="amount")
    assert tested["fraud"].cast(pl.String).to_list() == tested["truth"].cast(pl.String).to_list()


def test_a_chosen_row_is_hashed_once_for_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with load(write(tmp_path / "once", rows=1000)) as project, opened(project) as context:
        work = work_in(context)
        first = chosen_rows(project, work.snapshot, work.training, as_of=None)

        def hashed_again(*_: object, **__: object) -> None:
            raise AssertionError("the keys were hashed again")

        monkeypatch.setattr(row_hash, "row_hashes", hashed_again)
        again = chosen_rows(project, work.snapshot, work.training, as_of=None)
        assert first is not None
        assert again is not None
        assert np.array_equal(first.positions, again.positions)
        other = msgspec.structs.replace(work.training, rows=1001)
        with pytest.raises(AssertionError, match="hashed again"):
            chosen_rows(project, work.snapshot, other, as_of=None)
        declared = msgspec.structs.replace(work.training_spec, rows=1001)
        assert replace(work, training_spec=declared).identity != work.identity
