"""Probabilities that rounding took beyond 0 or 1 are no fault; those that lie further out are."""

import numpy as np
import polars as pl
import pytest

from cumulant.monitoring.drift.blocks import by_rows
from cumulant.monitoring.drift.comparing import compare
from cumulant.monitoring.drift.profiling import profile


@pytest.mark.parametrize(("beyond", "fault"), [(1e-7, False), (1e-3, True), (0.2, True)])
def test_rounding_beyond_one_is_no_fault(beyond, fault):
    generator = np.random.default_rng(0)
    before, now = (generator.beta(0.4, 0.4, 6000) for _ in range(2))
    before = np.clip(np.round(before, 2), 0.0, 1.0)
    now = np.clip(np.round(now, 2), 0.0, 1.0)
    now = np.where(now == 1.0, 1.0 + beyond, np.where(now == 0.0, -beyond, now))
    frames = [pl.DataFrame({"probability": one}) for one in (before, now)]
    roles = {"probability": "prediction"}
    reference = profile(frames[0], roles, cut=by_rows(6000, 600))
    current = profile(frames[1], {}, cut=by_rows(6000, 600), like=reference)
    found = compare(reference, current)
    assert any(one.what == "impossible" for one in found.findings) == fault
    assert any(found.alarming) == fault
