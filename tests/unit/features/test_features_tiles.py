"""Entities with many events: divided into tiles, they are what they would be in one blob, and cost less to change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import arange
from tiled_tables import SMALL, WHOLE, check_form, events_of, is_entity, rows_of, tiles_of

from cumulant.core.errors import IntegrityError
from cumulant.core.plan import Corrections, FeaturePlan, Field, KnownAt, PredictAt, Source
from cumulant.core.units import to_micros
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.online.repair import forget_key, read_key
from cumulant.features.online.state import STATE_KEY, Events, decode_state, entity_key
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.online.tiles import TILES, TileRule
from cumulant.features.posted.event_append import EventAppender
from cumulant.features.posted.event_expiry import LATE_US
from cumulant.features.posted.state_update import advance
from cumulant.ports.online import Cells, Result
from cumulant.testing.online import MemoryOnline

pytestmark = pytest.mark.slow

Row = dict[str, Any]
START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SCHEMA: Any = {
    "id": pl.Int64,
    "card": pl.String,
    "at": pl.Datetime("us", "UTC"),
    "done": pl.Datetime("us", "UTC"),
    "amount": pl.Float64,
    "word": pl.String,
    "changed": pl.Datetime("us", "UTC"),
    "op": pl.String,
}


def make_plan(*, corrected: bool, unlimited: bool) -> FeaturePlan:
    """Windows of up to six hours, of values known with their row and later; `unlimited`: and the newest row ever."""
    names = (("id", "int"), ("card", "str"), ("at", "time"), ("done", "time"), ("amount", "float"), ("word", "str"))
    fields = tuple(Field(name, dtype) for name, dtype in names)  # type: ignore[arg-type]
    corrections = Corrections((Field("changed", "time"),), Field("op", "str"), ("D",))
    known = {"word": KnownAt(column="done")}
    tx = source("tx")
    card = tx.by("card")
    defined: dict[str, Any] = {
        "sum": card.sum("amount", window="6h"),
        "number": card.count(window="3h"),
        "last": card.last("word", window="6h"),
        "different": card.distinct("word", window="2h"),
        "latest": card.last("word", window="6h", order="event_time"),
    }
    limit = None if unlimited else "6h"
    defined["latest_event"] = tx.as_of("card", within=limit, order="event_time").columns("word")["word"]
    if unlimited:
        defined["newest"] = tx.as_of("card").columns("amount", "word")
    options = {"corrections": corrections} if corrected else {}
    of = Source("tx", ("id",), "at", fields, known, **options)
    return compile_plan(collect(defined), {"tx": of}, entity="tx", predict_at=PredictAt("at", 0))


PLANS = {
    (corrected, unlimited): make_plan(corrected=corrected, unlimited=unlimited)
    for corrected in (False, True)
    for unlimited in (False, True)
}


def made_row(number: int, hours: float, **values: Any) -> Row:
    at = START + hours * HOUR
    row = {"id": number, "card": "a", "at": at, "done": at, "amount": float(number), "word": f"w{number % 5}"}
    return row | {"changed": at, "op": "U"} | values


class Tables:
    """The same rows in tables of several rules, with a clock of their own."""

    def __init__(self, plan: FeaturePlan, rows: list[Row], rules: Iterable[TileRule], **options: Any) -> None:
        self.plan, self.now, self.corrected = (
            plan,
            to_micros(START),
            isinstance(plan.sources["tx"].corrections, Corrections),
        )
        self.rows, self.stores, self.readers = rows, {rule: MemoryOnline() for rule in rules}, {}
        for rule, store in self.stores.items():
            materialize(plan, self.frames(), store, table="t", tiles=rule, **options)
            self.readers[rule] = OnlineFeatures(plan, store, "t")

    def frames(self) -> dict[str, pl.DataFrame]:
        return {"tx": pl.DataFrame(self.rows, schema=SCHEMA)}

    def writer(self, rule: TileRule) -> StateWriter:
        return StateWriter(self.plan, self.stores[rule], "t", now_us=lambda: self.now, tiles=rule)

    def post(self, rows: list[Row]) -> None:
        """A row that only some tables still hold is a duplicate in these alone."""
        results = [advance([self.writer(rule)], "tx", rows) for rule in self.stores]
        assert len({(done.accepted + done.duplicates, done.early) for done in results}) == 1

    def check(self, moments: Iterable[datetime]) -> None:
        """The tables have their form; those that were read before and those that are read anew answer as one without
        tiles, where that has all events of a moment; and none misses events that a moment of the last day can see.
        """
        asked = [{"id": 10**6, "card": card, "at": at} for at in moments for card in "ab"]
        whole = self.readers[WHOLE].vectors(asked)
        for rule, store in self.stores.items():
            check_form(store, rule)
            for reader in (self.readers[rule], OnlineFeatures(self.plan, store, "t")):
                found = reader.vectors(asked)
                for at, row in enumerate(asked):
                    if whole.late[at] is None:
                        for name, values in whole.columns.items():
                            assert found.columns[name][at] == pytest.approx(values[at]), (rule, name, row)
                    if not self.corrected and to_micros(row["at"]) >= self.now - LATE_US:
                        assert found.late[at] is None


def made_posts(random: Random, corrected: bool) -> Iterable[tuple[float, list[Row]]]:
    """Posts and the hours at which they come: mostly new rows, some late, some ahead, in part, repeated, contradicting
    earlier ones, and where the source has corrections, corrections and deletions.
    """
    hours, numbers = 0.0, list[int]()
    for _ in range(20):
        hours += random.choice([0.1, 0.1, 1.0, 5.0, 30.0])
        rows = []
        for _ in range(random.randrange(1, 5)):
            late = random.choice([0, 0, 0, 0.5, 4, 40, -3])
            kind = random.random()
            number = random.choice(numbers) if numbers and kind < 0.4 else len(numbers) * 7 - 30
            row = made_row(number, hours - late, card=random.choice("aaab"), amount=random.choice([1.0, 2.5, None]))
            row["done"] = random.choice([row["at"], None, row["at"] + HOUR])
            if corrected:
                row |= {"changed": START + hours * HOUR, "op": "D" if kind < 0.1 else "U"}
            if number not in numbers:
                numbers.append(number)
            rows.append({name: value for name, value in row.items() if name == "id" or random.random() < 0.95})
        yield hours, rows


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(sorted(PLANS)), st.integers(0, 2**32), st.integers(0, 30))
def test_an_entity_in_tiles_is_what_it_is_in_one_blob(which: tuple[bool, bool], seed: int, stored: int) -> None:
    random = Random(seed)
    rows = [made_row(1000 + at, -random.random() * 20) for at in range(stored)]
    since = random.choice([None, START - 3 * HOUR])
    tables = Tables(PLANS[which], rows, [WHOLE, SMALL, TileRule(5, 3, seed=1)], since=since)
    begin = START - 30 * HOUR if since is None else since
    for hours, posted in made_posts(random, which[0]):
        now = START + hours * HOUR
        tables.now = to_micros(now)
        tables.post(posted)
        tables.check(max(begin, now - back * HOUR) for back in (0, 0.05, 3, 23, 60, -4))


@pytest.mark.parametrize("which", sorted(PLANS))
def test_an_appended_event_is_stored_as_an_inserted_one(which: tuple[bool, bool]) -> None:
    plan, count, append = PLANS[which], 0, EventAppender.append

    def counted(*arguments: Any, **options: Any) -> Events | None:
        nonlocal count
        events = append(*arguments, **options)
        count += events is not None
        return events

    for seed in range(20):
        random = Random(seed)
        rule = random.choice([WHOLE, TileRule(5, 3, seed=1)])
        # Posts contradict these rows, whose keys they have.
        rows = [made_row(at * 7 - 30, -random.random() * 20) for at in range(random.randrange(6))]
        tables = Tables(plan, rows, [rule], since=random.choice([None, START - 3 * HOUR]))
        inserted = MemoryOnline()
        inserted._tables = {name: dict(blobs) for name, blobs in tables.stores[rule]._tables.items()}
        before = 0.0
        for hours, posted in made_posts(random, which[0]):
            at = {"at": START + before * HOUR, "done": START + before * HOUR}
            # In odd worlds later rows have smaller keys: they belong before those of the same moment.
            keyed = [row | {"id": row["id"] * (-1) ** seed} for row in posted]
            rows = [row | at if random.random() < 0.6 else row for row in keyed]
            before, tables.now = hours, to_micros(START + hours * HOUR)
            writer = StateWriter(plan, inserted, "t", now_us=lambda: tables.now, tiles=rule)  # noqa: B023
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(EventAppender, "append", lambda *_, **_options: None)
                expected = advance([writer], "tx", rows)
                patch.setattr(EventAppender, "append", counted)
                assert advance([tables.writer(rule)], "tx", rows) == expected
            assert tables.stores[rule]._tables == inserted._tables, seed
    assert count > 40


@pytest.mark.parametrize("corrected", [False, True])
def test_what_was_posted_of_a_key_is_forgotten_with_its_tiles(corrected: bool) -> None:
    rows = [made_row(at, at / 10) for at in range(40)]
    tables = Tables(PLANS[corrected, True], rows, [WHOLE, SMALL])
    before = {rule: rows_of(store) for rule, store in tables.stores.items()}
    tables.now = to_micros(START + 10 * HOUR)
    tables.post([made_row(100 + at, 4 + at / 10) for at in range(30)])
    tables.post([made_row(200 + at, at / 10, card="b") for at in range(10)])
    moment = START + 5 * HOUR
    for rule, store in tables.stores.items():
        assert read_key(tables.plan, store, "t", {"card": "a"}, now=moment)[0].events == 70
        done = forget_key(tables.plan, tables.frames(), store, "t", {"card": "a"}, tiles=rule)
        assert done.rows == 30
        assert {key for key in rows_of(store) if b"\xa1a" in key} == before[rule].keys()
    tables.check([moment, START + 3 * HOUR])
    assert check_form(tables.stores[SMALL], SMALL) >= 2


def test_nothing_of_an_erased_key_stays() -> None:
    """The history no longer has it."""
    tables = Tables(PLANS[False, True], [made_row(at, at / 10) for at in range(40)], [SMALL])
    tables.post([made_row(100 + at, 4 + at / 10) for at in range(30)])
    store, tables.rows = tables.stores[SMALL], []
    assert len(rows_of(store)) > 20
    forget_key(tables.plan, tables.frames(), store, "t", {"card": "a"}, tiles=SMALL)
    assert set(store._tables["t"]) == {STATE_KEY}


def test_a_damaged_key_is_refused_and_changes_nothing() -> None:
    """Which tiles it has is not known."""
    tables = Tables(PLANS[False, True], [made_row(at, at / 10) for at in range(40)], [SMALL])
    store, rows = tables.stores[SMALL], tables.rows
    store.put("t", [(key, b"rubbish") for key in rows_of(store) if is_entity(key)])
    before, tables.rows = dict(store._tables["t"]), []
    for change in (
        lambda: forget_key(tables.plan, tables.frames(), store, "t", {"card": "a"}, tiles=SMALL),
        lambda: tables.post([made_row(1000, 5)]),
    ):
        with pytest.raises(IntegrityError, match="cannot be read"):
            change()
    assert store._tables["t"] == before
    materialize(tables.plan, {"tx": pl.DataFrame(rows, schema=SCHEMA)}, store, table="t", tiles=SMALL)
    assert check_form(store, SMALL) >= 1


def test_an_entity_that_shrinks_is_one_blob_again() -> None:
    tables = Tables(PLANS[True, False], [made_row(at, at / 10) for at in range(30)], [SMALL])
    store, deleted = tables.stores[SMALL], {"op": "D", "changed": START + 5 * HOUR}
    tables.now = to_micros(START + 5 * HOUR)
    sizes = []
    for number in Random(3).sample(range(30), 30):
        tables.post([{"id": number, **deleted}])
        check_form(store, SMALL)
        sizes.append(len(rows_of(store)))
    assert sizes[0] > 10
    assert sizes[-1] == len(events_of(store)) == 2, "the moments that are refused are still known"


@pytest.mark.parametrize("what", ["missing", "damaged", "another"])
def test_a_damaged_tile_is_named(what: str) -> None:
    tables = Tables(PLANS[False, False], [made_row(at, at / 10) for at in range(40)], [SMALL])
    store, plan = tables.stores[SMALL], tables.plan
    tile = min(key for key in store._tables["t"] if key.startswith(b"\x00tile"))
    if what == "missing":
        del store._tables["t"][tile]
    else:
        newer = tables.stores[SMALL].get("t", [tile])[0] or b""
        store.put("t", [(tile, b"rubbish" if what == "damaged" else newer[:-1] + b"\x07")])
    for read in (
        lambda: OnlineFeatures(plan, store, "t").vectors([{"id": 0, "card": "a", "at": START}]),
        lambda: read_key(plan, store, "t", {"card": "a"}, now=START),
    ):
        with pytest.raises(IntegrityError, match="cannot be read"):
            read()
    with pytest.raises(IntegrityError, match="missing or damaged"):
        tables.post([made_row(1000, -1)])


class MeasuredOnline(MemoryOnline):
    """Counts the bytes that are read and written, and reads of tables of entities."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = self.read_bytes = self.written_bytes = 0

    def get(self, table: str, keys: Any) -> list[bytes | None]:
        self.reads += table == "t"
        blobs = super().get(table, keys)
        self.read_bytes += sum(len(blob) for blob in blobs if blob is not None)
        return blobs

    def update(self, change: Callable[[Cells], Result]) -> Result:
        def measured(cells: Cells) -> Result:
            result = change(cells)
            for rows in cells.written.values():  # type: ignore[attr-defined]
                self.written_bytes += sum(len(blob) for blob in rows.values() if blob is not None)
            return result

        return super().update(measured)


