"""A blend of all trainers of boosted trees and a linear model: means of the target, its time, and its parameters."""

from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import onnx
import polars as pl
import pytest

from cumulant.core.plan import FeaturePlan, FeatureSpec, Field
from cumulant.core.progress import silent
from cumulant.packaging.builder import build
from cumulant.servable.scorer import Scorer
from cumulant.training.dataset import training_set
from cumulant.training.model import FittedModel
from cumulant.training.payloads.encoding import MOST_CATEGORIES
from cumulant.training.policy import TrainingPolicy
from cumulant.training.records import TrainingSummary
from cumulant.training.search.budget import SearchBudget, longest
from cumulant.training.search.choices import ModelChoice
from cumulant.training.search.cross_validation import prepare_folds
from cumulant.training.search.final_fit import fit_all
from cumulant.training.search.final_model import Finisher
from cumulant.training.search.refit import combined, refit, trials_of
from cumulant.training.search.search import _Study, search
from cumulant.training.search.search_metric import searched_metric
from cumulant.training.trainers.trainer_lookup import make_trainer

pytestmark = pytest.mark.slow

TRAINERS = ["linear", "lightgbm", "xgboost", "catboost"]
TOWNS = MOST_CATEGORIES + 50


def rows_of_towns(rows=3000):
    """A line, a step that no line follows, and a value of each of many towns."""
    generator = np.random.default_rng(0)
    x, town = generator.normal(size=(rows, 6)), generator.integers(0, TOWNS, rows)
    value = x[:, :5] @ [1.0, 0.8, 0.6, 0.5, 0.4] + 1.1 * (x[:, 5] * x[:, 0] > 0.3)
    value += 0.8 * np.random.default_rng(99).normal(size=TOWNS)[town]
    names = [f"t{code}" for code in town]
    frame = pl.DataFrame({**{f"x{place}": x[:, place] for place in range(6)}, "town": names})
    target = pl.Series("amount", value + 0.7 * generator.normal(size=rows))
    return training_set(frame, target, spec=TrainingPolicy(target="amount"))


def spec_of(**options):
    parameters = {
        "lightgbm": {"learning_rate": 0.05, "num_leaves": 7, "bagging_fraction": 0.5},
        "xgboost": {"learning_rate": 0.1, "max_depth": 4, "subsample": 0.5},
        "catboost": {"learning_rate": 0.8, "depth": 6},
    }
    fixed = {"trainers": TRAINERS, "trials": 1, "ensemble": 2, "folds": 3, "time": None, "threads": 1}
    return TrainingPolicy(target="amount", parameters=parameters, **fixed | options)


@pytest.fixture(scope="module")
def blended():
    for name in ("xgboost", "catboost"):
        pytest.importorskip(name)
    rows, spec = rows_of_towns(), spec_of()
    return rows, spec, search(rows, spec)


def files_of(model, folder):
    return {path.name: path.read_bytes() for path in model.to_folder(folder).iterdir()}


def test_the_whole_blend_is_widened_and_answers_as_served(blended, tmp_path):
    rows, _, found = blended
    assert {one.trainer for one in found.summary.parts} == set(TRAINERS)
    assert found.best.kind == "widened"
    widening, inner = found.best.widened()
    assert (inner.kind, len(widening.tables)) == ("blend", 1)
    assert {member.kind for _, member in inner.members()} == set(TRAINERS)
    assert set(found.best.importance) <= set(rows.features.columns)
    assert found.best.importance["town"] > 0.05
    assert sum(found.best.importance.values()) == pytest.approx(1)
    fields = [FeatureSpec(name, "str" if name == "town" else "float") for name in rows.features.columns]
    plan = FeaturePlan("rows", None, {}, tuple(fields), tuple(Field(one.name, one.dtype) for one in fields))
    made = build(found.best, plan, name="m", sample=rows.features, out=tmp_path / "m", lineage={}, example={})
    assert made.parity.max_difference < 1e-6
    graph = onnx.load(tmp_path / "m" / made.model)
    assert sorted(one.domain for one in graph.opset_import) == ["", "ai.onnx.ml"]
    unseen = rows.features.head(4).with_columns(
        town=pl.Series(["nowhere", None, "t1", "t2"]), x0=pl.Series([None, 1.0, 1e30, -1e30])
    )
    answers = Scorer(tmp_path / "m").score(unseen.to_dict(as_series=False))
    np.testing.assert_allclose(answers, found.best.predict_frame(unseen), rtol=1e-6, atol=1e-6)


