"""The log of rows that correct each other tells what online state had at any moment that it still knows."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any, NamedTuple

import msgspec
import polars as pl
import pytest
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

from cumulant.core.units import to_micros
from cumulant.data.row_columns import LATE, ROW
from cumulant.features.offline.groups import groups_of
from cumulant.features.offline.offline import compute
from cumulant.features.online.logged_rows import log_begun
from cumulant.features.online.repair import forget_key
from cumulant.features.online.requests import RequestReader
from cumulant.features.online.state import STATE_KEY
from cumulant.features.posted.posted_events import LoggedRow, SourceLog, log_table, row_key
from cumulant.features.posted.requested_rows import RequestedRows
from cumulant.features.posted.state_update import advance
from cumulant.features.posted.version_log import LoggedPart, VersionLog
from cumulant.features.verification import differing

Tables = dict[str, tuple[pl.DataFrame, pl.DataFrame]]
DAY = 24 * 3600 * 1_000_000
#: when the logs of these tests begin, in microseconds
BEGUN = to_micros(START) - 1


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


def log_of(world: World, asked: list[Row], tables: Iterable[Tables], name: str = "tx") -> VersionLog:
    """The log as these requests may have seen it, of these tables."""
    table, read = log_table("s", name), RequestReader(world.plan.request).read
    begun = log_begun(world.store, table)
    if begun is None or begun > world.clock:  # by the system's clock, as the filling began it
        world.store.update(lambda cells: begin(SourceLog(cells, table)))
    rows = RequestedRows(world.plan, name, [read(row) for row in asked])
    for of in tables:
        rows.add(of[name][0])
    return VersionLog(world.plan, name, world.store, scope="s", requested=rows)


def begin(log: SourceLog) -> None:
    log._header.begun = None
    log.begin(BEGUN)
    log.save()


def part_of(log: VersionLog, asked: Row, rows: pl.DataFrame, deletions: pl.DataFrame, rule: Rule) -> LoggedPart:
    """The versions that a request may see."""
    keys = [
        pl.all_horizontal(pl.col(name).eq(pl.lit(asked[name])).fill_null(value=False) for name in group.by)
        for group in groups_of(PLANS[rule])
        if group.source == log.name
    ]
    inside = RequestReader(PLANS[rule].request).read(asked)
    return log.part(rows, deletions, pl.any_horizontal(keys), inside)


def known_since(world: World, **asked: Any) -> int:
    """From when on the log tells what a request saw."""
    tables = snapshots(world)
    row = dict.fromkeys(COLUMNS[:-1]) | {"id": 9, "card": "a", "at": START} | asked
    return part_of(log_of(world, [row], [tables]), row, *tables["tx"], DATED).known_since


def differences(world: World, given: Answer, frames: dict[str, Any]) -> dict[str, tuple[object, object]]:
    (right,) = compute(world.plan, frames, rows=frame([given.asked])).to_dicts()
    return {name: (given.served[name], right[name]) for name in differing(given.served, right, world.plan.names)}


@pytest.mark.slow
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
    last = answer(world, tables, answers[-1].asked | {"at": START + 40 * HOUR})
    asked = [given_.asked for given_ in (*answers, last)]
    logs = {name: log_of(world, asked, [given_.tables for given_ in answers], name) for name in tables}
    for given_ in answers:
        parts = {name: part_of(logs[name], given_.asked, *of, rule) for name, of in given_.tables.items()}
        assert max(part.known_since for part in parts.values()) == BEGUN
        rows = {name: part.rows_at(given_.at) for name, part in parts.items()}
        assert not differences(world, given_, rows)
    # The versions with their dates give what is served of a moment after all of them.
    assert not differences(world, last, {name: logs[name].dated(*of) for name, of in snapshots(world).items()})


def test_a_correction_that_online_state_lost_is_not_what_the_log_tells() -> None:
    world = world_of(tx(1, amount=5.0))
    tables = snapshots(world)
    before = dict(world.store._tables["t1"])
    world.post("tx", tx(1, amount=7.0), columns={"amount"})
    world.store.put("t1", [(key, blob) for key, blob in before.items() if key != STATE_KEY])
    asked = dict.fromkeys(COLUMNS[:-1]) | {"id": 9, "card": "a", "at": START + 3 * HOUR}
    lost = answer(world, tables, asked)
    logs = {name: log_of(world, [asked], [tables], name) for name in tables}
    parts = {name: part_of(logs[name], asked, *of, DATED) for name, of in tables.items()}
    assert parts["tx"].moments() == {world.clock}
    batch = snapshot(world.filed["tx"]).with_columns(pl.lit(value=False).alias(LATE))
    (waiting,) = logs["tx"].pending(batch, world.clock)
    assert not waiting.row.other.keys() & {ROW, LATE}
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
    assert known_since(world) == BEGUN
    correct(17)
    assert known_since(world) == begun + 2
    world.clock += 2 * DAY - 1
    correct(18)
    assert known_since(world) == begun + 18  # in force until now
    # What else is asked for never was in this row, and it is not held.
    assert known_since(world, card="b") == BEGUN
    assert not log_of(world, [{**dict.fromkeys(COLUMNS[:-1]), "id": 9, "card": "b", "at": START}], [])._records
    # A log of an earlier version of Cumulant: of what came before the version in force nothing is known.
    table, key = log_table("s", "tx"), row_key([1])
    stored = world.store.get(table, [key])[0] or b""
    record = msgspec.msgpack.decode(stored)
    assert len(record) == len(LoggedRow.__struct_fields__)
    world.store.put(table, [(key, msgspec.msgpack.encode(record[:11]))])
    assert known_since(world) == known_since(world, card="b") == world.clock
    world.store.put(table, [(key, msgspec.msgpack.encode(record[:14]))])  # it may have been any row before
    assert known_since(world, card="b") == begun + 18
    # A row that had another card, when that is not kept any more, may have been of each.
    world.store.put(table, [(key, stored)])
    world.clock += 1
    advance([world.writer()], "tx", [tx(1, card="c")])
    correct(*range(20))
    assert known_since(world, card="b") == known_since(world, card="a") == world.clock - 16


def test_a_log_knows_nothing_of_before_it_began_or_lost_rows() -> None:
    world = world_of(tx(1), tx(2))
    table = log_table("s", "tx")
    began = log_begun(world.store, table)
    assert began is not None
    assert began > world.clock  # the filling began it
    (header,) = world.store.get(table, [b"\x00"])
    assert msgspec.msgpack.decode(header or b"")[2] == began
    world.post("tx", tx(1, amount=7.0), columns={"amount"})
    assert log_begun(world.store, table) == began
    frames = {name: of for name, (of, _) in snapshots(world).items()}
    world.store.update(lambda cells: begin(SourceLog(cells, table)))
    assert forget_key(world.plan, frames, world.store, "t1", {"card": "a"}).rows == 1
    forgot = log_begun(world.store, table)
    assert forgot is not None
    assert forgot > BEGUN
    # A log that is emptied, or written by an earlier version of Cumulant, knows nothing until it is written again.
    world.store.put(table, [(b"\x00", msgspec.msgpack.encode([0, 0]))])
    assert log_begun(world.store, table) is None
    world.post("tx", tx(1, amount=8.0), columns={"amount"})
    assert log_begun(world.store, table) == world.clock
