"""A few rows that move far are found, though they change no distance that matters."""

import numpy as np
import polars as pl
import pytest

from cumulant.monitoring.drift.comparing import compare
from cumulant.monitoring.drift.profiling import profile


def findings(seed, change, *, n=1000, columns=10):
    """`n` rows against as many, of which one column is changed."""
    generator = np.random.default_rng(seed)
    before, now = (generator.normal(size=(n, columns)) for _ in range(2))
    now[:, 0] = change(generator, now[:, 0])
    names = [f"n{place}" for place in range(columns)]
    frames = [pl.DataFrame(one, schema=names, orient="row") for one in (before, now)]
    reference = profile(frames[0], dict.fromkeys(names, "feature"))
    return compare(reference, profile(frames[1], {}, like=reference)).findings


@pytest.mark.parametrize("by", [4.0, -4.0])
def test_five_percent_of_the_rows_that_moved_by_four_deviations(by):
    told = []
    for seed in range(10):
        (one,) = findings(seed, lambda generator, values: values + by * (generator.random(len(values)) < 0.05))
        assert (one.feature, one.kind) == ("n0", "covariate")
        told += [one] if one.what == "tails" else []  # where the distance matters, too, it is told as a shift
    assert len(told) >= 7
    assert told[0].before == pytest.approx(0.02, abs=0.005)
    assert told[0].now > 0.05


def test_nothing_that_moved_is_no_tail():
    assert not any(findings(seed, lambda _, values: values) for seed in range(20))


def test_a_shift_is_told_once():
    assert [one.what for one in findings(1, lambda _, values: 2 * values + 1)] == ["shift"]