def test_it_is_read_back_and_repeated_byte_for_byte(blended, tmp_path):
    rows, spec, found = blended
    files = files_of(found.best, tmp_path / "a")
    read = FittedModel.from_folder(tmp_path / "a")
    assert np.array_equal(read.predict_frame(rows.features), found.best.predict_frame(rows.features))
    summary = msgspec.json.decode(msgspec.json.encode(found.summary), type=TrainingSummary)
    assert [len(one.boosters) for one in summary.parts if one.trainer in ("xgboost", "lightgbm")] == [2, 2]
    assert files_of(refit(rows, spec, summary, found.trials), tmp_path / "b") == files
    assert files_of(fit_all(found.best, rows, spec, summary, found.trials), tmp_path / "c") == files


def test_the_first_members_leave_time_for_the_later_ones(blended):
    rows, spec, found = blended
    spec = msgspec.structs.replace(spec, ensemble=3)
    names = ["xgboost", "lightgbm"]
    folds, matrix, _ = prepare_folds(rows, spec, searched_metric(spec, rows))
    parts = {one.trainer: one for one in found.summary.parts}
    kept = msgspec.structs.replace(found.summary.blend, members=tuple(parts[name] for name in names))
    choices = [choice_of(parts[name], found.trials) for name in names]
    blend = combined(choices, msgspec.structs.replace(found.summary, blend=kept))
    # A fit takes 10 s by the search, and there are 15 s: one of each trainer, and those of the last have what is left.
    fits = {one.name: [(len(rows), round(np.mean(one.members[0].rounds)), 10.0)] for one in choices}
    finisher = Finisher(rows, matrix, folds, spec=spec, budget=SearchBudget(15, clock=lambda: 0.0), fits=fits)
    finisher.fit(blend, {})
    assert [len(finisher.boosters[name]) for name in names] == [1, 3]
    assert "the time was over after 1 of the 3 boosters" in finisher.notes[-1]


def choice_of(part, trials):
    members = trials_of(part.chosen, part.boosters, trials)
    return ModelChoice(
        trainer=make_trainer(part.trainer, Path()), members=members, answers=np.zeros(3000), score=part.score
    )


def test_time_is_kept_for_all_that_a_blend_may_hold(tmp_path):
    rows = rows_of_towns(800)
    spec = spec_of(trainers=["linear", "lightgbm", "sklearn:Ridge"], time=timedelta(hours=1), ensemble=1)
    study = _Study(rows, spec, root=Path(), folder=tmp_path, champion=None, progress=silent, on_trial=None)
    with study.journal:
        study.run()
    seconds = {name: study._final_seconds(name) for name in study.trainers}
    assert min(seconds["linear"], seconds["lightgbm"]) > 0
    for blend, parts in [("auto", ["linear", "lightgbm"]), ("off", [])]:
        study.spec = msgspec.structs.replace(spec, blend=blend)
        study._reserve()
        assert study.budget.reserved == longest(seconds, parts)
    assert longest({"linear": 1.0, "lightgbm": 5.0, "own.py:fit": 5.5}, ["linear", "lightgbm"]) == 6.0
    assert longest({"linear": 1.0, "lightgbm": 5.0, "own.py:fit": 5.5}, []) == 5.5


def test_its_parameters_are_those_of_the_heaviest_searched_member(blended):
    _, _, found = blended
    summary = found.summary
    assert summary.parts[0].trainer == "linear"
    assert summary.heaviest == next(one.trainer for one in summary.parts if one.trainer != "linear")
    assert summary.params_of(summary.heaviest)
