"""Values that follow each other or are skewed: what a reference shows of it, and the evidence that is chance then."""

import math

import numpy as np
import pytest

from cumulant.statistics.sequential.dependence import ASSUMED, Dependence, allowance, estimate_dependence
from cumulant.statistics.sequential.student import Risen

LOOKS, BAR = 30, math.log(60)


def autoregression(generator, runs, looks, correlation):
    found = generator.standard_normal((runs, looks + 40))
    for place in range(1, looks + 40):
        own = math.sqrt(1 - correlation**2) * found[:, place]
        found[:, place] = correlation * found[:, place - 1] + own
    return found[:, 40:]


def alarms(series, allowed):
    """How many of `series` [runs, looks] are called risen at any look."""
    count = 0
    for values in series:
        risen = Risen.start(horizon=LOOKS, allowed=allowed)
        for value in values:
            risen = risen.add([value])
            if risen.log_evidence() >= BAR:
                count += 1
                break
    return count


WORLDS = {
    "autoregression": lambda generator, *shape: autoregression(generator, *shape, 0.8),  # type: ignore[call-arg]
    "exponential": lambda generator, *shape: 1 - generator.standard_exponential(shape),
    "rare": lambda generator, *shape: 0.3 - generator.standard_gamma(0.3, shape),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_a_mean_that_has_not_risen_is_called_so_as_seldom_as_promised(name):
    """100 runs at the boundary; 11 alarms have a chance of 1% at 5%. Without an allowance it is many more."""
    draw = WORLDS[name]
    (values,) = draw(np.random.default_rng(1), 1, 120)
    history = values[:, None]
    allowed = allowance(estimate_dependence(list(history)), horizon=LOOKS, recent=5, alpha=0.05 / 3).risen
    series = draw(np.random.default_rng(2), 100, LOOKS)
    assert alarms(series, allowed) <= 11
    assert alarms(series, 0.0) > alarms(series, allowed)
    assert alarms(series[:50] + 4 * series.std(), allowed) >= 30


@pytest.mark.parametrize(("windows", "shape"), [(30, 0.3), (60, 0.1)])
def test_a_reference_that_shows_little_of_a_long_tail_is_taken_for_more_skewed(windows, shape):
    """Of 400 references most are taken for at least as skewed as their distribution: -2 / sqrt(shape)."""
    generator = np.random.default_rng(9)
    histories = shape - generator.standard_gamma(shape, (400, windows, 1))
    skewness = np.array([estimate_dependence(list(history)).skewness for history in histories])
    assert (skewness <= -2 / math.sqrt(shape)).mean() >= 0.6


def test_independent_values_are_allowed_nothing():
    generator = np.random.default_rng(3)
    found = estimate_dependence(list(generator.standard_normal((60, 1))))
    assert (found.whole, found.correlation) == (False, 0.0)
    assert allowance(found, horizon=LOOKS, recent=5, alpha=0.02).risen == 0
    several = estimate_dependence(list(generator.standard_normal((30, 12))))
    assert (several.whole, several.correlation, several.values) == (False, 0.0, 12)


def test_what_depends_is_learned():
    generator = np.random.default_rng(4)
    (series,) = autoregression(generator, 1, 200, 0.8)
    found = estimate_dependence(list(series[:, None]))
    assert 0.65 < found.correlation < 0.9
    assert found.factor > 4
    # Values of a day that share its shock are one value.
    days = generator.standard_normal((30, 1)) + 0.5 * generator.standard_normal((30, 10))
    assert estimate_dependence(list(days)).whole


def test_little_history_is_no_proof_of_independence():
    assert estimate_dependence([]).correlation == ASSUMED
    assert estimate_dependence(list(np.zeros((5, 1)))).correlation == ASSUMED
    assert allowance(estimate_dependence([]), horizon=LOOKS, recent=5, alpha=0.02).risen > 0


def test_the_sign_says_whose_tail_is_long():
    found = Dependence(skewness=4.0)
    assert allowance(found, horizon=LOOKS, recent=5, alpha=0.02).risen == 0
    assert allowance(found, horizon=LOOKS, recent=5, alpha=0.02, falling=True).risen > 2


def test_what_is_taken_off_is_stored():
    risen = Risen.start(horizon=5, allowed=1.5).add([1.0, 1.1])
    again = Risen.from_json(risen.to_json())
    assert again.allowed == 1.5
    assert again.log_evidence() == risen.log_evidence()
    plain = Risen.start(horizon=5).add([1.0, 1.1])
    assert plain.log_evidence() - risen.log_evidence() == pytest.approx(1.5)


def test_a_large_rise_is_found_within_a_week_or_so():
    generator = np.random.default_rng(7)
    risen = Risen.start(horizon=60)
    for value in generator.normal(-0.5, 1, 15):
        risen = risen.add([value])
    looks = 0
    while risen.log_evidence() < BAR:
        risen, looks = risen.add([generator.normal(10, 1)]), looks + 1
    assert looks <= 8
