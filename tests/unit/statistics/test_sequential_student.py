"""Near-normal means under continuous watching: the closed form is the integral, and alarms are as rare as promised."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binom

from cumulant.statistics.sequential.student import Risen, Student

#: 0, or of a size whose square can be told from 0
VALUE = st.floats(-5, 5).map(lambda value: round(value, 9))


def slow(values, effect):
    """The evidence by integrating over effect and scale, instead of in closed form."""
    n, total, squares = len(values), sum(values), sum(v * v for v in values)
    unit = math.sqrt(squares / n)

    def over_scale(delta):
        """Likelihood of effect `delta`, with the scale integrated out, on the logarithm of the precision's root."""

        def inner(log_u):
            u = math.exp(log_u) / unit
            return math.exp(n * log_u - (squares * u * u - 2 * delta * total * u + n * delta * delta) / 2)

        return quad(inner, -25, 4, limit=200)[0]

    prior = math.sqrt(2 / math.pi) / effect
    top = quad(lambda d: prior * math.exp(-((d / effect) ** 2) / 2) * over_scale(d), 0, 8 * effect, limit=100)[0]
    return math.log(top / over_scale(0.0))


@pytest.mark.parametrize("values", [[0.4], [0.3, -0.2, 1.1], [1.0, 1.2, 0.9, 1.1], [-1.0, -0.4, -0.8]])
@pytest.mark.parametrize("effect", [0.3, 1.0])
def test_evidence_is_the_integral_over_effect_and_scale(values, effect):
    found = Student.start(effect=effect).add(values).log_evidence()
    assert float(found) == pytest.approx(slow(values, effect), abs=1e-5)


@settings(deadline=None, max_examples=50)
@given(st.lists(VALUE, min_size=1, max_size=8), st.floats(0.1, 50), st.integers(0, 7))
def test_evidence_knows_neither_the_unit_nor_the_order_of_arrival(values, unit, cut):
    whole = Student.start().add(values).log_evidence()
    pieces = Student.start().add(values[:cut]).add(values[cut:])
    assert float(pieces.log_evidence()) == pytest.approx(float(whole), abs=1e-6)
    assert float(Student.start().add([v * unit for v in values]).log_evidence()) == pytest.approx(
        float(whole), abs=1e-6
    )


@pytest.mark.parametrize("value", [1.5e-162, 1e-150])
def test_values_that_are_hardly_any_are_no_evidence(value):
    assert float(Student.start().add([value]).log_evidence()) == 0


@pytest.mark.parametrize("mean", [0.0, -0.1])
def test_no_more_false_alarms_than_alpha_however_often_one_looks(mean):
    """2,000 worlds, 60 values, a look at each."""
    worlds = 2000
    values = np.random.default_rng(11).normal(mean, 1.0, (worlds, 60))
    watch, ever = Student.start(batch=(worlds,)), np.zeros(worlds, dtype=bool)
    for at in range(60):
        watch = watch.add(values[:, at : at + 1])
        ever |= watch.log_evidence() >= math.log(20)
    assert ever.sum() <= binom.ppf(0.999, worlds, 0.05)
    assert mean < 0 or ever.any()


def test_a_rise_is_found_and_dated_and_a_quiet_past_does_not_hide_it():
    generator = np.random.default_rng(12)
    watch, found = Risen.start(horizon=30), None
    for look in range(40):
        watch = watch.add(generator.normal(0.7 if look >= 25 else -0.3, 1.0, 10))
        if found is None and watch.log_evidence() >= math.log(20):
            found = look
    assert found is not None
    assert 25 <= found <= 28
    assert watch.since() in {24, 25, 26}
    assert watch.mean_since(25) == pytest.approx(0.7, abs=3 * watch.radius_since(25))
    assert len(watch.starts.count) == 30
    assert math.isnan(watch.mean_since(3))
    assert math.isnan(watch.radius_since(3))


@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_a_month_without_a_change_seldom_alarms(shape):
    """250 worlds of 30 looks with 4 block means each: of normal values, and of 50 squared errors at a rate of 5%."""
    worlds, looks, generator, alarms = 250, 30, np.random.default_rng(13), 0
    for _ in range(worlds):
        if shape == "normal":
            values = generator.normal(0, 1, (looks, 4))
        else:
            truth = generator.random((looks, 4, 50)) < 0.05
            values = np.where(truth, 0.9**2, 0.1**2).mean(-1) - (0.05 * 0.9**2 + 0.95 * 0.1**2)
        watch = Risen.start(horizon=looks)
        for at in range(looks):
            watch = watch.add(values[at])
            if watch.log_evidence() >= math.log(20):
                alarms += 1
                break
    assert alarms <= binom.ppf(0.999, worlds, 0.05)


def test_before_anything_and_with_nothing_there_is_no_evidence():
    assert Risen.start(horizon=5).log_evidence() == 0.0
    assert Risen.start(horizon=5).recent(3) == 0.0
    assert Risen.start(horizon=5).since() is None
    assert float(Student.start().log_evidence()) == 0.0
    assert float(Student.start().add([0.0, 0.0]).log_evidence()) == 0.0
    empty = Risen.start(horizon=5).add([])
    assert empty.log_evidence() == pytest.approx(-math.log(5))  # one start of at most five
    assert math.isnan(empty.mean_since(0))


def test_a_watch_goes_on_from_what_was_stored():
    generator = np.random.default_rng(14)
    watch = Risen.start(horizon=4)
    for _ in range(6):
        watch = watch.add(generator.normal(0.2, 1, 5))
    again = Risen.from_json(json.loads(json.dumps(watch.to_json())))
    assert again.add([1.0]).log_evidence() == watch.add([1.0]).log_evidence()
    assert again.since() == watch.since()


def test_what_cannot_be_watched_is_refused():
    with pytest.raises(ValueError, match="effect is 0"):
        Student.start(effect=0)
    with pytest.raises(ValueError, match="not finite"):
        Student.start().add([math.nan])
    with pytest.raises(ValueError, match="1 or more"):
        Risen.start(horizon=0)
