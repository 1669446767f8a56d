"""Which rows carry a change."""

import numpy as np
import polars as pl
import pytest

from cumulant.monitoring.drift.profiling import profile
from cumulant.monitoring.drift.segmenting import segments


def rows(generator, n=6000):
    return pl.DataFrame(
        {
            "amount": generator.normal(size=n),
            "kind": generator.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1]),
            "region": generator.choice(["n", "s", "e", "w", None], n, p=[0.3, 0.3, 0.2, 0.1, 0.1]),
            "half": generator.choice(["1", "2"], n),
        }
    )


CHANGES = {
    ("amount", "shift"): pl.when(region="w").then(pl.col("amount") + 3).otherwise("amount").alias("amount"),
    ("amount", "missing"): pl.when(region="w").then(None).otherwise("amount").alias("amount"),
    ("amount", "impossible"): pl.when(region="w").then(1e6).otherwise("amount").alias("amount"),
    ("kind", "unseen"): pl.when(region="w").then(pl.lit("new")).otherwise("kind").alias("kind"),
    ("kind", "shift"): pl.when(region="w").then(pl.lit("c")).otherwise("kind").alias("kind"),
}


@pytest.mark.parametrize(("feature", "what"), CHANGES)
def test_the_segment_with_the_change_is_told(feature, what):
    generator = np.random.default_rng(9)
    before, now = rows(generator), rows(generator)
    changed = now.with_columns(CHANGES[feature, what])
    reference = profile(before, {feature: "feature"})
    found = segments(before, changed, reference.columns[0], what, ["region", "half"])
    assert [(one.column, one.value) for one in found] == [("region", "w")]
    assert found[0].carries > 0.9
    assert found[0].rows == pytest.approx(1 / 9, abs=0.02)  # of the rows with a region


def test_a_change_of_all_rows_is_carried_by_none():
    generator = np.random.default_rng(3)
    before, now = rows(generator), rows(generator)
    reference = profile(before, {"amount": "feature"})
    moved = now.with_columns(pl.col("amount") + 1)
    assert segments(before, moved, reference.columns[0], "shift", ["region", "half", "kind"]) == ()
    assert segments(before, now.drop("amount"), reference.columns[0], "absent", ["region"]) == ()
    same = before.with_columns(half=pl.lit("1"))
    assert segments(same, same, reference.columns[0], "missing", ["half"]) == ()
