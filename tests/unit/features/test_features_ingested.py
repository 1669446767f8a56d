"""Batches that are merged into entities by column leave the bytes that rows posted one by one do."""

from datetime import timedelta
from functools import partial
from random import Random
from typing import Any

import msgspec
import polars as pl
import pytest
from tiled_tables import events_of

from cumulant.core.plan import Field, KnownAt, PredictAt, Source
from cumulant.core.units import to_micros
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.ingested import batch_log, batch_writer
from cumulant.features.ingested.batch_writer import EventBatchWriter, TableRefilledError
from cumulant.features.ingested.recent_keys import RecentKeys
from cumulant.features.offline.frames import read_fields
from cumulant.features.offline.polars_compiler import TYPES
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.online.state import STATE_KEY
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.online.tiles import TileRule, decode_entity
from cumulant.features.posted.posted_events import SourceLog, log_table, row_key
from cumulant.features.posted.state_update import advance
from cumulant.testing.online import MemoryOnline
from cumulant.testing.plans import oracle
from cumulant.testing.plans.cases import START

FIELDS = {
    "id": "str",
    "card": "str",
    "shop": "int",
    "at": "time",
    "done": "time",
    "amount": "float",
    "note": "str",
    "label": "int",
}
#: notes are known with another column
KNOWN = {"label": KnownAt(delay_us=3_600_000_000), "note": KnownAt(column="done")}


def plan():
    tx = source("tx")
    card = tx.by("card")
    features = {
        "n": card.count(window=["1h", "2d"]),
        "spent": card.sum("amount", window="2d"),
        "note": card.last("note", window="2d"),
        "rate": tx.by("shop").mean("label", window="1d"),
        "newest": tx.as_of("card", "shop").columns("amount"),
        "latest": tx.as_of("card", order="event_time").columns("note")["note"],
        "latest_of_shop": tx.as_of("shop", order="event_time").columns("note")["note"],
    }
    fields = tuple(Field(name, dtype) for name, dtype in FIELDS.items())
    sources = {"tx": Source("tx", ("id",), "at", fields, KNOWN)}
    return compile_plan(collect(features), sources, entity="tx", predict_at=PredictAt("at"))


def rows(random, first, count, day):
    """Rows around a day, some of them much earlier or later."""
    return [
        {
            "id": f"p{first + number}",
            "card": random.choice(["a", "b", None]),
            "shop": random.choice([1, 2]),
            "done": random.choice([None, START + timedelta(days=day + random.choice([-1, 0, 0, 1]))]),
            "at": START + timedelta(days=day + random.choice([0, 0, 0, 1, -2, -6]), minutes=random.randrange(1440)),
            "amount": random.choice([1.5, 0.1, None]),
            "note": random.choice(["x", None]),
            "label": random.choice([0, 1, None]),
        }
        for number in range(count)
    ]


def frame(values):
    return pl.DataFrame(values, schema={name: TYPES[dtype] for name, dtype in FIELDS.items()})


def entities(store):
    """What is stored of each entity, whichever change wrote it; tiles have their own keys."""
    blobs = {key: decode_entity(blob) for key, blob in store._tables["t"].items() if key != STATE_KEY and key[0] != 0}
    return {
        key: msgspec.structs.replace(events, version=b"") if hasattr(events, "times") else None
        for key, events in blobs.items()
    }


