"""Batches that are merged into entities by column leave the bytes that rows posted one by one do."""

from datetime import timedelta
from random import Random

import msgspec
import polars as pl
import pytest

from cumulant.core.plan import Field, KnownAt, PredictAt, Source
from cumulant.core.units import to_micros
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.ingested.batch_writer import EventBatchWriter
from cumulant.features.ingested.recent_keys import RecentKeys
from cumulant.features.offline.frames import read_fields
from cumulant.features.offline.polars_compiler import TYPES
from cumulant.features.online.materialization import materialize
from cumulant.features.online.state import STATE_KEY
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.online.tiles import TileRule, decode_entity
from cumulant.features.posted.state_update import advance
from cumulant.testing.online import MemoryOnline
from cumulant.testing.plans.cases import START

FIELDS = {"id": "str", "card": "str", "shop": "int", "at": "time", "amount": "float", "note": "str", "label": "int"}


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
