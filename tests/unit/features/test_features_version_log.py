"""The log of rows that correct each other tells what online state had at any moment that it still knows."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import msgspec
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from test_features_posted_versions import (
    COLUMNS,
    DATED,
    PLANS,
    RULES,
    Row,
    Rule,
    World,
    act,
    hidden,
    row_of,
    snapshot,
    tx,
    world_of,
)
from test_features_windows import HOUR, START, frame, quick

from cumulant.features.offline.groups import groups_of
from cumulant.features.offline.offline import compute
from cumulant.features.online.requests import RequestReader
from cumulant.features.online.state import STATE_KEY
from cumulant.features.posted.posted_events import LoggedRow, log_table, row_key
from cumulant.features.posted.state_update import advance
from cumulant.features.posted.version_log import LoggedPart, VersionLog
from cumulant.features.verification import differing

Tables = dict[str, tuple[pl.DataFrame, pl.DataFrame]]
DAY = 24 * 3600 * 1_000_000


class Answer(NamedTuple):
    """What a request was served with: the snapshots of the table, and when."""

    tables: Tables
    at: int
    asked: Row
    served: Row


def snapshots(world: World) -> Tables:
    return {name: (snapshot(of), hidden(of)) for name, of in world.filed.items()}


def answer(world: World, tables: Tables, asked: Row) -> Answer:
    columns = world.served(world.store, f"t{world.tables}", [asked]).columns
    return Answer(tables, world.clock, asked, {name: columns[name][0] for name in world.plan.names})


def log_of(world: World, name: str = "tx") -> VersionLog:
    return VersionLog(world.plan, name, world.store, scope="s")


def part_of(log: VersionLog, asked: Row, rows: pl.DataFrame, deletions: pl.DataFrame, rule: Rule) -> LoggedPart:
    """The versions that a request may see."""
    keys = [
        pl.all_horizontal(pl.col(name).eq(pl.lit(asked[name])).fill_null(value=False) for name in group.by)
        for group in groups_of(PLANS[rule])
        if group.source == log.name
    ]
    inside = RequestReader(PLANS[rule].request).read(asked)
    return log.part(rows, deletions, pl.any_horizontal(keys), inside)


def differences(world: World, given: Answer, frames: dict[str, Any]) -> dict[str, tuple[object, object]]:
    (right,) = compute(world.plan, frames, rows=frame([given.asked])).to_dicts()
    return {name: (given.served[name], right[name]) for name in differing(given.served, right, world.plan.names)}


@settings(parent=quick, max_examples=5)
@given(st.sampled_from(RULES), st.integers(1, 5), st.integers(0, 2**32))
def test_what_was_served_is_what_the_log_tells_of_that_moment(rule: Rule, keys: int, seed: int) -> None:
    world, random, answers = World(rule), Random(seed), list[Answer]()
    for source in ("tx", "other"):
        world.ingest(source, [row_of(random, keys) for _ in range(random.randrange(6))])
    world.fill()
    tables = snapshots(world)
    for _ in range(8):
        number = world.tables
        act(world, random, keys)
        tables = tables if world.tables == number else snapshots(world)
        asked = row_of(random, keys + 2) | {"at": START + random.choice([1, 5, 8]) * HOUR / 2}
        answers.append(answer(world, tables, {name: value for name, value in asked.items() if name != "op"}))
    logs = {name: log_of(world, name) for name in tables}
    assert max(log.known_since for log in logs.values()) < 0
    for given_ in answers:
        parts = {name: part_of(logs[name], given_.asked, *of, rule) for name, of in given_.tables.items()}
        rows = {name: part.rows_at(given_.at) for name, part in parts.items()}
        assert not differences(world, given_, rows)
    # The versions with their dates give what is served of a moment after all of them.
    last = answer(world, tables, answers[-1].asked | {"at": START + 40 * HOUR})
    assert not differences(world, last, {name: logs[name].dated(*of) for name, of in snapshots(world).items()})


def test_a_correction_that_online_state_lost_is_not_what_the_log_tells() -> None:
    world = world_of(tx(1, amount=5.0))
    tables = snapshots(world)
    before = dict(world.store._tables["t1"])
    world.post("tx", tx(1, amount=7.0), columns={"amount"})
    world.store.put("t1", [(key, blob) for key, blob in before.items() if key != STATE_KEY])
    asked = dict.fromkeys(COLUMNS[:-1]) | {"id": 9, "card": "a", "at": START + 3 * HOUR}
    lost = answer(world, tables, asked)
    parts = {name: part_of(log_of(world, name), asked, *of, DATED) for name, of in tables.items()}
    assert parts["tx"].moments() == {world.clock}
    found = differences(world, lost, {name: part.rows_at(lost.at) for name, part in parts.items()})
    assert found["card_sum_amount_2d"] == (5.0, 7.0)
    assert not differences(world, lost, {name: part.rows_at(lost.at - 1) for name, part in parts.items()})


def test_the_log_keeps_what_a_row_was_for_two_days_and_at_most_sixteen_times() -> None:
    world = world_of(tx(1, amount=5.0))
    writer, begun = world.writer(), world.clock

    def correct(*amounts: int) -> None:
        for amount in amounts:
            world.clock += 1
            advance([writer], "tx", [tx(1, amount=float(amount))])

    correct(*range(17))
    assert log_of(world).known_since < 0
    correct(17)
    assert log_of(world).known_since == begun + 2
    world.clock += 2 * DAY - 1
    correct(18)
    assert log_of(world).known_since == begun + 18  # in force until now
    # A log of an earlier version of Cumulant: of what came before the version in force nothing is known.
    table, key = log_table("s", "tx"), row_key([1])
    record = msgspec.msgpack.decode(world.store.get(table, [key])[0] or b"")
    assert len(record) == len(LoggedRow.__struct_fields__)
    world.store.put(table, [(key, msgspec.msgpack.encode(record[:11]))])
    assert log_of(world).known_since == world.clock