def test_a_posted_row_and_the_next_read_cost_the_newest_events_only() -> None:
    rows = [made_row(at, at / 10_000) for at in range(20_000)]
    plan, store = PLANS[False, False], MeasuredOnline()
    materialize(plan, {"tx": pl.DataFrame(rows, schema=SCHEMA)}, store, table="t", tiles=TileRule(seed=2))
    assert check_form(store, TILES) == len([key for key in store._tables["t"] if is_entity(key)])
    reader, asked = OnlineFeatures(plan, store, "t"), {"id": 10**6, "card": "a", "at": START + 2 * HOUR}
    counted = reader.vectors([asked]).columns["number_3h"]
    writer = StateWriter(plan, store, "t", now_us=lambda: 0)
    bytes_of_all = sum(map(len, store._tables["t"].values()))
    for number in range(50):
        store.read_bytes = store.written_bytes = 0
        advance([writer], "tx", [made_row(10**5 + number, 2)])
        assert store.written_bytes < bytes_of_all / 10
        assert reader.vectors([asked]).columns["number_3h"] == [counted[0] + number + 1]
        assert store.read_bytes < bytes_of_all / 5
    # an event far back: the tile that it is in, too
    store.written_bytes = 0
    advance([writer], "tx", [made_row(10**6 + 1, 0.5)])
    assert store.written_bytes < bytes_of_all / 10
    assert reader.vectors([asked]).columns["number_3h"] == [counted[0] + 51]