@pytest.mark.parametrize("seed", range(4))
def test_batches_leave_what_posted_rows_leave(seed):
    """With events that expire, lookups without a limit, nulls, rows of the future, and entities with and without tiles
    in the same batch; rows that come again change nothing.
    """
    random, one = Random(seed), plan()
    tiles = TileRule(limit=12 if seed % 2 else 512, mean=4, seed=7)
    now = to_micros(START + timedelta(days=9))
    stores = [MemoryOnline(), MemoryOnline()]
    writers = []
    history = frame(rows(random, 0, 20, 0))
    for store in stores:
        materialize(one, {"tx": history}, store, table="t", since=START, tiles=tiles)
        writers.append(StateWriter(one, store, "t", tiles=tiles, now_us=lambda: now))
    ingested = EventBatchWriter(writers[0], "tx")
    for number in range(1, 6):
        batch = rows(random, number * 100, random.randrange(1, 30), 2 * number)
        advance([writers[1]], "tx", batch)
        ingested.apply(number, read_fields("tx", one.sources["tx"].fields, frame(batch)))
        assert entities(stores[0]) == entities(stores[1])
        assert set(stores[0]._tables["t"]) == set(stores[1]._tables["t"])  # tiles and their indexes too
        EventBatchWriter(writers[0], "tx").apply(number, read_fields("tx", one.sources["tx"].fields, frame(batch)))
        assert entities(stores[0]) == entities(stores[1])
    assert ingested.applied() == 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_of_dropped_events_the_latest_by_event_time_stays(seed):
    """The values are those of all rows, and no state grows with the rows: posted, ingested, or filled each time."""
    random, way, tx = Random(seed), ("posted", "ingested", "filled")[seed % 3], source("tx")
    ever = tx.as_of("card", order="event_time").columns("note")
    features = {"note": ever, "words": tx.by("card").distinct("note", window="1d")}
    if seed % 4 > 1:
        features["known"] = tx.as_of("card").columns("note")["note"]
    fields = tuple(Field(name, dtype) for name, dtype in FIELDS.items())
    sources = {"tx": Source("tx", ("id",), "at", fields, KNOWN)}
    one = compile_plan(collect(features), sources, entity="tx", predict_at=PredictAt("at"))
    values: list[dict[str, Any]] = []
    for number in range(120):
        at = START + timedelta(hours=12 * random.randrange(160))
        done = at + timedelta(hours=12 * random.choice([0, 0, 1, 2, 5, 20, 60]))
        row = {"id": f"p{number}", "card": random.choice("aab"), "shop": 1, "amount": 1.0, "label": 1}
        values.append(row | {"at": at, "done": done, "note": random.choice([f"of {number}", None, "x"])})
    # Some come long after they are known.
    values.sort(key=lambda row: row["done"] + timedelta(days=random.choice([0, 0, 1, 20])))
    store, tiles, since = MemoryOnline(), TileRule(limit=4, mean=3, seed=1) if seed % 2 else TileRule(), START
    materialize(one, {"tx": frame(values[:10])}, store, table="t", tiles=tiles, since=since)
    writer = StateWriter(one, store, "t", tiles=tiles)
    batches = EventBatchWriter(writer, "tx")
    for number in range(1, 12):
        known, batch = values[: number * 10 + 10], values[number * 10 : number * 10 + 10]
        now = max(row["done"] for row in known)
        random.shuffle(batch)
        if way == "filled":
            since = now - timedelta(days=2)
            materialize(one, {"tx": frame(known)}, store, table="t", tiles=tiles, since=since)
        elif way == "ingested":
            batches.apply(number, read_fields("tx", one.sources["tx"].fields, frame(batch)))
        else:
            for row in batch:
                advance([writer], "tx", [row])
        moments = [max(now + timedelta(hours=hours), since) for hours in (-60, -24, -12, 0, 12, 600)]
        asked = [{"id": "q", "card": card, "at": at} for card in "ab" for at in moments]
        served = OnlineFeatures(one, store, "t").vectors(asked)
        for at, row in enumerate(asked):
            assert served.late[at] is None or row["at"] < now
            if served.late[at] is None:
                expected = oracle.of_row(one, {"tx": known}, row, row["at"])
                assert {name: column[at] for name, column in served.columns.items()} == {
                    {"_known_note": "known"}.get(name, name): value for name, value in expected.items()
                }
        assert max(len(events.times) // 8 for events in events_of(store).values()) <= 20


class _Interrupted(MemoryOnline):
    """A store in which something happens before each change of a batch."""

    before = staticmethod(lambda: None)
    changes = 0

    def update(self, change):
        self.changes += 1
        self.before()
        return super().update(change)


def payments(*numbers, cards=10):
    """Rows that are complete; the card of each follows from its number."""
    row = {"done": None, "amount": 1.0, "note": "x", "label": 1}
    keys = [{"id": f"p{at}", "card": f"c{at % cards}", "shop": at % 7} for at in numbers]
    return frame([key | row | {"at": START + timedelta(minutes=at)} for at, key in zip(numbers, keys, strict=True)])


def ingesting(store, one, values):
    writer = StateWriter(one, store, "t", now_us=lambda: to_micros(START + timedelta(days=2)))
    return EventBatchWriter(writer, "tx"), read_fields("tx", one.sources["tx"].fields, values)


def test_a_table_that_is_filled_again_amid_a_batch_gets_the_whole_batch(monkeypatch):
    monkeypatch.setattr(batch_writer, "_MOST_ENTITIES", 2)
    one, stores = plan(), [_Interrupted(), _Interrupted()]
    for store in stores:
        materialize(one, {"tx": payments(*range(8))}, store, table="t", applied={"tx": 1})
        store.changes = 0

    def refill():
        if stores[1].changes == 4:
            stores[1].drop("t")
            stores[1].before = lambda: None
            materialize(one, {"tx": payments(*range(6))}, stores[1], table="t")  # of an earlier snapshot

    stores[1].before = refill
    for store in stores:
        writer, batch = ingesting(store, one, payments(*range(100, 110)))
        assert writer.applied() == 1
        if store is stores[1]:
            with pytest.raises(TableRefilledError):
                writer.apply(2, batch)
            assert writer.applied() == 0
            writer.apply(1, ingesting(store, one, payments(6, 7))[1])
        writer.apply(2, batch)
        assert writer.applied() == 2
    assert entities(stores[0]) == entities(stores[1])


@pytest.mark.parametrize("limit", [12, 512])
def test_one_change_has_few_events_of_an_entity_that_has_many(monkeypatch, limit):
    one, stores, tiles = plan(), [MemoryOnline(), _Interrupted()], TileRule(limit=limit, mean=4, seed=7)
    counts = []
    put = EventBatchWriter._put

    def counted(*arguments, events, **rest):
        counts.append(len(events.times))
        return put(*arguments, events=events, **rest)

    monkeypatch.setattr(EventBatchWriter, "_put", counted)
    for store in stores:
        materialize(one, {"tx": payments(1)}, store, table="t", tiles=tiles)
        writer, batch = ingesting(store, one, payments(*range(100, 129), 5000, cards=1))
        writer._writer.tiles = tiles
        assert writer.apply(1, batch).accepted == 30
        newest = writer._writer.present_state().newest
        assert newest == {"tx": to_micros(START + timedelta(minutes=128))}  # that after the clock does not count
        monkeypatch.setattr(batch_writer, "_MOST_EVENTS", 7)
    assert entities(stores[0]) == entities(stores[1])
    whole, parts = counts[: counts.index(7)], counts[counts.index(7) :]
    assert sum(whole) == sum(parts)
    assert max(parts) == 7


@pytest.mark.parametrize("restarts", [False, True])
def test_a_row_dated_after_now_stands_as_the_first_of_its_key(restarts):
    """As the table has it, in one batch and in two, whether or not the process began between them."""
    one, store = plan(), MemoryOnline()
    materialize(one, {"tx": payments(1)}, store, table="t")
    before = entities(store)
    future = payments(50).with_columns(at=pl.col("at") + timedelta(days=300))
    writer = EventBatchWriter(ingesting(store, one, future)[0]._writer, "tx", skew_us=60 * 10**6)
    both = ingesting(store, one, pl.concat([future, payments(50)]))[1]
    result = writer.apply(1, both)
    assert (result.accepted, result.future, result.duplicates) == (0, 1, 1)
    if restarts:
        writer = EventBatchWriter(writer._writer, "tx", skew_us=60 * 10**6)
        assert writer.applied() == 1
        writer.remember(both)
    result = writer.apply(2, ingesting(store, one, payments(50))[1])
    assert (result.accepted, result.future, result.duplicates) == (0, 0, 1)
    assert entities(store) == before


def test_posts_of_other_rows_do_not_begin_a_batch_anew(monkeypatch):
    monkeypatch.setattr(batch_writer, "_MOST_ENTITIES", 2)
    monkeypatch.setattr(batch_log, "_MOST_POSTED", 3)
    one, store, posted = plan(), _Interrupted(), []
    materialize(one, {"tx": payments(1)}, store, table="t")
    writer, batch = ingesting(store, one, payments(*range(100, 110)))

    def post():
        if store.changes > 40:
            pytest.fail("the batch is begun again and again")
        keys = [row_key([f"z{len(posted) + number}"]) for number in range(8 if store.changes % 6 == 1 else 0)]
        posted.extend(keys)
        MemoryOnline.update(store, partial(_log, keys=keys))

    store.before = post
    assert writer.apply(1, batch).accepted == 10
    assert len(posted) > 16
    assert writer.applied() == 1


def _log(cells, keys):
    log = SourceLog(cells, log_table("", "tx"))
    log.append_new(keys, [{}] * len(keys))
    log.save()


def test_a_key_is_known_among_the_newest_rows():
    import numpy as np

    random, recent, every = Random(1), RecentKeys(1000), []
    for _ in range(60):
        batch = np.array([random.randrange(-(2**63), 2**63) for _ in range(random.randrange(1, 200))])
        recent.add(batch)
        every += batch.tolist()
        newest = np.array(every[-1000:])
        assert recent.holds(newest).all()
        assert not recent.holds(newest + 1).any()
    assert not recent.holds(np.array(every[:500])).all()
