"""Features of which an unknown category is news."""

import polars as pl
import pytest

from cumulant.core.servable import Input
from cumulant.packaging.input_warnings import closed_features

INPUTS = (Input("kind", "category", ("a", "b")), Input("flag", "category", ("true",)), Input("x", "number"))


@pytest.mark.parametrize(
    ("outside", "rows", "closed"), [(0, 300, True), (0, 299, False), (7, 1000, True), (8, 1000, False), (0, 0, False)]
)
def test_judged_by_the_upper_end_of_what_may_lie_outside(outside, rows, closed):
    kind = ["z"] * outside + ["a"] * (rows - outside) + [None] * 500
    frame = pl.DataFrame({"kind": pl.Series(kind, dtype=pl.String), "flag": [None] * len(kind), "x": [1.0] * len(kind)})
    found = closed_features(frame.with_columns(pl.col("flag").cast(pl.Boolean)), INPUTS)
    assert found == (("kind",) if closed else ())
