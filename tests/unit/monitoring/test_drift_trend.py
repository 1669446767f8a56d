"""A reference that moves by itself hides no change: it is compared with its newest part."""

import numpy as np
import polars as pl
import pytest

from cumulant.monitoring.drift.blocks import by_rows
from cumulant.monitoring.drift.comparing import compare
from cumulant.monitoring.drift.profiling import profile
from cumulant.statistics.drift.stationary import has_slope, shift_to_trend_end

BEFORE, DAYS, SIZE = 120, 30, 200


def compared(seed, *, trend=0.0, shift=0.0, again=0.0, shock=0.1, columns=("x", "c")):
    """A level that rises by `trend` over the reference, then stays there, and differs by `shift`; days with shocks that
    follow each other by `again`.
    """
    generator = np.random.default_rng(seed)
    days = generator.normal(size=BEFORE + DAYS)
    for day in range(1, len(days)):
        days[day] = again * days[day - 1] + np.sqrt(1 - again**2) * days[day]
    level = np.r_[np.linspace(0, trend, BEFORE), np.full(DAYS, trend + shift)] + shock * days
    rows = np.repeat(level, SIZE)
    table = pl.DataFrame(
        {
            "x": rows + generator.normal(size=len(rows)),
            "c": (generator.random(len(rows)) < 1 / (1 + np.exp(-rows))).astype(str),
        }
    ).select(columns)
    before, now = table[: BEFORE * SIZE], table[BEFORE * SIZE :]
    roles = dict.fromkeys(table.columns, "feature")
    reference = profile(before, roles, cut=by_rows(before.height, SIZE))
    current = profile(now, {}, cut=by_rows(now.height, SIZE), like=reference)
    return compare(reference, current, looks=DAYS)


def test_a_lasting_shift_after_a_trend_is_found_from_the_first_window_on():
    for seed in range(3):
        found = compared(seed, trend=2.0, shift=1.5)
        assert "x" in {one.feature for one in found.active}
        assert sum(found.alarming) >= DAYS - 2
        shifts = [one for one in found.findings if one.low is not None]
        assert shifts
        assert all(one.low - 1e-9 <= one.effect <= one.high + 1e-9 for one in shifts)
        assert {one.feature for one in found.unsteady} == {"x", "c"}
        assert all(8 <= one.windows <= BEFORE // 2 for one in found.unsteady)


def test_the_level_that_a_trend_has_reached_is_no_change():
    assert not any(any(compared(seed, trend=2.0).alarming) for seed in range(4))


@pytest.mark.slow
def test_what_is_left_of_a_trend_in_the_newest_part_is_no_change():
    """The 15 days that are compared rise by a quarter of a deviation: their mean is below the level at their end."""
    runs = (compared(seed, trend=2.0, shock=0.2, columns=("x",)) for seed in range(1100, 1200))
    assert sum(any(found.alarming) for found in runs) <= 5


def test_the_end_of_a_line_is_where_the_blocks_go():
    share = np.linspace(0.2, 0.5, 20)
    ended = shift_to_trend_end(np.column_stack([1000 * share, 1000 * (1 - share)]))
    np.testing.assert_allclose(ended[:, 0] / 1000, 0.5, atol=0.01)
    assert has_slope(np.column_stack([1000 * share, 1000 * (1 - share)]))
    assert not has_slope(np.random.default_rng(1).multinomial(1000, [0.3, 0.7], 20).astype(float))


@pytest.mark.parametrize("again", [0.0, 0.5])
def test_a_steady_reference_is_taken_whole(again):
    for seed in range(4):
        found = compared(seed, shock=0.25, again=again)
        assert found.unsteady == ()
        assert not any(found.alarming)
