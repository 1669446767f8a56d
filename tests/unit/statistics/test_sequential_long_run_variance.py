"""Long-run variance: the long-run variance by brute force, storage, and how long blocks become in worlds of known dependence."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.statistics.sequential.long_run_variance import FEWEST_BLOCKS, LongRunVariance

FLOATS = st.lists(st.floats(-5, 5), min_size=0, max_size=120)


def slow_variances(values: list[float]) -> list[float | None]:
    """Length times a sixth of the mean square of the second difference of neighbouring blocks, block by block."""
    found: list[float | None] = []
    for scale in range(10):
        length = 2**scale
        means = [sum(values[i : i + length]) / length for i in range(0, len(values) - length + 1, length)]
        if len(means) < FEWEST_BLOCKS:
            found.append(None)
            continue
        squares = [(means[i + 2] - 2 * means[i + 1] + means[i]) ** 2 for i in range(len(means) - 2)]
        found.append(length * sum(squares) / len(squares) / 6)
    return found


@given(FLOATS, st.lists(st.integers(1, 40), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_sums_are_those_of_all_values_however_they_come(values: list[float], cuts: list[int]) -> None:
    state, place = LongRunVariance.start(), 0
    for cut in [*cuts, len(values)]:
        state = state.add(values[place : place + cut])
        state = LongRunVariance.from_json(json.loads(json.dumps(state.to_json())))
        place += cut
    fast = [None if np.isnan(one) else one for one in state.long_run_variances()]
    slow = slow_variances(values)
    assert [one is None for one in fast] == [one is None for one in slow]
    assert [one for one in fast if one is not None] == pytest.approx([one for one in slow if one is not None], abs=1e-9)


def lengths(series: np.ndarray) -> tuple[list[int], list[float]]:
    found = [LongRunVariance.start().add(one).block() for one in series]
    return [length for length, _ in found], [effect for _, effect in found]


def autoregressive(rng: np.random.Generator, keep: float, shape: tuple[int, int]) -> np.ndarray:
    z = rng.normal(size=shape)
    for place in range(1, shape[1]):
        z[:, place] = keep * z[:, place - 1] + np.sqrt(1 - keep**2) * z[:, place]
    return z


def test_independent_looks_stay_blocks_of_their_own() -> None:
    found, effects = lengths(np.random.default_rng(1).poisson(9, (200, 2000)))
    assert np.mean([one == 1 for one in found]) >= 0.9
    assert np.median(effects) < 1.3


@pytest.mark.parametrize("keep", [0.5, 0.7, 0.9])
def test_the_length_and_the_remaining_design_effect_are_the_sum_of_all_autocorrelations(keep: float) -> None:
    series = autoregressive(np.random.default_rng(2), keep, (100, 4000))
    found, effects = lengths(series)
    assert np.mean([one > 1 or effect > 1.5 for one, effect in zip(found, effects, strict=True)]) == 1.0
    true = (1 + keep) / (1 - keep)  # long-run variance over the variance of one value
    shown = []
    for row, length, effect in zip(series, found, effects, strict=True):
        means = row[: len(row) // length * length].reshape(-1, length).mean(1)
        shown.append(effect * length * means.var() / true)
    assert 0.6 < np.median(shown) < 1.5


def test_slow_bursts_under_much_noise_are_seen_though_neighbours_hardly_correlate() -> None:
    rng = np.random.default_rng(3)
    bursts = np.repeat(rng.gamma(1.0, 1.0, (50, 300)), 30, axis=1)
    series = rng.poisson(0.5 * bursts)  # most of the variance of one look is chance
    lag_one = np.mean([np.corrcoef(one[1:], one[:-1])[0, 1] for one in series])
    found, effects = lengths(series)
    assert lag_one < 0.4
    assert min(length * effect for length, effect in zip(found, effects, strict=True)) > 5  # of 11, in truth


def test_a_block_is_no_longer_than_asked_and_the_rest_is_a_design_effect() -> None:
    series = autoregressive(np.random.default_rng(7), 0.9, (20, 4000))
    for row in series:
        state = LongRunVariance.start().add(row)
        assert state.block(most=2)[0] <= 2
        assert state.block(most=2)[1] > state.block()[1]


def test_a_level_that_rises_slowly_is_no_dependence() -> None:
    rng = np.random.default_rng(4)
    series = rng.poisson(9 * (1 + 0.5 * np.linspace(-1, 1, 4000)), (100, 4000))
    found, _ = lengths(series)
    assert np.mean([one == 1 for one in found]) >= 0.85


def test_a_series_that_is_too_short_says_nothing_and_one_that_is_no_number_is_refused() -> None:
    short = LongRunVariance.start().add(np.arange(5.0))
    assert short.visible() == 0
    assert short.block(least=3) == (3, 1.0)
    with pytest.raises(ValueError, match="finite"):
        short.add([float("nan")])
