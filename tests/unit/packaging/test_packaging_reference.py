"""Reference values: usual, and nobody's own."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from cumulant.core.servable import Input
from cumulant.packaging.reference import reference_values


def of(values, kind="number", **more):
    return reference_values(pl.DataFrame({"x": values}, strict=False), [Input("x", kind, **more)])["x"]


def test_the_median_where_several_rows_hold_it():
    assert of([1, 3, 3, 3, 900]) == 3.0
    assert of([1.5, None, 1.5, float("nan"), 1.5, float("inf")]) == 1.5


def test_a_median_that_is_somebodys_value_is_rounded_to_a_part_of_the_spread():
    values = np.random.default_rng(0).normal(1_700_000_000, 86_400 * 30, 2001)
    found, exact = of(values), float(np.median(values))
    assert found != exact
    assert found % 1_000_000 == 0
    assert abs(found - exact) <= 500_000
    assert of([12.3456]) == 10.0
    assert of([0.0, 1e-9, 2e-9]) == pytest.approx(1e-9)


def test_flags_and_categories():
    assert of([True, True, False, None], "flag") is True
    assert of([True, False, False, None], "flag") is False
    assert of(["b", "a", "b"], "category", categories=("b", "a")) == "b"


@pytest.mark.parametrize("kind", ["number", "flag", "category"])
def test_nothing_known_is_missing(kind):
    dtype = {"number": pl.Float64, "flag": pl.Boolean, "category": pl.String}[kind]
    frame = pl.DataFrame({"x": pl.Series([None, None], dtype=dtype)})
    assert reference_values(frame, [Input("x", kind)]) == {"x": None}