def test_what_many_posted_rows_need_is_read_together() -> None:
    rows = [made_row(at, at / 10_000) for at in range(20_000)]
    plan, store = PLANS[False, False], MeasuredOnline()
    materialize(plan, {"tx": pl.DataFrame(rows, schema=SCHEMA)}, store, table="t", tiles=TileRule(seed=1))
    groups, writer = len(events_of(store)), StateWriter(plan, store, "t", now_us=lambda: 0)
    # the state, the entities, and of each one what its rows need; new tiles need the rest of its fingerprints
    for posted, reads in ((1, 2 + groups), (200, 2 + 2 * groups)):
        store.reads = 0
        advance([writer], "tx", [made_row(10**5 * posted + at, 1 + at / 200) for at in range(posted)])
        assert store.reads <= reads


def test_keys_of_rows_do_not_choose_where_tiles_begin() -> None:
    """Of one table they are such that each would begin a tile: in another one few do."""
    numbers = arange(1_500_000)
    chosen = TileRule().starts(Events(numbers.tobytes(), (), identities=numbers.tobytes()))
    assert len(chosen) > 2_000
    rows = [made_row(number, at / 1_000) for at, number in enumerate(chosen)]
    stores = [MemoryOnline(), MemoryOnline()]
    for store in stores:
        materialize(PLANS[False, False], {"tx": pl.DataFrame(rows[::2], schema=SCHEMA)}, store, table="t")
        advance([StateWriter(PLANS[False, False], store, "t", now_us=lambda: 0)], "tx", rows[1::2])
        assert check_form(store, TILES) >= 1
        assert len(store._tables["t"]) < 100
    seeds = {decode_state(store._tables["t"][STATE_KEY]).seed for store in stores}
    assert len(seeds) == 2


def test_tiles_that_do_not_change_stay_as_they_were_written() -> None:
    tables = Tables(PLANS[False, False], [made_row(at, at / 10) for at in range(60)], [TileRule(4, 4, seed=1)])
    rule = TileRule(4, 4, seed=1)
    store = tables.stores[rule]
    keys = [entity_key(number, ["a"]) for number in range(len(events_of(store)))]
    before = tiles_of(store, keys)
    tables.post([made_row(1000, 2.95)])
    for old, new in zip(before, tiles_of(store, keys), strict=True):
        assert len({*new} - {*old}) in (1, 2), "the one that it is in, or both halves of it"
