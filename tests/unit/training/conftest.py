"""Small tables with a known structure, made once."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from cumulant.training.dataset import training_set
from cumulant.training.policy import TrainingPolicy

START = 1_514_764_800_000_000  # 2018-01-01
HOUR = 3_600_000_000
DAY = 24 * HOUR


def make_table(rows: int = 1200, *, seed: int = 0) -> pl.DataFrame:
    """Rows an hour apart: two numbers, a flag, a text with missing values, a constant; three targets over them."""
    generator = np.random.default_rng(seed)
    x, z = generator.normal(size=rows), generator.normal(size=rows)
    shop = generator.choice(["north", "south", "east", None], size=rows, p=[0.5, 0.3, 0.15, 0.05])
    weight = np.select([shop == "north", shop == "south"], [1.0, -1.0], 0.0)
    score = 1.2 * x + weight + 0.4 * x * z - 0.8
    late = generator.random(rows) < 1 / (1 + np.exp(-score))
    kind = np.select([score + generator.normal(size=rows) > 1, score > -1], ["high", "middle"], "low")
    missing = generator.random(rows) < 0.1
    return pl.DataFrame(
        {
            "x": np.where(missing, np.nan, x),
            "z": z,
            "busy": generator.random(rows) < 0.5,
            "shop": pl.Series(shop.tolist(), dtype=pl.String),
            "same": np.ones(rows),
            "late": late,
            "kind": kind,
            "amount": 10 + 3 * x + 2 * weight + generator.normal(size=rows),
            "loss": generator.uniform(1, 20, rows).round(2),
            "at": pl.Series(START + HOUR * np.arange(rows)).cast(pl.Datetime("us", "UTC")),
            "known": pl.Series(START + HOUR * np.arange(rows) + DAY).cast(pl.Datetime("us", "UTC")),
        }
    )


FEATURES = ["x", "z", "busy", "shop", "same"]


def make_rows(target: str, table: pl.DataFrame, *, timed: bool = True, **spec: object):
    return training_set(
        table.select(FEATURES),
        table[target],
        spec=TrainingPolicy(target=target, **spec),
        at=table["at"] if timed else None,
        known=table["known"] if timed else None,
        slices=table.select("shop"),
        costs=table.select("loss"),
    )


@pytest.fixture(scope="session")
def table() -> pl.DataFrame:
    return make_table()


@pytest.fixture(scope="session")
def rows_of():
    return make_rows
