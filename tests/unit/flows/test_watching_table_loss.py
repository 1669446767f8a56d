"""Answers held against labels: which answer, and the rows, whatever number of rows is read as texts at a time."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from cumulant.flows.monitoring.drift import table_loss
from cumulant.monitoring.drift import categories

POOLS = [
    [True, False],
    [0, 1],
    [1, 2, 3],
    [0.0, -0.0, 1.0],
    [0.0, 1.0, float("nan")],
    [0.1, 0.9, -0.0],
    [2.0, float("inf")],
    ["a", "b"],
    ["true", "1", "false"],
    ["a", "b", "c", "1"],
]


def frame(draw: random.Random) -> pl.DataFrame:
    count, nulls = draw.choice([0, 1, 8, 30]), draw.choice([0, 0.4])

    def column() -> pl.Series:
        pool: list[Any] = draw.choice(POOLS)
        values = [None if draw.random() < nulls else draw.choice(pool) for _ in range(count)]
        return pl.Series(values, dtype=pl.Series(pool).dtype)

    return pl.DataFrame({"y": column(), "p": column(), "q": column()})


def found(rows: pl.DataFrame) -> tuple[Any, ...] | None:
    how = table_loss._scored(rows, "y", ["p", "q"])
    if how is None:
        return None
    side: Any = SimpleNamespace(cut=SimpleNamespace(codes=None, blocks=[SimpleNamespace(timed=False)]))
    made = table_loss._predictions(rows, "y", how, side)
    return how, made.score.tobytes(), made.truth.tobytes()


def test_no_more_than_some_rows_are_texts_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [frame(random.Random(seed)) for seed in range(300)]
    whole = [found(one) for one in rows]
    sizes, text = [], categories.text
    monkeypatch.setattr(table_loss, "_PART", 7)
    monkeypatch.setattr(categories, "text", lambda values: sizes.append(len(values)) or text(values))
    assert [found(one) for one in rows] == whole
    assert max(sizes) == 7
    assert len({one[0] for one in whole if one is not None}) > 4


def test_of_classes_with_equal_scores_the_same_one_is_the_positive_each_time() -> None:
    rows = pl.DataFrame({"y": ["a", "b"] * 4, "p": ["b", "a"] * 4, "q": np.full(8, 0.5)})
    assert {table_loss._scored(rows, "y", ["p", "q"]).positive for _ in range(60)} == {"b"}
