"""Reliability curves: the fit against the min-max formula, the band against exact quantiles and by coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from cumulant.statistics.performance.reliability import reliability_curve


def min_max_fit(predicted, happened):
    """Isotonic regression by its definition: max over begins of the min over ends of means (Barlow et al. 1972)."""
    values = np.unique(predicted)
    return values, np.array(
        [
            max(
                min(happened[(predicted >= low) & (predicted <= high)].mean() for high in values[values >= value])
                for low in values[values <= value]
            )
            for value in values
        ]
    )


ROWS = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=40)


@given(ROWS)
@settings(max_examples=100, deadline=None)
def test_the_fit_is_that_of_the_min_max_formula(rows):
    predicted = np.array([score / 20 for score, _ in rows])
    happened = np.array([float(hit) for _, hit in rows])
    curve = reliability_curve(predicted, happened, resamples=5)
    values, fitted = min_max_fit(predicted, happened)
    places = np.searchsorted(values, curve.predicted)
    assert np.array_equal(values[places], curve.predicted)
    assert {0, len(values) - 1} <= set(places)
    assert np.allclose(curve.observed, fitted[places])
    # What is not drawn lies on the line between its neighbours, or not at all: no corner of few is left out.
    assert np.allclose(np.interp(values, curve.predicted, curve.observed), fitted)


@given(ROWS, st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_the_band_rises_and_depends_on_predictions_alone(rows, seed):
    predicted = np.array([score / 20 for score, _ in rows])
    happened = np.array([float(hit) for _, hit in rows])
    band, other = (reliability_curve(predicted, truth, resamples=20, seed=seed) for truth in (happened, 1 - happened))
    assert (band.low <= band.high).all()
    assert (np.diff(band.low) >= 0).all()
    assert (np.diff(band.high) >= 0).all()
    at = np.intersect1d(band.predicted, other.predicted)
    for name in ("low", "high"):
        first, second = (np.interp(at, each.predicted, getattr(each, name)) for each in (band, other))
        assert np.allclose(first, second)


@pytest.mark.parametrize(("rows", "chance"), [(40, 0.5), (200, 0.1), (30, 0.0)])
def test_of_one_prediction_the_band_has_the_quantiles_of_the_binomial(rows, chance):
    curve = reliability_curve(np.full(rows, chance), np.zeros(rows), resamples=20_000)
    exact = binom.ppf([0.025, 0.975], rows, chance) / rows
    assert np.abs([curve.low[0] - exact[0], curve.high[0] - exact[1]]).max() <= 1.01 / rows


def test_a_calibrated_model_is_inside_its_band_as_often_as_it_says():
    generator, inside = np.random.default_rng(7), []
    for number in range(120):
        predicted = generator.beta(2, 3, 400)
        happened = (generator.uniform(size=400) < predicted).astype(float)
        curve = reliability_curve(predicted, happened, resamples=120, seed=number)
        middle = np.searchsorted(curve.predicted, 0.4)
        inside.append(curve.low[middle] <= curve.observed[middle] <= curve.high[middle])
    assert 0.88 <= np.mean(inside) <= 0.99  # of 0.95, with 120 draws


def test_an_overconfident_model_leaves_its_band():
    generator = np.random.default_rng(3)
    truth = generator.beta(2, 2, 5000)
    happened = (generator.uniform(size=5000) < truth).astype(float)
    curve = reliability_curve(np.where(truth > 0.5, 0.9, 0.1), happened)
    assert curve.observed[0] > curve.high[0]
    assert curve.observed[-1] < curve.low[-1]


def test_many_distinct_predictions_are_put_together_and_their_fit_stays():
    generator = np.random.default_rng(5)
    predicted = generator.uniform(size=30_000)
    happened = (generator.uniform(size=30_000) < predicted**2).astype(float)
    curve = reliability_curve(predicted, happened, resamples=20)
    assert len(curve.predicted) <= 101
    assert np.abs(curve.observed - curve.predicted**2).max() < 0.06


def test_without_rows_there_is_no_curve():
    with pytest.raises(ValueError, match="there are none"):
        reliability_curve(np.zeros(0), np.zeros(0))
