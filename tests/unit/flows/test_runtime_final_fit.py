"""`training.final_fit: all`: the served model knows the test rows, and nothing that measures it takes them for unseen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from cumulant.cli.training.models import learned_text
from cumulant.core.errors import IntegrityError
from cumulant.core.progress import silent
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.monitoring.reference import served_reference
from cumulant.flows.project.planning import plan
from cumulant.flows.registry.lineage import reproduce
from cumulant.flows.registry.model_record import LEARNED_TO, find_record
from cumulant.flows.registry.models import show_model
from cumulant.flows.registry.version_servable import open_servable
from cumulant.flows.review.review_reference import reference_of
from cumulant.flows.training.evaluate import evaluate
from cumulant.flows.training.final_fit import held_out_scores
from cumulant.flows.training.search_step import load_model
from cumulant.flows.training.train import TrainResult, train
from cumulant.project.file.loading import load
from cumulant.servable.scorer import Scorer

#: a booster that learns its rows by heart
PROJECT = """\
version: 1
model: {name: kept}
data:
  visits: {path: visits.csv, key: visit, event_time: at}
features: features.py
training:
  target: bought
  final_fit: FIT
  trainers: [lightgbm]
  parameters: {lightgbm: {num_leaves: 60, min_data_in_leaf: 2, learning_rate: 0.3}}
  trials: 1
  time: null
  folds: 2
  ensemble: 1
  threads: 1
evaluation: {test: 20%}
"""
FEATURES = """\
from cumulant.features import source

row = source("visits").columns("x", "y", "z")
"""
START = datetime(2026, 1, 1, tzinfo=UTC)


def visits(count: int) -> pl.DataFrame:
    """One row each half hour; whoever takes more of them has the same rows first."""
    rng = np.random.default_rng(7)
    x, y, z = rng.normal(size=(3, 4000)).round(6)
    bought = rng.random(4000) < 1 / (1 + np.exp(1 - 2 * x - y))
    at = [START + timedelta(minutes=30 * place) for place in range(4000)]
    return pl.DataFrame({"visit": np.arange(4000), "at": at, "x": x, "y": y, "z": z, "bought": bought})[:count]


def make(folder: Path, rows: pl.DataFrame, *, fit: str = "all", timed: bool = True) -> Path:
    folder.mkdir()
    rows.write_csv(folder / "visits.csv")
    text = PROJECT.replace("FIT", fit)
    (folder / "cumulant.yaml").write_text(text if timed else text.replace(", event_time: at", ""))
    (folder / "features.py").write_text(FEATURES)
    return folder


@pytest.mark.slow
def test_the_model_learns_all_rows_and_its_figures_stay_those_of_the_configuration(tmp_path):
    rows = visits(1500)
    with load(make(tmp_path / "alone", rows, fit="train")) as project:
        alone = train(project, principal=project.principal())
    folder = make(tmp_path / "all", rows)
    with load(folder) as project:
        who = project.principal()
        found = train(project, principal=who)
        record = find_record(project, found.model)
        final, split = record.fitted.final, record.fitted.split
        assert (final.rows, split.train, final.learned_to) == (1500, 1200, rows["at"][-1])
        assert found.model.tags[LEARNED_TO] == final.learned_to.isoformat()
        shown = show_model(project, "kept/1", principal=who)
        assert (shown.learned.rows, shown.learned.tested, shown.learned.to) == (1500, 1200, final.learned_to)
        assert (
            learned_text(shown.learned)
            == "all 1,500 rows; the figures are of its configuration fitted on 1,200 of them"
        )
        assert found.evaluation.metrics == alone.evaluation.metrics
        assert any("not of this model" in note for note in found.notes)
        served, measured = (load_model(project, ref) for ref in (final.model, record.fitted.model))
        assert (served.calibration, served.threshold) == (measured.calibration, measured.threshold)
        test = rows[1200:].select("x", "y", "z")
        truth = rows["bought"][1200:].to_numpy()
        by_heart, honest = (np.mean((one.predict_frame(test) - truth) ** 2) for one in (served, measured))
        assert by_heart < 0.75 * honest
        with open_servable(project, found.model) as folder:
            scorer = Scorer(folder)
        assert np.abs(scorer.score(test.to_dict(as_series=False)) - served.predict_frame(test)).max() < 1e-9
        # What monitoring and review learn of errors is of scores of rows that the model did not know.
        with served_reference(project, principal=who) as served_rows:
            known = pl.read_parquet(served_rows.path).drop_nulls("bought")
        errors = known["answer.probability"].to_numpy() - (known["bought"].cast(pl.String) == "true").to_numpy()
        assert np.mean(errors**2) == pytest.approx(found.evaluation.metrics["brier"].value)
        with open_run(project, "review", principal=who, progress=silent) as context:
            reviewed, _ = reference_of(context, found.model)
        assert np.allclose(np.sort(reviewed.calibration[:, 1]), np.sort(measured.predict_frame(test)))
        again = train(project, principal=who)
        assert {"search", "evaluate", "package", "register"} <= set(again.reused)
        assert reproduce(project, "kept/1", principal=who).identical


@pytest.mark.slow
def test_a_later_gate_compares_what_was_tested_on_rows_that_neither_learned_from(tmp_path):
    folder = make(tmp_path / "shop", visits(1500))
    with load(folder) as project:
        who = project.principal()
        first = train(project, principal=who)
        again = evaluate(project, "kept/1", principal=who).judgement
        assert {name: one.value for name, one in again.evaluation.metrics.items()} == pytest.approx(
            {name: one.value for name, one in first.evaluation.metrics.items()}
        )
        assert any("fitted without them" in note for note in again.notes)
        assert again.tested
        visits(1520).write_csv(folder / "visits.csv")
        later = train(project, principal=who)
        assert any("compared as fitted without their test rows" in note for note in later.notes)
        # Equal models: with the rows that the served champion knows by heart the candidate would be far worse.
        words = {rule.word for rule in later.verdict.rules if rule.against == "champion"}
        assert words <= {"cannot_tell", "not_worse", "better"}
        assert later.champion_uri == "models:/kept/1"
        quick = train(project, principal=who, quick=True)
        assert any("compared as fitted without their test rows" in note for note in quick.notes)
        assert any("does not fit a second time" in note for note in quick.notes)
        record, served = find_record(project, first.model), find_record(project, later.model)
        tested = load_model(project, record.fitted.model)
        rows = visits(1520)[1216:]
        assert len(rows) == served.fitted.split.test
        loss = np.mean((tested.predict_frame(rows.select("x", "y", "z")) - rows["bought"].to_numpy()) ** 2)
        assert served.judgement.champion.metrics["brier"].value == pytest.approx(loss)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A project whose champion was fitted on all of 1,500 rows; 20 rows came since."""
    folder = make(tmp_path_factory.mktemp("all") / "shop", visits(1500))
    with load(folder) as project:
        train(project, principal=project.principal())
    visits(1520).write_csv(folder / "visits.csv")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("change", ["final_fit: train", "test: 10%"])
