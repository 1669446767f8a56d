"""Batches that are merged into entities by column leave the bytes that rows posted one by one do."""

from datetime import timedelta
from functools import partial
from random import Random

import msgspec
import polars as pl
import pytest

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
from cumulant.features.posted.posted_events import PostedRow, SourceLog, log_table, row_key
from cumulant.features.posted.state_update import advance
from cumulant.testing.online import MemoryOnline
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


def plan():
    tx = source("tx")
    card = tx.by("card")
    features = {
        "n": card.count(window=["1h", "2d"]),
        "spent": card.sum("amount", window="2d"),
        "note": card.last("note", window="2d"),
        "rate": tx.by("shop").mean("label", window="1d"),
        "newest": tx.as_of("card", "shop").columns("amount"),
    }
    fields = tuple(Field(name, dtype) for name, dtype in FIELDS.items())
    sources = {"tx": Source("tx", ("id",), "at", fields, {"label": KnownAt(delay_us=3_600_000_000)})}
    return compile_plan(collect(features), sources, entity="tx", predict_at=PredictAt("at"))


def rows(random, first, count, day):
    """Rows around a day, some of them much earlier or later."""
    return [
        {
            "id": f"p{first + number}",
            "card": random.choice(["a", "b", None]),
            "shop": random.choice([1, 2]),
            "done": None,
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


@pytest.mark.parametrize("way", ["posted", "ingested", "filled"])
def test_an_event_is_kept_as_long_as_it_has_the_latest_event_time(way):
    """Not until the next of its key is known, though events of earlier days became known since."""
    tx, fields = source("tx"), tuple(Field(name, dtype) for name, dtype in FIELDS.items())
    newest = tx.as_of("card", order="event_time").columns("note")
    one = compile_plan(
        collect({"newest": newest, "n": tx.by("card").distinct("note", window="1d")}),
        {"tx": Source("tx", ("id",), "at", fields, {"note": KnownAt(column="done")})},
        entity="tx",
        predict_at=PredictAt("at"),
    )
    days = [{"at": START + timedelta(days=-day), "done": START + timedelta(days=day)} for day in range(8)]
    days += [{"at": START + timedelta(days=7.5), "done": START + timedelta(days=9)}]
    other = {"shop": 1, "amount": 1.0, "label": 1}
    values = [
        {"id": f"p{number}", "card": "a", "note": f"of {number}"} | other | day for number, day in enumerate(days)
    ]
    store = MemoryOnline()
    filled = values if way == "filled" else values[:1]
    materialize(one, {"tx": frame(filled)}, store, table="t", since=START + timedelta(days=6 * (way == "filled")))
    writer = StateWriter(one, store, "t")
    batches = EventBatchWriter(writer, "tx")
    rest = values[len(filled) :]
    for number, pair in enumerate([rest[at : at + 2] for at in range(0, len(rest), 2)], 1):
        if way == "posted":
            advance([writer], "tx", pair)
        else:
            batches.apply(number, read_fields("tx", one.sources["tx"].fields, frame(pair)))
    query = {"id": "p9", "card": "a", "at": START + timedelta(days=8)}
    assert OnlineFeatures(one, store, "t").vectors([query]).columns["note"] == ["of 0"]


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
        MemoryOnline.update(store, partial(_log, rows=[PostedRow(key, {}, {}) for key in keys]))

    store.before = post
    assert writer.apply(1, batch).accepted == 10
    assert len(posted) > 16
    assert writer.applied() == 1


def _log(cells, rows):
    log = SourceLog(cells, log_table("", "tx"))
    log.append_new(rows)
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
