"""Profiles: what they say of a part, and that merging parts says the same as one look at all."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.plan import Field
from cumulant.data.profile import CELLS, Profile, merge, profile
from cumulant.data.shift import distance

FIELDS = (Field("x", "float"), Field("n", "int"), Field("s", "str"), Field("b", "bool"))
ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(-1e6, 1e6)),
        st.one_of(st.none(), st.integers(-5, 5)),
        st.one_of(st.none(), st.sampled_from("abc")),
        st.one_of(st.none(), st.booleans()),
    ),
    max_size=40,
)


def frame(rows):
    return pl.DataFrame(rows, schema={"x": pl.Float64, "n": pl.Int64, "s": pl.String, "b": pl.Boolean}, orient="row")


@given(ROWS, st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_merged_counts_extremes_and_moments_are_those_of_all_rows(rows, cut):
    merged = merge([profile(frame(rows[:cut]), FIELDS), profile(frame(rows[cut:]), FIELDS)], FIELDS)
    whole = profile(frame(rows), FIELDS)
    assert merged.rows == len(rows)
    for name in ("x", "n", "s", "b"):
        one, all_ = merged[name], whole[name]
        assert (one.rows, one.nulls, one.min, one.max, one.top) == (all_.rows, all_.nulls, all_.min, all_.max, all_.top)
    values = np.array([row[0] for row in rows if row[0] is not None])
    if len(values):
        assert merged["x"].mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-6)
        assert merged["x"].std == pytest.approx(values.std(), rel=1e-9, abs=1e-6)
        assert (merged["x"].min, merged["x"].max) == (values.min(), values.max())
    else:
        assert merged["x"].mean is None


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_quantiles_are_exact_in_a_part_and_near_over_parts(parts):
    values = np.random.default_rng(parts).lognormal(size=7001)
    whole = pl.DataFrame({"x": values})
    size = len(values) // parts + 1
    pieces = [profile(whole[start : start + size], FIELDS[:1]) for start in range(0, len(values), size)]
    found = merge(pieces, FIELDS[:1])["x"].quantiles
    assert len(found) == CELLS + 1
    ranks = np.searchsorted(np.sort(values), found, side="right") / len(values)
    assert np.abs(ranks - np.arange(CELLS + 1) / CELLS).max() <= (0.001 if parts == 1 else 1 / CELLS)


def test_a_column_that_a_part_lacks_counts_as_nulls():
    parts = [profile(pl.DataFrame({"n": [1, 2]}), FIELDS[1:2]), Profile(3)]
    assert (merge(parts, FIELDS[1:2])["n"].rows, merge(parts, FIELDS[1:2])["n"].nulls) == (5, 3)


def test_infinite_and_empty_columns():
    found = profile(
        pl.DataFrame(
            {"x": [float("inf"), 1.0, None], "n": [None, None, None]}, schema={"x": pl.Float64, "n": pl.Int64}
        ),
        FIELDS[:2],
    )
    assert (found["x"].max, found["x"].mean) == (1.0, 1.0)
    assert (found["n"].nulls, found["n"].quantiles, found["n"].distinct) == (3, (), 0)


@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=30),
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=30),
)
@settings(max_examples=50, deadline=None)
def test_distance_of_categories_is_that_of_the_textbook(left, right):
    from scipy.spatial.distance import jensenshannon

    field = [Field("s", "str")]
    one, two = (profile(pl.DataFrame({"s": values}), field)["s"] for values in (left, right))
    shares = [[values.count(letter) / len(values) for letter in "abcd"] for values in (left, right)]
    assert distance(one, two) == pytest.approx(float(jensenshannon(*shares, base=2)), abs=1e-6)


def test_distance_of_numbers_grows_with_the_shift():
    random = np.random.default_rng(0)
    field = [Field("x", "float")]
    base = profile(pl.DataFrame({"x": random.normal(size=5000)}), field)["x"]
    moved = [profile(pl.DataFrame({"x": random.normal(shift, size=5000)}), field)["x"] for shift in (0, 0.5, 1, 3)]
    found = [distance(base, other) for other in moved]
    assert found == sorted(found)
    assert found[0] < 0.05
    assert found[-1] > 0.7