def test_a_tested_model_does_not_stand_for_a_champion_that_knows_newer_rows_than_the_candidate_gains(shop, change):
    """A candidate that is served as tested, or whose test is half as long: it would not be as fresh when served."""
    file = shop / "cumulant.yaml"
    text = file.read_text()
    file.write_text(text.replace("final_fit: all" if "fit" in change else "test: 20%", change))
    try:
        with load(shop) as project:
            found = train(project, principal=project.principal(), promote=False)
            assert not found.verdict.passed
            assert "models:/kept/1 learned from all but 20 of the" in found.verdict.text
            if "fit" in change:  # nor does a quick look say that a whole training would compare it
                quick = train(project, principal=project.principal(), quick=True)
                assert not any("compared as fitted" in note or "second time" in note for note in quick.notes)
                fitted = find_record(project, quick.model).fitted
                summary = msgspec.structs.replace(fitted.summary, rows=5000)  # as of a share of many rows
                assert msgspec.structs.replace(fitted, summary=summary).rows == 5000
    finally:
        file.write_text(text)


@pytest.mark.slow
def test_a_champion_whose_tested_model_is_damaged_or_gone_is_compared_as_it_is_served(shop):
    with load(shop) as project:
        who = project.principal()
        version = project.registry().resolve("kept/1")
        key = find_record(project, version).fitted.model.key
        # A booster cut to half ends the process that reads it.
        with project.objects().open(key) as stored:
            file = stored / "booster-0.txt"
        whole = file.read_bytes()
        file.chmod(0o644)
        file.write_bytes(whole[: len(whole) // 2])
        assert learned_by_heart(train(project, principal=who, promote=False), f"{key} is damaged")
        with pytest.raises(IntegrityError, match=f"the stored model {key} is damaged"):
            held_out_scores(project, version, find_record(project, version), None)
        project.objects().delete(key)
        assert learned_by_heart(train(project, principal=who, promote=False, trials=2), f"{key} is gone")


def learned_by_heart(found: TrainResult, note: str) -> bool:
    """Whether the champion was compared as it is served, and a note says why."""
    served = "models:/kept/1 learned from all but 20 of the 304 test rows" in found.verdict.text
    return served and any(note in one for one in found.notes)


@pytest.mark.slow
def test_rows_without_times_are_learned_too_and_the_gate_compares_what_was_tested(tmp_path):
    rows = visits(1600).drop("at")
    folder = make(tmp_path / "shop", rows[:1500], timed=False)
    with load(folder) as project:
        who = project.principal()
        plan(project, principal=who)
        first = train(project, principal=who)
        record = find_record(project, first.model)
        assert (record.fitted.final.rows, record.fitted.final.learned_to) == (1500, None)
        assert LEARNED_TO not in first.model.tags
        assert any("learned from all 1,500 rows" in note for note in first.notes)
        rows.write_csv(folder / "visits.csv")
        later = train(project, principal=who)
        words = {rule.word for rule in later.verdict.rules if rule.against == "champion"}
        assert words
        assert words <= {"cannot_tell", "not_worse", "better"}
        champion = find_record(project, later.model).judgement.champion
        assert champion.rows == find_record(project, later.model).fitted.split.test
        again = evaluate(project, "kept/1", principal=who).judgement
        assert any("fitted without them" in note for note in again.notes)
