"""Normal scores of numbers, and perceptrons as a part of one ONNX graph."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.servable import Calibration, Input
from cumulant.packaging.builder import to_onnx
from cumulant.training.model import FittedModel, ModelCard
from cumulant.training.payloads.perceptron import NormalScores
from cumulant.training.trainers.trainer import Problem, TrainingSample
from cumulant.training.trainers.trainer_lookup import make_trainer

numbers = st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf])


def scored(values, asked):
    rows = [np.array(one, dtype=np.float32).reshape(-1, 1) for one in (values, asked)]
    return NormalScores.of(rows[0], columns=[0], categories=[]).apply(rows[1])[:, 0]


def by_hand(values, value):
    """Of at most 100 distinct values: the middle of the ranks of equal ones, a line between two neighbours."""
    known = sorted(float(np.float32(one)) for one in values if math.isfinite(one))
    if not known:
        return 0.0

    def score(at):
        below, upto = sum(one < at for one in known), sum(one <= at for one in known)
        return NormalDist().inv_cdf((below + upto) / 2 / len(known))

    lower = max((one for one in known if one <= value), default=known[0])
    upper = min((one for one in known if one >= value), default=known[-1])
    if lower >= upper:
        return score(lower if value >= known[0] else upper)
    share = (value - lower) / (upper - lower)
    return score(lower) + share * (score(upper) - score(lower))


@given(st.lists(numbers, min_size=1, max_size=60), st.lists(numbers, min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_normal_scores_are_those_of_ranks(values, asked):
    for value, score in zip(asked, scored(values, asked), strict=True):
        if math.isnan(value):
            assert math.isnan(score)
        else:
            assert score == pytest.approx(by_hand(values, float(np.float32(value))), rel=1e-9, abs=1e-9)


def test_scores_of_many_values_are_nearly_normal():
    scores = scored(np.exp(np.random.default_rng(0).normal(size=20_000)), np.exp([-1.0, 0.0, 0.5, 1.5]))
    np.testing.assert_allclose(scores, [-1.0, 0.0, 0.5, 1.5], atol=0.05)


def fitted(task, kinds, *, members=2, seed=0):
    """A perceptron of random rows: number, flag or category by `kinds`."""
    generator = np.random.default_rng(seed)
    matrix = generator.lognormal(size=(300, len(kinds))).astype(np.float32)
    for place, kind in enumerate(kinds):
        if kind != "number":
            matrix[:, place] = generator.integers(0, 4 if kind == "category" else 2, 300)
    matrix[generator.random(matrix.shape) < 0.1] = np.nan
    inputs = tuple(
        Input(f"f{place}", kind, categories=tuple("abcd") if kind == "category" else ())
        for place, kind in enumerate(kinds)
    )
    classes = {"binary": ("false", "true"), "multiclass": ("a", "b", "c"), "regression": ()}[task]
    target = generator.normal(size=300) * 50 if task == "regression" else generator.integers(0, len(classes), 300) + 0.0
    problem = Problem(task=task, classes=classes, inputs=inputs, metric="log_loss")
    trainer, rows = make_trainer("mlp", Path()), TrainingSample(matrix=matrix, target=target)
    payloads = [trainer.fit(problem, {"rounds": 3, "layers": 1 + place}, rows).payload for place in range(members)]
    payload = type(payloads[0])(tuple(text for one in payloads for text in one.texts))  # type: ignore[attr-defined, call-arg]
    card = ModelCard(
        kind="mlp", trainer="mlp", task=task, classes=classes, inputs=inputs, calibration=Calibration(), params={}
    )
    return FittedModel(card, payload), matrix


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("kinds", [["number"], ["category"], ["number", "category", "flag", "category", "number"]])
def test_the_graph_answers_as_the_perceptrons(task, kinds):
    model, matrix = fitted(task, kinds)
    session = onnxruntime.InferenceSession(to_onnx(model).SerializeToString())
    hostile = np.tile(matrix[:1], (4, 1))
    for place, kind in enumerate(kinds):
        if kind != "category":
            hostile[:, place] = [np.inf, -np.inf, 3e38, np.nan]
    rows = np.concatenate([matrix, hostile])
    answers = session.run(None, {"input": rows})[0]
    np.testing.assert_allclose(answers.squeeze(), model.predict(rows), rtol=1e-12, atol=1e-12)
    alone = np.concatenate([session.run(None, {"input": rows[place : place + 1]})[0] for place in range(len(rows))])
    np.testing.assert_array_equal(alone, answers)


def test_a_constant_feature_has_no_importance():
    model, matrix = fitted("binary", ["number", "number", "category"])
    matrix[:, 1] = 7.0
    problem = Problem(task="binary", classes=model.classes, inputs=model.inputs, metric="log_loss")
    trainer, target = make_trainer("mlp", Path()), (matrix[:, 0] > 1).astype(float)
    fit = trainer.fit(problem, {"rounds": 30}, TrainingSample(matrix=matrix, target=target))
    importance = trainer.importance(problem, fit.payload)
    assert next(iter(importance)) == "f0"
    assert "f1" not in importance
