"""Windows of few rows: shares of which less than one row is expected are tested exactly."""

import numpy as np
import polars as pl

from cumulant.monitoring.drift.blocks import by_rows
from cumulant.monitoring.drift.comparing import compare
from cumulant.monitoring.drift.profiling import profile


def compared(values, missing=None):
    """A reference of 6,000 normal numbers, of which one in fifty is missing, and a window of 20 rows."""
    generator = np.random.default_rng(1)
    before = pl.DataFrame({"x": generator.normal(size=6000)})
    before = before.with_columns(pl.when(pl.Series(generator.random(6000) >= 0.02)).then("x").alias("x"))
    now = pl.DataFrame({"x": values}, schema={"x": pl.Float64})
    reference = profile(before, {"x": "feature"}, cut=by_rows(6000, 200))
    current = profile(now, {}, cut=by_rows(now.height, now.height), like=reference)
    return {one.what for one in compare(reference, current, looks=30).findings}


def test_three_of_twenty_rows_in_the_tails_are_no_alarm():
    inner = list(np.linspace(-1.5, 1.5, 17))
    assert compared([*inner, 2.6, 2.7, -2.6]) == set()  # 0.7% of draws of 20 rows have as many
    assert compared([*inner[2:], 2.6, 2.7, 2.8, 2.9, -2.6, -2.7]) == {"tails"}


def test_three_of_twenty_rows_missing_are_no_alarm():
    inner = list(np.linspace(-1.5, 1.5, 17))
    assert compared([*inner, None, None, None, 1.0, -1.0, 0.3]) == set()
    assert compared([*inner, *[None] * 12]) == {"missing"}
