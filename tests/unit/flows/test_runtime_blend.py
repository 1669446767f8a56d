"""A blend of several engines from training to reproduction, and what the next search and the backtest take of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from cumulant.flows.monitoring.backtest.replayed_training import learner_of
from cumulant.flows.registry.lineage import reproduce
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.registry.version_servable import open_servable
from cumulant.flows.training.evaluation import champion_parameters
from cumulant.flows.training.search_step import load_model
from cumulant.flows.training.train import train
from cumulant.ports.registry import ModelVersion
from cumulant.project.file.loading import load
from cumulant.servable.scorer import Scorer

PROJECT = """\
version: 1
model: {name: towns}
data:
  visits: {path: visits.csv, key: visit, event_time: at}
features: features.py
training:
  target: amount
  final_fit: all
  trainers: [linear, lightgbm, xgboost]
  parameters:
    lightgbm: {num_leaves: 7, learning_rate: 0.1}
    xgboost: {max_depth: 4, learning_rate: 0.1, subsample: 0.5}
  trials: 1
  time: null
  folds: 2
  ensemble: 1
  threads: 1
evaluation: {test: 20%}
"""
FEATURES = """\
from cumulant.features import source

row = source("visits").columns("x0", "x1", "x2", "x3", "x4", "x5", "town")
"""
START = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = ["x0", "x1", "x2", "x3", "x4", "x5", "town"]


def visits(count: int = 4000, towns: int = 500) -> pl.DataFrame:
    """A line, a step that no line follows, and a value of each of many towns."""
    rng = np.random.default_rng(7)
    x, town = rng.normal(size=(count, 6)).round(6), rng.integers(0, towns, count)
    value = x[:, :5] @ [1.0, 0.8, 0.6, 0.5, 0.4] + 1.1 * (x[:, 5] * x[:, 0] > 0.3)
    value += 0.8 * rng.normal(size=towns)[town] + 0.7 * rng.normal(size=count)
    return pl.DataFrame(
        {
            "visit": np.arange(count),
            "at": [START + timedelta(minutes=30 * place) for place in range(count)],
            **{f"x{place}": x[:, place] for place in range(6)},
            "town": [f"t{code}" for code in town],
            "amount": value,
        }
    )


@pytest.mark.slow
def test_a_blend_of_engines_is_served_described_and_reproduced(tmp_path):
    pytest.importorskip("xgboost")
    rows = visits()
    rows.write_csv(tmp_path / "visits.csv")
    (tmp_path / "cumulant.yaml").write_text(PROJECT)
    (tmp_path / "features.py").write_text(FEATURES)
    with load(tmp_path) as project:
        who = project.principal()
        found = train(project, principal=who)
        record = find_record(project, found.model)
        summary, tags = record.fitted.summary, found.model.tags
        assert {one.trainer for one in summary.parts} == {"linear", "lightgbm", "xgboost"}
        assert tags["cumulant.blend"].startswith(f"{summary.parts[0].trainer} {summary.parts[0].weight:.2f}, ")
        heaviest = next(one for one in summary.parts if one.trainer != "linear")
        assert tags["cumulant.parameters_of"] == heaviest.trainer
        assert json.loads(tags["cumulant.parameters"]) == heaviest.params
        learner = learner_of(record.training, record, found.model.uri)
        assert learner.trainer == summary.parts[0].trainer
        assert ("rounds" in learner.params) == (learner.trainer != "linear")
        served = load_model(project, record.fitted.final.model)
        assert served.widened()[1].kind == "blend"
        sample = rows.select(COLUMNS).head(200)
        with open_servable(project, found.model) as folder:
            answers = Scorer(folder).score(sample.to_dict(as_series=False))
        assert np.abs(answers - served.predict_frame(sample)).max() < 1e-6
        assert reproduce(project, "towns/1", principal=who).identical


def version(**tags: str) -> ModelVersion:
    return ModelVersion(
        name="towns",
        version="1",
        uri="towns/1",
        run_id=None,
        created=START,
        tags={f"cumulant.{name}": value for name, value in tags.items()},
    )


def test_the_next_search_starts_with_parameters_of_lightgbm_only():
    text = '{"num_leaves": 7}'
    assert champion_parameters(None) is None
    assert champion_parameters(version(trainer="xgboost", parameters=text)) is None
    assert champion_parameters(version(trainer="lightgbm", parameters=text)) == {"num_leaves": 7}
    blend = {"trainer": "blend", "parameters": text}
    assert champion_parameters(version(**blend, parameters_of="lightgbm")) == {"num_leaves": 7}
    assert champion_parameters(version(**blend, parameters_of="xgboost")) is None
