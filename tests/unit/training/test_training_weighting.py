"""Weights by age, and one fit with fixed parameters."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.errors import DataError, UsageError
from cumulant.training.dataset import training_set
from cumulant.training.policy import TrainingPolicy
from cumulant.training.search.fixed_fit import fit_once
from cumulant.training.weighting import aged, weighted

DAY = 86_400_000_000
SPEC = TrainingPolicy(target="y", half_life=timedelta(days=10))


def rows(n=2000, *, flip_at=1000, timed=True):
    """`y` follows `x`, and from `flip_at` on the other way round: an old and a new truth."""
    generator = np.random.default_rng(3)
    x = generator.normal(size=n)
    new = np.arange(n) >= flip_at
    y = generator.random(n) < np.where((x > 0) != new, 0.9, 0.1)
    at = pl.Series(np.arange(n) * DAY // 20).cast(pl.Datetime("us")) if timed else None
    return training_set(pl.DataFrame({"x": x}), pl.Series("y", y), spec=SPEC, at=at)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=50), st.integers(1, 90))
def test_a_row_older_by_the_half_life_weighs_half(days, half):
    at = np.array(days, dtype=np.int64) * DAY
    weight = aged(at, timedelta(days=half))
    assert weight.mean() == pytest.approx(1)
    for place, day in enumerate(days):
        assert weight[place] / weight[np.argmax(at)] == pytest.approx(0.5 ** ((max(days) - day) / half))


def test_weights_multiply_those_that_rows_have():
    plain = rows()
    assert weighted(plain, TrainingPolicy(target="y")) is plain
    own = replace(plain, weight=np.where(np.arange(len(plain)) % 2 == 0, 3.0, 1.0))
    assert plain.at is not None
    np.testing.assert_allclose(weighted(own, SPEC).weight, aged(plain.at, timedelta(days=10)) * own.weight)


def test_a_half_life_needs_moments_and_a_length():
    with pytest.raises(DataError, match="needs the moment of each row"):
        weighted(rows(timed=False), SPEC)
    with pytest.raises(UsageError, match="weighs nothing"):
        aged(np.zeros(3, dtype=np.int64), timedelta(0))


@pytest.mark.parametrize(("trainer", "params"), [("linear", {}), ("lightgbm", {"rounds": 30, "num_leaves": 4})])
def test_newer_rows_weigh_more_in_a_fit(trainer, params):
    held = rows()
    ask = pl.DataFrame({"x": [-2.0, 2.0]})
    alike = fit_once(held, SPEC, trainer, params).predict_frame(ask)
    newer = fit_once(weighted(held, SPEC), SPEC, trainer, params).predict_frame(ask)
    assert np.abs(alike - 0.5).max() < 0.15  # half the rows say one thing, half the other
    assert newer[0] > 0.75
    assert newer[1] < 0.25


def test_a_fit_is_that_of_the_trainer_on_all_rows():
    """LightGBM by hand, with the settings that stand in the documents."""
    import lightgbm

    held = rows(flip_at=2000)
    model = fit_once(held, SPEC, "lightgbm", {"rounds": 20, "num_leaves": 7})
    assert (model.trainer, model.inputs[0].feature, model.threshold) == ("lightgbm", "x", None)
    x = held.features.to_numpy().astype(np.float32)
    fixed = {
        "objective": "binary",
        "num_leaves": 7,
        "learning_rate": 0.1,
        "lambda_l2": 1e-3,
        "feature_pre_filter": False,
    }
    fixed |= {"deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1, "seed": 0}
    by_hand = lightgbm.train(fixed, lightgbm.Dataset(x, held.target, params=fixed), 20)
    np.testing.assert_allclose(model.predict_frame(held.features), by_hand.predict(x), rtol=1e-9)


def test_rows_of_one_class_give_the_constant_answer():
    held = rows()
    alone = held.take(held.target == 1)
    for trainer in ("linear", "lightgbm"):
        model = fit_once(alone, SPEC, trainer, {})
        assert model.kind == "naive"
        assert set(model.predict_frame(held.features)) == {1.0}


def test_a_trainer_that_is_not_there_is_told():
    with pytest.raises(UsageError, match='no trainer "lightgmb"'):
        fit_once(rows(), SPEC, "lightgmb", {})
