"""`training.final_fit: all`: the served model knows the test rows, and nothing that measures it takes them for unseen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import RefusedError, UsageError
from cumulant.core.progress import silent
from cumulant.packaging import Scorer
from cumulant.project import load
from cumulant.runtime.candidate import LEARNED_TO, find_record
from cumulant.runtime.context import open_run
from cumulant.runtime.evaluate import evaluate
from cumulant.runtime.lineage import reproduce
from cumulant.runtime.models import servable_folder
from cumulant.runtime.planning import plan
from cumulant.runtime.review.reference import reference_of
from cumulant.runtime.train import train
from cumulant.runtime.watching.reference import served_reference
from cumulant.training import FittedModel

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
        assert found.evaluation.metrics == alone.evaluation.metrics
        assert any("not of this model" in note for note in found.notes)
        served, measured = (
            FittedModel.from_folder(project.objects().path(ref.key)) for ref in (final.model, record.fitted.model)
        )
        assert (served.calibration, served.threshold) == (measured.calibration, measured.threshold)
        test = rows[1200:].select("x", "y", "z")
        truth = rows["bought"][1200:].to_numpy()
        by_heart, honest = (np.mean((one.predict_frame(test) - truth) ** 2) for one in (served, measured))
        assert by_heart < 0.75 * honest
        scorer = Scorer(servable_folder(project, found.model))
        assert np.abs(scorer.score(test.to_dict(as_series=False)) - served.predict_frame(test)).max() < 1e-9
        # What monitoring and review learn of errors is of scores of rows that the model did not know.
        known = pl.read_parquet(served_reference(project, principal=who).path).drop_nulls("bought")
        errors = known["answer.probability"].to_numpy() - (known["bought"].cast(pl.String) == "true").to_numpy()
        assert np.mean(errors**2) == pytest.approx(found.evaluation.metrics["brier"].value)
        with open_run(project, "review", action="model.evaluate", principal=who, progress=silent) as context:
            reviewed, _ = reference_of(context, found.model)
        assert np.allclose(np.sort(reviewed.calibration[:, 1]), np.sort(measured.predict_frame(test)))
        again = train(project, principal=who)
        assert {"search", "evaluate", "package", "register"} <= set(again.reused)
        assert reproduce(project, "kept/1", principal=who).identical


@pytest.mark.slow
def test_a_later_gate_compares_on_rows_that_the_champion_did_not_learn_from(tmp_path):
    folder = make(tmp_path / "shop", visits(1500))
    with load(folder) as project:
        who = project.principal()
        train(project, principal=who)
        with pytest.raises(RefusedError, match="learned from all but 0 of the 300 test rows"):
            evaluate(project, "kept/1", principal=who)
        visits(1520).write_csv(folder / "visits.csv")
        early = train(project, principal=who)
        assert not early.verdict.passed
        assert "learned from all but 20 of the 304 test rows" in early.verdict.text
        visits(1700).write_csv(folder / "visits.csv")
        later = train(project, principal=who)
        assert any("on the 200 test rows that it did not learn from" in note for note in later.notes)
        # Equal models: with the rows that the champion knows by heart the candidate would be far worse.
        assert {rule.word for rule in later.verdict.rules if rule.against == "champion"} <= {"cannot_tell", "not_worse"}


def test_rows_without_times_are_refused_before_anything_is_trained(tmp_path):
    with load(make(tmp_path / "shop", visits(300).drop("at"), timed=False)) as project:
        for call in (plan, train):
            with pytest.raises(UsageError, match="no later gate could tell") as refused:
                call(project, principal=project.principal())
            assert "final_fit: train" in refused.value.hint
