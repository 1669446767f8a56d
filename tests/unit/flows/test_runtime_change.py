"""A training that answers a change learns from rows since then, or it would be tested on what it was never told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from cumulant.core.events import Actor
from cumulant.flows.monitoring.retraining import continue_retraining
from cumulant.flows.monitoring.state import TRAINING, RetrainRequest, write
from cumulant.flows.registry.lineage import reproduce
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.training.train import train
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.training.dataset import TrainingSet
from cumulant.training.policy import EvaluationPolicy
from cumulant.training.splits import split

WHO = Principal("user:ada")
START, DAY = datetime(2024, 1, 1, tzinfo=UTC), 86_400_000_000
BEFORE, FLIP = START + timedelta(days=150), START + timedelta(days=160)

PROJECT = """\
version: 1
model: {name: late}
data:
  calls: {path: calls.csv, key: call, event_time: at}
features: features.py
training: {target: bought, trainers: [linear], time: null, folds: 2}
"""
FEATURES = """\
from cumulant.features import source

row = source("calls").columns("x", "y")
"""


def calls() -> pl.DataFrame:
    """Twenty a day for 190 days; from FLIP on those buy who would not have."""
    rng = np.random.default_rng(1)
    days = np.repeat(np.arange(190), 20)
    minutes = days * 1440 + rng.integers(0, 1440, 3800)
    at = [START + timedelta(minutes=int(minute)) for minute in minutes]
    x, y = rng.normal(size=(2, 3800)).round(4)
    bought = rng.random(3800) < 1 / (1 + np.exp(-2 * x - y))
    return pl.DataFrame({"call": np.arange(3800), "at": at, "x": x, "y": y}).with_columns(
        bought=pl.Series(bought) ^ (pl.col("at") >= FLIP)
    )


@pytest.mark.slow
def test_after_a_flip_a_model_of_the_new_rows_takes_over(tmp_path):
    calls().write_csv(tmp_path / "calls.csv")
    (tmp_path / "cumulant.yaml").write_text(PROJECT)
    (tmp_path / "features.py").write_text(FEATURES)
    with load(tmp_path) as project:
        assert train(project, principal=WHO, as_of=BEFORE).promoted
        wanted = RetrainRequest(requested=FLIP, champion="1", trigger="harm", sentence="It is worse.", since=FLIP)
        with project.journal().transaction(actor=Actor("user:ada")) as transaction:
            write(transaction, TRAINING, "late", wanted, expect=0)
        found = continue_retraining(project, principal=WHO)
        # The declared test lies after all rows of the new rule that could be learned: that model is refused.
        assert (found.stage, found.candidate) == ("released", "late/3"), found.message
        champion = project.registry().resolve("late@champion")
        assert champion.version == "3"
        record = find_record(project, champion)
        assert (record.change, record.fitted.split.train_from) >= (FLIP, FLIP)
        assert record.judgement.verdict.word == "better"
        assert reproduce(project, "late/3", principal=WHO).identical


def test_half_of_the_time_since_a_change_is_trained_on():
    rows = TrainingSet(
        features=pl.DataFrame({"x": np.zeros(10_000)}),
        target=(np.arange(10_000) % 2).astype(float),
        task="binary",
        classes=("0", "1"),
        at=np.arange(10_000) * DAY // 100,
        known=np.arange(10_000) * DAY // 100 + 2 * DAY,
        rows=np.arange(10_000),
    )
    declared = split(rows, EvaluationPolicy(test=timedelta(days=30)))
    changed = split(rows, EvaluationPolicy(test=timedelta(days=30)), change=80 * DAY)
    assert declared.cutoff // DAY == 69
    # Of 20 days, 2 pass until labels are known.
    assert (changed.cutoff // DAY, changed.train.at.max() // DAY) == (90, 88)
    assert "at most half of those since the change" in changed.how
    # What the project declares is shorter already, or too few rows would be left.
    assert split(rows, EvaluationPolicy(test=timedelta(days=5)), change=80 * DAY).cutoff // DAY == 94
    assert split(rows, EvaluationPolicy(test=timedelta(days=30)), change=99 * DAY).cutoff // DAY == 69


def test_a_share_of_few_days_is_made_longer_for_an_interval():
    rows = TrainingSet(
        features=pl.DataFrame({"x": np.zeros(4_000)}),
        target=(np.arange(4_000) % 2).astype(float),
        task="binary",
        classes=("0", "1"),
        at=np.arange(4_000) * DAY // 100,
        rows=np.arange(4_000),
    )
    assert split(rows, EvaluationPolicy(test=0.1)).cutoff // DAY == 36
    assert split(rows, EvaluationPolicy(test=0.1), change=5 * DAY).cutoff // DAY == 25
    assert split(rows, EvaluationPolicy(test=0.1), change=20 * DAY).cutoff // DAY == 29
    assert split(rows, EvaluationPolicy(test=timedelta(days=4)), change=5 * DAY).cutoff // DAY == 35
