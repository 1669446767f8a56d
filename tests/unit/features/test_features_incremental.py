"""Rows added to a history: what they change is computed, and the table is bit for bit that of all rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from itertools import groupby
from typing import Any

import oracle_worlds
import polars as pl
import pytest
from test_features_partitions import bits, rows
from test_features_windows import HOUR, PLANS, SCHEMA, START

from cumulant.core.plan import FeaturePlan, Field, Source
from cumulant.data.parts.added_rows import SharedRows
from cumulant.data.row_columns import ROW
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.offline import incremental
from cumulant.features.offline.incremental import GrownSource, changed_features, unchanged_rows, with_changes
from cumulant.features.offline.offline import compute

MUCH = 1 << 40
AMOUNTS = [random.Random(place).random() for place in range(100)]
BATCH = "__batch"


@pytest.fixture(autouse=True)
def any_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incremental, "_MOST_SHARE", 1.0)


def at_step(frame: pl.DataFrame, step: int) -> pl.DataFrame:
    """The rows that have come by a step, with their positions."""
    return frame.filter(pl.col(BATCH) <= step).with_row_index(ROW)


def kept(frame: pl.DataFrame, step: int) -> tuple[SharedRows, ...]:
    """Where the rows of the step before are now."""
    now = at_step(frame, step)
    old = [place for place, batch in enumerate(now[BATCH]) if batch < step]
    runs = [list(run) for _, run in groupby(enumerate(old), key=lambda pair: pair[1] - pair[0])]
    return tuple(SharedRows(run[0][0], run[0][1], len(run)) for run in runs)


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
        head = unchanged_rows(kept(entity, step), changed)
        rest = pl.concat(with_changes(table[head:].lazy(), kept(entity, step), changed))
        table = pl.concat([table[:head], rest])
        whole = compute(plan, {name: at_step(frame, step).drop(BATCH) for name, frame in sources.items()})
        assert table.schema == whole.schema
        assert bits(table) == bits(whole)
        yield changed.height


def batches(rng: random.Random, height: int, last: int, *, between: bool) -> pl.Series:
    """The step at which each row comes: at the end, or `between` others."""
    found = [rng.choice([0, 0, *range(last + 1)]) for _ in range(height)]
    return pl.Series(BATCH, found if between else sorted(found), dtype=pl.Int64)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(len(PLANS)))
def test_grown_histories_of_awkward_rows(seed: int) -> None:
    rng, plan = random.Random(seed), PLANS[seed]
    sources = {}
    for number, name in enumerate(("tx", "other")):
        frame = rows(80, 10 * seed + number)
        sources[name] = frame.with_columns(batches(rng, frame.height, 3, between=bool(seed % 2)))
    assert len(list(steps(plan, sources, 3))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(16))
def test_grown_worlds_of_eras_and_zones(seed: int) -> None:
    world, rng = oracle_worlds.world(seed), random.Random(seed)
    sources = {
        name: frame.with_columns(batches(rng, frame.height, 2, between=bool(seed % 2)))
        for name, frame in world.frames().items()
    }
    assert len(list(steps(world.plans[seed % 2], sources, 2))) == 2


def test_a_deviation_is_that_of_the_whole_history_of_its_key() -> None:
    """An event before all windows changes their last bits, for it is the one around which squares are summed."""
    many = [("a", place * HOUR / 6, 0) for place in range(60)]
    plan = made_plan({"std": source("tx").by("card").std("amount", window="1h")})
    frame = payments(("a", -100 * HOUR, 1), *many).with_columns(amount=pl.Series([9876.54, *AMOUNTS[:60]]))
    sources = {"tx": frame, "other": payments()}
    before = compute(plan, {name: at_step(one, 0).drop(BATCH) for name, one in sources.items()})
    after = compute(plan, {name: at_step(one, 1).drop(BATCH) for name, one in sources.items()})
    assert before.drop(ROW).rows() != after[1:].drop(ROW).rows()
    assert list(steps(plan, sources, 1)) == [61]


def plain_plan() -> FeaturePlan:
    """Windows and lookups of which none needs the whole history of a key."""
    card = source("tx").by("card")
    return made_plan(
        {
            "n": card.count(window=["1h", "1d"]),
            "mean": card.mean("amount", window="1d"),
            "ever": source("other").as_of("card").columns("amount"),
        }
    )


def made_plan(defined: dict[str, Any]) -> FeaturePlan:
    fields = (Field("id", "int"), Field("card", "str"), Field("at", "time"), Field("amount", "float"))
    sources = {name: Source(name, ("id",), "at", fields) for name in ("tx", "other")}
    return compile_plan(collect(defined), sources, entity="tx", predict_at=None)


def payments(*moments: tuple[str, timedelta, int]) -> pl.DataFrame:
    """Rows of a card at a time after the start, and the step at which they come."""
    schema = {"id": pl.Int64, "card": pl.String, "at": SCHEMA["at"], "amount": pl.Float64, BATCH: pl.Int64}
    found = [(place, card, START + at, place / 7, step) for place, (card, at, step) in enumerate(moments)]
    return pl.DataFrame(found, schema=schema, orient="row")


def test_only_rows_that_see_a_new_event_are_computed() -> None:
    day = 24 * HOUR
    late = payments(
        ("a", 0 * HOUR, 0), ("a", day, 0), ("a", day + HOUR, 0), ("b", day, 0), ("a", 9 * day, 0), ("a", HOUR, 1)
    )  # the event after one hour is in the day before the second and the third row, where it just begins
    nothing = payments(("c", 0 * HOUR, 0))
    assert list(steps(plain_plan(), {"tx": late, "other": nothing}, 1)) == [1 + 1]
    tie = payments(("a", HOUR, 0), ("a", 0 * HOUR, 0), ("a", HOUR, 1), ("b", HOUR, 0))
    assert list(steps(plain_plan(), {"tx": tie, "other": nothing}, 1)) == [1 + 1]
    lookup = payments(("a", 99 * HOUR, 0), ("a", 2 * HOUR, 0), ("b", 99 * HOUR, 0), ("a", 400 * HOUR, 0))
    other = payments(("a", 0 * HOUR, 0), ("a", 3 * HOUR, 1))
    assert list(steps(plain_plan(), {"tx": lookup, "other": other}, 1)) == [2]
    assert list(steps(plain_plan(), {"tx": late.with_columns(pl.lit(0).alias(BATCH)), "other": nothing}, 1)) == [0]


def test_events_that_do_not_fit_are_read_by_partitions_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = {name: rows(160, number) for number, name in enumerate(("tx", "other"))}
    sources = {
        name: frame.with_columns(batches(random.Random(1), 160, 1, between=True)) for name, frame in frames.items()
    }
    parts = []
    partition = incremental._Run._parts
    monkeypatch.setattr(incremental._Run, "_parts", lambda *args: parts.append(partition(*args)) or parts[-1])
    monkeypatch.setattr(incremental, "_ROWS", 1e3)
    monkeypatch.setattr(incremental, "LEAST_MEMORY", 100_000)
    assert len(list(steps(PLANS[0], sources, 1, memory=0))) == 1
    assert max(parts) > 1
    monkeypatch.setattr(incremental, "LEAST_MEMORY", 1_000)  # too many partitions
    assert changed_features(PLANS[0], {name: grown(one, 1) for name, one in sources.items()}, memory=0) is None


def test_where_most_rows_are_new_all_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    sources = {name: rows(60, 1).with_columns(pl.Series(BATCH, [0] * 20 + [1] * 40)) for name in ("tx", "other")}
    assert changed_features(PLANS[0], {name: grown(one, 1) for name, one in sources.items()}, memory=MUCH) is None
