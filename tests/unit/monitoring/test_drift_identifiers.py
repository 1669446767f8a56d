"""Columns of many values: quiet where nothing changes, though the frequent are those of the reference by chance."""

import numpy as np
import polars as pl
import pytest

from cumulant.monitoring.drift.blocks import by_rows
from cumulant.monitoring.drift.comparing import compare
from cumulant.monitoring.drift.joint import jointly
from cumulant.monitoring.drift.profiling import profile


def compared(before, now, *, blocks=20, days=30):
    """Codes [n] of a reference of `blocks` and of `days`, as texts."""
    frames = [pl.DataFrame({"c": pl.Series(codes).cast(pl.String)}) for codes in (before, now)]
    reference = profile(frames[0], {"c": "feature"}, cut=by_rows(len(before), len(before) // blocks))
    cut = by_rows(len(now), len(now) // days)
    current = profile(frames[1], {}, cut=cut, like=reference)
    return compare(reference, current, looks=days), reference.columns[0]


def zipf(count, power):
    weights = 1 / np.arange(1, count + 1) ** power
    return weights / weights.sum()


@pytest.mark.parametrize(
    ("values", "power", "rows", "blocks"),
    [
        (5000, 0.0, 20_000, 20),
        (1000, 0.0, 20_000, 20),
        (250, 0.0, 1000, 1),
        (5000, 1.0, 5000, 20),
        (5000, 0.5, 20_000, 1),
    ],
)
def test_a_month_of_identical_values_is_quiet(values, power, rows, blocks):
    alarms = 0
    for seed in range(6):
        generator = np.random.default_rng(seed)
        before, now = (generator.choice(values, n, p=zipf(values, power)) for n in (rows, 30_000))
        alarms += any(compared(before, now, blocks=blocks)[0].alarming)
    assert alarms <= 1


def test_values_that_come_and_go_are_not_new():
    """Each value is some rows of one day, as a session or a batch is, and most come again."""
    generator = np.random.default_rng(3)
    before, now = (np.repeat(generator.choice(5000, n // 5), 5) for n in (20_000, 30_000))
    found, column = compared(before, now)
    assert column.cells.identifies
    assert not any(found.alarming)


def test_an_identifier_is_judged_by_its_new_values():
    generator = np.random.default_rng(4)
    before, now = generator.choice(5000, 20_000), generator.choice(5000, 30_000)
    new = (np.arange(30_000) >= 25_000) & (generator.random(30_000) < 0.1)
    found, column = compared(before, np.where(new, now + 10_000, now))
    assert column.cells.identifies
    assert found.identifiers == ("c",)
    assert [(one.what, one.kind) for one in found.findings] == [("unseen", "data_fault")]
    assert found.alarming == (False,) * 25 + (True,) * 5


def test_values_that_are_surely_frequent_are_compared():
    generator = np.random.default_rng(5)
    shares = zipf(1000, 1.2)
    before = generator.choice(1000, 20_000, p=shares)
    other = np.r_[shares[10:20], shares[:10], shares[20:]]
    now = np.r_[generator.choice(1000, 25_000, p=shares), generator.choice(1000, 5000, p=other)]
    found, column = compared(before, now)
    assert 10 <= len(column.cells.values) < 60
    assert [(one.what, one.kind) for one in found.findings] == [("shift", "covariate")]
    assert found.alarming == (False,) * 25 + (True,) * 5


def test_all_columns_together_are_asked_beside_an_identifier():
    generator = np.random.default_rng(6)
    frame = pl.DataFrame({"c": generator.choice(3000, 8000).astype(str), "x": generator.normal(size=8000)})
    reference = profile(frame, {"c": "feature", "x": "feature"})
    assert reference.columns[0].cells.identifies
    assert jointly(frame, frame, reference) is not None
