"""The window kernel on larger arrays, and on numbers that ordinary prefix sums get wrong."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cumulant.features.offline.kernel.ranges import Distinct, LatestEvents, extremes, last_valid
from cumulant.features.offline.kernel.spread import deviations
from cumulant.features.offline.kernel.sums import PrefixSums
from cumulant.features.offline.kernel.timeline import Timeline, grouped_order

MAGNITUDES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e300, -1e300, 1e-300, 5e-324, 0.1, 1.0, -1.0, 2.0**53, 1e16, -1e16]),
)


TIES = st.builds(
    lambda sign, digits, exponent: sign * math.ldexp(digits, exponent),
    st.sampled_from([1, -1]),
    st.sampled_from([0, 1, 3, 2**52, 2**52 + 1, 2**53 - 1]),
    st.sampled_from([-160, -107, -106, -54, -53, -52, 0, 1, 53, 54, 106, 900]),
)


def rounded(number: Fraction) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 30), elements=MAGNITUDES | TIES), st.data())
def test_sums_of_any_floats_are_correctly_rounded(values: np.ndarray, data: st.DataObject) -> None:
    """So that a sum does not depend on the other values that its prefix sums were made with."""
    lo = data.draw(st.integers(0, len(values)))
    hi = data.draw(st.integers(lo, len(values)))
    right = rounded(sum((Fraction(float(v)) for v in values[lo:hi]), Fraction(0)))
    assert float(PrefixSums(values).between(np.array([lo]), np.array([hi]))[0]) == right
    others = np.concatenate((values, np.ones(data.draw(st.sampled_from([0, 1000, 70_000])))))
    own = data.draw(MAGNITUDES)
    extra = PrefixSums(others, np.array([own])).between(np.array([lo]), np.array([hi]), with_extra=np.array([True]))
    assert float(extra[0]) == rounded(sum((Fraction(float(v)) for v in values[lo:hi]), Fraction(own)))


def test_one_huge_value_does_not_spoil_what_follows() -> None:
    values = np.array([1e18, *([0.01] * 50)])
    lo, hi = np.arange(1, 50), np.arange(2, 51)
    np.testing.assert_array_equal(PrefixSums(values).between(lo, hi), np.full(49, 0.01))
    assert not np.allclose(np.diff(np.cumsum(values)), 0.01)  # what plain prefix sums give


@pytest.mark.parametrize("level", [0.0, 1e6, 1e9])
def test_deviations_far_from_the_first_value_keep_their_digits(level: float) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate((rng.normal(0, 1e-3, 200), level + rng.normal(0, 1e-3, 200)))
    lo = np.arange(0, 390)
    hi = lo + 10
    empty = np.zeros(len(lo))
    found = deviations(values, np.zeros(400, dtype=np.int64), lo, hi, own=empty, with_own=empty.astype(bool))
    for i in (0, 100, 195, 250, 389):
        window = [Fraction(v) for v in values[lo[i] : hi[i]].tolist()]
        mean = sum(window) / len(window)
        right = math.sqrt(sum((v - mean) ** 2 for v in window) / (len(window) - 1))
        assert found[i] == pytest.approx(right, rel=1e-9)


def test_a_repeated_value_has_no_deviation_at_all() -> None:
    values = np.array([5.0, *([0.1] * 20)])
    lo, hi = np.arange(1, 11), np.arange(11, 21)
    none = np.zeros(10, dtype=bool)
    assert (
        deviations(values, np.zeros(21, dtype=np.int64), lo, hi, own=np.zeros(10), with_own=none).tolist() == [0.0] * 10
    )


@pytest.mark.parametrize("other", [1.0, 1e-300, 1e160, 1e300])
def test_a_deviation_does_not_depend_on_other_keys(other: float) -> None:
    rng = np.random.default_rng(6)
    for level in (1e-300, 1.0, 1e250):
        values = rng.normal(3, 1, 40) * level
        lo, hi = np.arange(30), np.arange(30) + 9
        none, empty = np.zeros(30, dtype=bool), np.zeros(30)
        alone = deviations(values, np.zeros(40, np.int64), lo, hi, own=empty, with_own=none)
        both = np.concatenate((values, rng.normal(0, 1, 3000) * other))
        starts = np.repeat([0, 40], [40, 3000])
        assert deviations(both, starts, lo, hi, own=empty, with_own=none).tolist() == alone.tolist()
        assert alone == pytest.approx([np.std(values[at : at + 9] / level, ddof=1) * level for at in range(30)])


def random_group(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 5, 400), rng.integers(0, 60, 400), rng.integers(0, 7, 120), rng.integers(-5, 70, 120)


@pytest.mark.parametrize("scale", [1, 2**50])
def test_ranges_of_a_timeline(scale: int) -> None:
    """With times so long that key and time do not fit one integer, too."""
    codes, times, query_codes, moments = random_group(1)
    times, moments = times * scale, moments * scale
    line = Timeline(codes * 1000, times)
    keys = line.find(query_codes * 1000)
    hi = line.until(keys, moments)
    for q in range(len(moments)):
        same = [i for i in range(400) if codes[i] == query_codes[q] and times[i] <= moments[q]]
        assert line.order[keys.starts[q] : hi[q]].tolist() == sorted(same, key=lambda i: (times[i], i))


class Counted(np.ndarray):
    """An array that counts how many of its values are picked."""

    picked = 0

    def take(self, at: np.ndarray, *args: object, **kwargs: object) -> object:  # type: ignore[override]
        Counted.picked += len(at)
        return np.asarray(self).take(at, *args, **kwargs)


@pytest.mark.parametrize(("keys", "year"), [(100, 365), (20_000, 365), (20_000, 365 * 290), (20_000, 1)])
def test_a_search_costs_the_same_for_any_number_of_keys_and_length_of_time(keys: int, year: int) -> None:
    """20,000 keys over 290 years do not fit into one integer with their times; ten events a key take four steps."""
    codes = np.arange(keys * 10, dtype=np.int64) % keys
    times = np.random.default_rng(5).integers(0, year * 86_400_000_000, len(codes))
    line = Timeline(codes, times)
    found = line.find(line.keys)
    line.times, Counted.picked = line.times.view(Counted), 0
    hi = line.until(found, np.asarray(line.times))
    assert Counted.picked == len(codes) * 4
    assert (hi == np.arange(len(codes)) + 1).all()  # no two of a key's times are equal


def test_keys_are_numbered_without_gaps_whatever_their_codes() -> None:
    """Else a key and a value of it, joined into one number, would not fit 64 bits."""
    line = Timeline(np.array([2**60, 7, 2**60, -3, 7]), np.array([5, 4, 3, 2, 1]))
    assert line.keys.tolist() == [0, 1, 1, 2, 2]
    assert line.find(np.array([-3, 0, 7, 2**60, 2**61])).numbers.tolist() == [0, -1, 1, 2, -1]
    nothing = Timeline(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert nothing.until(nothing.find(np.array([1, 2])), np.array([3, 4])).tolist() == [0, 0]


def test_order_is_by_key_then_time_then_position() -> None:
    codes, times, _, _ = random_group(2)
    expected = sorted(range(400), key=lambda i: (codes[i], times[i], i))
    assert grouped_order(codes, times).tolist() == expected
    assert grouped_order(codes + 2**61, times).tolist() == expected
    assert grouped_order(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


def test_extremes_last_and_different_values_of_ranges() -> None:
    rng = np.random.default_rng(3)
    values, keys = rng.integers(-4, 4, 300), np.repeat([0, 1, 2], 100)
    lo = np.concatenate([rng.integers(k * 100, k * 100 + 100, 80) for k in range(3)])
    hi = np.minimum(lo + rng.integers(0, 100, 240), (lo // 100 + 1) * 100)
    most, least = extremes(values, lo, hi, largest=True), extremes(values.astype(np.float64), lo, hi, largest=False)
    distinct = Distinct(keys, values)  # below zero is null
    counted, newest = distinct.between(lo, hi), last_valid(values >= 0, hi)
    held = distinct.holds(lo // 100, np.full(240, 3), lo, hi)
    absent = distinct.holds(lo // 100, np.full(240, 99), lo, hi)
    for q in range(240):
        window = values[lo[q] : hi[q]]
        if len(window):
            assert (most[q], least[q]) == (window.max(), window.min())
        assert counted[q] == len(set(window[window >= 0].tolist()))
        assert held[q] == (3 in window)
        assert not absent[q]
        assert newest[q] == max((i for i in range(hi[q]) if values[i] >= 0), default=-1)


@pytest.mark.parametrize("apart", [1, 2**58])  # keys and times that fit one number, and that do not
def test_the_latest_event_of_ranges_is_the_last_of_the_greatest_event_time(apart: int) -> None:
    for seed in range(20):
        dice = np.random.default_rng(seed)
        keys = np.unique(np.sort(dice.integers(0, 4, 16)), return_inverse=True)[1]
        times, valid = dice.integers(-4, 4, 16) * apart, dice.random(16) < 0.6
        pairs = [(lo, hi) for lo in range(16) for hi in range(lo + 1, 17) if keys[lo] == keys[hi - 1]]
        lo, hi = (np.array(each, dtype=np.int64) for each in zip(*pairs, strict=True))
        events = LatestEvents(keys, times)
        for flags in (None, valid):
            positions, filled = events.in_ranges(lo, hi, flags)
            for at, (begin, end) in enumerate(pairs):
                members = [each for each in range(begin, end) if flags is None or flags[each]]
                assert filled[at] == bool(members)
                assert not members or positions[at] == max(members, key=lambda each: (times[each], each))
        positions, filled = events.before(np.searchsorted(keys, keys[hi - 1]), hi)
        assert filled.all()
        assert (positions == events.in_ranges(np.searchsorted(keys, keys[hi - 1]), hi, None)[0]).all()
