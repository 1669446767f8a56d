"""What corrections leave of an entity's events, and of the rows that they correct, in every table that takes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import polars as pl
import pytest
from tiled_tables import events_of

from cumulant.core.plan import Corrections, FeaturePlan, Field, KnownAt, PredictAt, Source
from cumulant.core.units import to_micros
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.online.state import Events
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.posted.event_expiry import LATE_US
from cumulant.features.posted.event_insert import Entity
from cumulant.features.posted.state_update import advance
from cumulant.testing.online import MemoryOnline

Row = dict[str, Any]
NOW = datetime(2026, 11, 1, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
FIELDS = tuple(
    Field(name, dtype)  # type: ignore[arg-type]
    for name, dtype in (("id", "int"), ("card", "str"), ("at", "time"), ("amount", "float"), ("changed", "time"))
)


def make_plan(*, known: bool) -> FeaturePlan:
    """Windows of an hour; the amount is `known` with the column that orders versions, or with its event."""
    corrections = Corrections((Field("changed", "time"),), Field("op", "str"), ("D",))
    times = {"amount": KnownAt(column="changed")} if known else {}
    of = Source("tx", ("id",), "at", FIELDS, known=times, corrections=corrections)
    by = source("tx").by("card")
    features = {"sum": by.sum("amount", window="1h"), "n": by.count(window="1h")}
    return compile_plan(collect(features), {"tx": of}, entity="tx", predict_at=PredictAt("at", 0))


PLANS = {known: make_plan(known=known) for known in (False, True)}


def row(number: int, at: datetime, amount: float = 1.0) -> Row:
    return {"id": number, "card": "a", "at": at, "amount": amount, "changed": at, "op": "U"}


#: one a minute, for five days up to now
ROWS = [row(number, NOW - number * MINUTE) for number in range(5 * 24 * 60)]


class Served:
    """A table of one plan that is filled from rows, at a clock that stands still."""

    def __init__(self, plan: FeaturePlan, rows: list[Row], store: MemoryOnline | None = None) -> None:
        self.plan, self.store = plan, MemoryOnline() if store is None else store
        materialize(plan, {"tx": pl.DataFrame(rows)}, self.store, table="t")

    def post(self, *rows: Row, clock: datetime = NOW) -> int:
        return advance([StateWriter(self.plan, self.store, "t", now_us=lambda: to_micros(clock))], "tx", rows).accepted

    def at(self, moment: datetime) -> tuple[Any, Any]:
        asked = {"id": 10**6, "card": "a", "at": moment, "amount": 0.0}
        found = OnlineFeatures(self.plan, self.store, "t").vectors([asked]).columns
        return found["sum_1h"][0], found["n_1h"][0]


@pytest.mark.parametrize("ahead", [MINUTE / 2, 2 * HOUR, 240 * HOUR, 24 * 365 * 50 * HOUR])
@pytest.mark.parametrize("known", [False, True])
def test_a_correction_that_was_known_ahead_drops_no_event(known: bool, ahead: timedelta) -> None:
    """As earlier versions of Cumulant took them in: now the clock at which it is posted is ahead."""
    served = Served(PLANS[known], ROWS)
    new = [row(10**5 + number, NOW) for number in range(20)]
    moments = [NOW - hours * HOUR for hours in (0, 0.5, 5, 23)]
    anew = Served(PLANS[known], [*ROWS, *new])
    wanted = [anew.at(moment) for moment in moments]
    assert served.post({"id": 100, "amount": 3.0, "changed": NOW + ahead}, clock=NOW + ahead) == 1
    for one in new:
        assert served.post(one) == 1
    # The row itself lies before the windows of all moments.
    found = [served.at(moment) for moment in moments]
    assert found[0] == wanted[0]
    assert [one for one, _ in found[2:]] == [one for one, _ in wanted[2:]]
    if known:
        assert served.at(NOW + ahead)[0] == 3.0 + max(0.0, anew.at(NOW + ahead)[0] or 0.0)


@pytest.mark.parametrize("known", [False, True])
def test_a_correction_keeps_the_day_of_tolerance_of_late_requests(known: bool) -> None:
    served = Served(PLANS[known], ROWS)
    moments = [NOW - hours * HOUR for hours in (0, 0.2, 0.5, 5, 23.9)]
    before = [served.at(moment) for moment in moments]
    assert served.post({"id": 3000, "amount": 3.0, "changed": NOW}) == 1
    after = [served.at(moment) for moment in moments]
    assert [count for _, count in after] == [count for _, count in before]
    assert after[1:] == before[1:]
    # Of a correction of an old row room is made for that one; of a new row up to a day before it.
    times = _events(served).times
    assert served.post(row(10**5, NOW)) == 1
    assert len(_events(served).times) < len(times)
    assert [served.at(moment) for moment in moments[1:]] == before[1:]


def _events(served: Served) -> Events:
    return next(iter(events_of(served.store).values()))


@pytest.mark.parametrize("moment", [-1, 1, 10**9])
def test_blobs_that_say_one_moment_keep_the_day_of_tolerance(moment: int) -> None:
    """Earlier versions of Cumulant wrote the moment of a correction as if events had been dropped up to it."""
    served = Served(PLANS[False], ROWS)
    ((key, older),) = events_of(served.store).items()
    older = msgspec.structs.replace(older, since_us=to_micros(NOW) + moment * 1_000_000)
    served.store.put("t", [(key, msgspec.msgpack.encode(older))])
    before = [served.at(NOW - hours * HOUR) for hours in (0.5, 23.9)]
    assert served.post(row(10**5, NOW)) == 1
    assert [served.at(NOW - hours * HOUR) for hours in (0.5, 23.9)] == before
    first = Entity(StateWriter(PLANS[False], served.store, "t")._groups["tx"][0].group, older, keyed=True)
    assert first.kept == older.since_us
    assert first.second_newest(to_micros(NOW)) == to_micros(NOW - MINUTE) > to_micros(NOW) - LATE_US


def make_items(*names: str, key: str = "int") -> FeaturePlan:
    fields = (Field("id", key), *FIELDS[1:], Field("items", "int"))  # type: ignore[arg-type]
    of = Source("tx", ("id",), "at", fields, corrections=Corrections((FIELDS[4],), Field("op", "str"), ("D",)))
    features = {name: source("tx").by("card").sum(name, window="7d") for name in names}
    return compile_plan(collect(features), {"tx": of}, entity="tx", predict_at=PredictAt("at", 0))


def sums(plan: FeaturePlan, store: MemoryOnline, table: str) -> list[Any]:
    online = OnlineFeatures(plan, store, table)
    online.catch_up()
    asked = {"id": 10**6, "card": "a", "at": NOW + 24 * HOUR, "amount": 0.0, "items": 0}
    return [column[0] for column in online.vectors([asked]).columns.values()]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("served", [("amount", "both"), ("both", "amount"), ("amount",), ("both",)])
def test_what_brings_a_deleted_row_back_has_nothing_of_the_row_before_in_any_plan(
    served: tuple[str, ...], together: bool
) -> None:
    plans, store = {"amount": make_items("amount"), "both": make_items("amount", "items")}, MemoryOnline()
    filed = pl.DataFrame([row(1, NOW) | {"items": 100}])
    for name, plan in plans.items():
        materialize(plan, {"tx": filed}, store, table=name)
    gone = {"id": 1, "op": "D", "changed": NOW + HOUR}
    back = row(1, NOW, 5.0) | {"changed": NOW + 2 * HOUR}
    later = {"id": 1, "amount": 7.0, "changed": NOW + 3 * HOUR}
    for rows in [[gone, back, later]] if together else [[gone], [back], [later]]:
        advance([StateWriter(plans[name], store, name) for name in served], "tx", rows)
    assert (sums(plans["amount"], store, "amount"), sums(plans["both"], store, "both")) == ([7.0], [7.0, 0])
    materialize(plans["both"], {"tx": filed}, store, table="next")
    assert sums(plans["both"], store, "next") == [7.0, 0]


def test_the_two_zeros_are_one_key() -> None:
    plan, store = make_items("amount", key="float"), MemoryOnline()
    materialize(plan, {"tx": pl.DataFrame([row(0, NOW) | {"id": -0.0}])}, store, table="t")
    for at, (amount, zero) in enumerate([(3.0, 0.0), (4.0, -0.0)]):
        posted = {"id": zero, "amount": amount, "changed": NOW + (at + 1) * HOUR}
        assert advance([StateWriter(plan, store, "t")], "tx", [posted]).accepted == 1
        assert sums(plan, store, "t") == [amount]
