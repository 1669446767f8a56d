"""Rows added to a history: what they change is computed, and the table is bit for bit that of all rows."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any

import oracle_worlds
import polars as pl
import pytest
from test_features_partitions import bits, rows
from test_features_windows import HOUR, PLANS, make_plan

from cumulant.core.plan import FeaturePlan
from cumulant.data import KeptRows
from cumulant.features import compute, incremental
from cumulant.features.frames import ROW
from cumulant.features.incremental import GrownSource, changed_features, with_changes

MUCH = 1 << 40
BATCH = "__batch"


@pytest.fixture(autouse=True)
def any_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incremental, "_MOST_SHARE", 1.0)


def at_step(frame: pl.DataFrame, step: int) -> pl.DataFrame:
    """The rows that have come by a step, with their positions."""
    return frame.filter(pl.col(BATCH) <= step).with_row_index(ROW)


def kept(frame: pl.DataFrame, step: int) -> tuple[KeptRows, ...]:
    """Where the rows of the step before are now."""
    now = at_step(frame, step)
    old = [place for place, batch in enumerate(now[BATCH]) if batch < step]
    runs = [list(run) for _, run in groupby(enumerate(old), key=lambda pair: pair[1] - pair[0])]
    return tuple(KeptRows(run[0][0], run[0][1], len(run)) for run in runs)


def grown(frame: pl.DataFrame, step: int) -> GrownSource:
    now = at_step(frame, step)
    new = now.filter(pl.col(BATCH) == step)
    return GrownSource(now.drop(BATCH).lazy(), new.drop(BATCH).lazy(), new.height)


def steps(plan: FeaturePlan, sources: dict[str, pl.DataFrame], last: int, memory: int = MUCH) -> Iterator[int]:
    """Each step from the table of the step before it; how many rows were computed."""
    entity = sources[plan.entity]
    table = compute(plan, {name: at_step(frame, 0).drop(BATCH) for name, frame in sources.items()})
    for step in range(1, last + 1):
        changed = changed_features(plan, {name: grown(one, step) for name, one in sources.items()}, memory=memory)
        assert changed is not None
        table = with_changes(table.lazy(), kept(entity, step), changed).collect()
        whole = compute(plan, {name: at_step(frame, step).drop(BATCH) for name, frame in sources.items()})
        assert table.schema == whole.schema
        assert bits(table) == bits(whole)
        yield changed.height


def batches(rng: random.Random, height: int, last: int, *, between: bool) -> pl.Series:
    """The step at which each row comes: at the end, or `between` others."""
    found = [rng.choice([0, 0, *range(last + 1)]) for _ in range(height)]
    return pl.Series(BATCH, found if between else sorted(found), dtype=pl.Int64)


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("seed", range(len(PLANS)))
def test_grown_histories_of_awkward_rows(seed: int, *, between: bool) -> None:
    rng = random.Random(seed)
    sources = {}
    for number, name in enumerate(("tx", "other")):
        frame = rows(160, 10 * seed + number)
        sources[name] = frame.with_columns(batches(rng, frame.height, 4, between=between))
    assert len(list(steps(PLANS[seed], sources, 4))) == 4


@pytest.mark.parametrize("seed", range(49))
def test_grown_worlds_of_eras_and_zones(seed: int) -> None:
    world, rng = oracle_worlds.world(seed), random.Random(seed)
    sources = {
        name: frame.with_columns(batches(rng, frame.height, 3, between=bool(seed % 2)))
        for name, frame in world.frames().items()
    }
    for plan in world.plans:
        assert len(list(steps(plan, sources, 3))) == 3
