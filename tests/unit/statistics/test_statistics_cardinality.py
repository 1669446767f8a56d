"""Distinct values are counted within the published error, whatever the order and however often each comes."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from cumulant.statistics.cardinality import DistinctCount


@pytest.mark.parametrize("values", [0, 1, 39, 1000, 40_000, 60_000, 1_000_000])
def test_the_estimate_is_within_four_standard_errors(values: int) -> None:
    counts = [DistinctCount(), DistinctCount()]
    hashes = pl.int_range(values, eager=True).hash().to_numpy()
    for part in np.array_split(hashes, 7):
        counts[0].add(part)
        counts[0].add(part)
    counts[1].add(hashes[::-1])
    assert counts[0].estimate() == counts[1].estimate()
    assert abs(counts[0].estimate() - values) <= 4 * 0.0081 * values
