"""Corrected and deleted rows against the oracle: each version counts while it is in force, offline and online."""

from __future__ import annotations

import random
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_features_windows import HOUR, PLANS, SCHEMA, START, assert_same, frame, plans, quick, rows_of

from cumulant.core.errors import DataError
from cumulant.core.plan import FeaturePlan
from cumulant.core.units import to_micros
from cumulant.features.offline import versions as features_versions
from cumulant.features.offline.memory_need import SourceSize
from cumulant.features.offline.offline import compute
from cumulant.features.offline.partitions import Layout, compute_partitioned
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.posted.state_update import advance
from cumulant.testing.online import MemoryOnline
from cumulant.testing.plans import oracle

Row = dict[str, Any]
DATES = {"__from": pl.Int64, "__until": pl.Int64}
few = settings(quick, max_examples=8)
#: rows given apart, also of keys that the history has or had
requests = st.builds(lambda number, row: {"id": number, **row}, st.integers(0, 8), rows_of)


@st.composite
def corrected(draw: st.DrawFn) -> list[Row]:
    """Rows of which some have several versions, some with a time between in which they are deleted, in any order."""
    rows: list[Row] = []
    for number in range(draw(st.integers(0, 7))):
        hours = draw(st.lists(st.integers(1, 24), max_size=4, unique=True).map(sorted))
        moments = [to_micros(START + hour * HOUR / 2) for hour in hours]
        begin: int | None = None
        while True:
            end = moments.pop(0) if moments else None
            rows.append({"id": number, **draw(rows_of), "__from": begin, "__until": end})
            if end is None:
                break
            if moments and draw(st.integers(0, 3)) == 0:
                end = moments.pop(0)
            elif draw(st.integers(0, 5)) == 0:
                break
            begin = end
    return draw(st.permutations(rows))


def versions(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA | DATES)


def parts(plan: FeaturePlan, frames: dict[str, pl.DataFrame]) -> list[pl.DataFrame]:
    """Two rows a block, and about a partition a key."""
    sizes = {name: SourceSize(one.height, 100.0) for name, one in frames.items()}
    lazy = {name: one.lazy() for name, one in frames.items()}
    with tempfile.TemporaryDirectory() as scratch:
        return list(compute_partitioned(plan, lazy, Layout(2, 500, 1e9), sizes=sizes, scratch=Path(scratch)))


def moment(plan: FeaturePlan, row: Row) -> datetime | None:
    assert plan.predict_at is not None
    at = row[plan.predict_at.column]
    return None if at is None else at + timedelta(microseconds=plan.predict_at.offset_us)


def predicted(plan: FeaturePlan, rows: list[Row]) -> list[tuple[int, Row]]:
    """Rows in force at the end: their places, each with the last version that was known when it was predicted."""
    found = []
    for place, row in enumerate(rows):
        if row["__until"] is not None:
            continue
        of_row = sorted((one for one in rows if one["id"] == row["id"]), key=lambda one: one["__from"] or 0)
        known = [
            one
            for one in of_row
            if one["__from"] is None or ((at := moment(plan, one)) is not None and one["__from"] <= to_micros(at))
        ]
        found.append((place, known[-1] if known else row))
    return found


@pytest.mark.slow
@few
@given(corrected(), corrected(), plans)
def test_each_prediction_sees_the_versions_in_force_at_its_moment(tx: Any, other: Any, chosen: int) -> None:
    plan = PLANS[chosen]
    asked = predicted(plan, tx)
    frames = {"tx": versions(tx), "other": versions(other)}
    found = compute(plan, frames)
    assert found["__row"].to_list() == [place for place, _ in asked]
    assert pl.concat(parts(plan, frames)).equals(found)
    right = [oracle.of_row(plan, {"tx": tx, "other": other}, row, None) for _, row in asked]
    assert_same(found.to_dicts(), right)


@few
@given(corrected(), corrected(), st.lists(requests, max_size=4), plans)
def test_rows_given_apart_see_them_too(tx: Any, other: Any, asked: Any, chosen: int) -> None:
    plan = PLANS[chosen]
    found = compute(plan, {"tx": versions(tx), "other": versions(other)}, rows=frame(asked))
    assert_same(found.to_dicts(), oracle.features(plan, {"tx": tx, "other": other}, asked))


@few
@given(corrected(), corrected(), st.lists(rows_of, max_size=4), st.integers(0, 24), plans)
def test_a_store_filled_as_of_a_moment_answers_as_offline_then(
    tx: Any, other: Any, new: Any, half_hours: int, chosen: int
) -> None:
    plan = PLANS[chosen]
    as_of = START + half_hours * HOUR / 2
    assert plan.predict_at is not None
    at = as_of - timedelta(microseconds=plan.predict_at.offset_us)
    asked = [{"id": 100 + number, **row, plan.predict_at.column: at} for number, row in enumerate(new)]
    frames, store = {"tx": versions(tx), "other": versions(other)}, MemoryOnline()
    right = oracle.features(plan, {"tx": tx, "other": other}, asked)
    assert_same(compute(plan, frames, rows=frame(asked)).to_dicts(), right)
    materialize(plan, frames, store, table="t", as_of=as_of)
    served = OnlineFeatures(plan, store, "t").vectors(asked)
    assert served.late == [None] * len(asked)
    assert_same([{name: served.columns[name][i] for name in plan.names} for i in range(len(asked))], right)


def row(
    number: int, hour: float, amount: float, begin: float | None = None, end: float | None = None, **more: Any
) -> Row:
    dates = [None if at is None else to_micros(START + at * HOUR) for at in (begin, end)]
    empty = dict.fromkeys(SCHEMA)
    return {**empty, "id": number, "card": "a", "at": START + hour * HOUR, "amount": amount, **more} | dict(
        zip(DATES, dates, strict=True)
    )


def test_a_request_for_a_moment_before_a_correction_says_that_it_is_answered_from_what_is_left() -> None:
    rows = [row(1, 0, 5.0, None, 4), row(1, 0, 7.0, 4)]
    store = MemoryOnline()
    materialize(PLANS[0], {"tx": versions(rows), "other": versions([])}, store, table="t")
    asked = [{"id": 9, "card": "a", "at": START + hour * HOUR} for hour in (3, 5)]
    served = OnlineFeatures(PLANS[0], store, "t").vectors(asked)
    assert served.late == [to_micros(START + 4 * HOUR), None]
    assert served.columns["card_sum_amount_2d"] == [7.0, 7.0]


def test_a_correction_long_after_the_events_makes_no_room() -> None:
    """As where the files of a year are corrected afterwards, and the year is then replayed."""
    later = 24.0 * 4000
    rows = [row(1, 0, 5.0, None, later), row(1, 0, 7.0, later), row(2, 1, 1.0)]
    store, plan = MemoryOnline(), PLANS[0]
    materialize(plan, {"tx": versions(rows), "other": versions([])}, store, table="t")
    for hour in (2, 3, 4):
        posted = {"id": 50 + hour, "card": "a", "at": START + hour * HOUR, "amount": 10.0, "items": 1}
        advance([StateWriter(plan, store, "t")], "tx", [posted])
    served = OnlineFeatures(plan, store, "t").vectors([{"id": 9, "card": "a", "at": START + 5 * HOUR}])
    assert served.columns["card_sum_amount_2d"] == [38.0]
    assert served.late == [to_micros(START + later * HOUR)]


@pytest.mark.parametrize(("end", "card", "expected"), [(4.0, "a", None), (None, "b", None), (None, "a", 7.0)])
def test_what_was_posted_of_a_row_gives_way_to_its_correction_and_deletion(
    end: float | None, card: str, expected: float | None
) -> None:
    store, plan = MemoryOnline(), PLANS[0]
    empty = {"tx": versions([]), "other": versions([])}
    materialize(plan, empty, store, table="old", scope="s")
    advance([StateWriter(plan, store, "old")], "tx", [{"id": 1, "card": "a", "at": START, "amount": 5.0, "items": 3}])
    rows = [row(1, 0, 5.0, None, 2), row(1, 0, 7.0, 2, end, card=card)]
    materialize(plan, empty | {"tx": versions(rows)}, store, table="new", scope="s")
    served = OnlineFeatures(plan, store, "new").vectors([{"id": 9, "card": "a", "at": START + 5 * HOUR}])
    assert served.columns["card_sum_amount_2d"] == [expected]
    assert served.columns["card_sum_items_2d"] == [None if expected is None else 3]


@pytest.mark.parametrize(
    "rows",
    [
        [row(1, 0, 5.0, None, 2)],  # deleted
        [row(1, 0, 5.0, None, 2), row(1, 0, 7.0, 2, card="b")],  # of another key since
        [row(1, 0, 7.0, 5)],  # not yet in force
    ],
)
def test_a_row_whose_versions_are_not_in_force_counts_itself_offline_as_online(rows: list[Row]) -> None:
    plan, frames, store = PLANS[0], {"tx": versions(rows), "other": versions([])}, MemoryOnline()
    asked = [dict.fromkeys(SCHEMA) | {"id": 1, "card": "a", "at": START + 3 * HOUR, "amount": 11.0}]
    assert compute(plan, frames, rows=frame(asked))["card_sum_amount_2d"].to_list() == [11.0]
    materialize(plan, frames, store, table="t", as_of=START + 3 * HOUR)
    assert OnlineFeatures(plan, store, "t").vectors(asked).columns["card_sum_amount_2d"] == [11.0]


def test_corrections_that_would_not_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_versions, "_MOST", 3)
    rows = [row(1, 0, 5.0, None, 4), row(1, 0, 7.0, 4), row(2, 0, 1.0), row(3, 0, 1.0)]
    with pytest.raises(DataError, match="so many corrections") as caught:
        compute(PLANS[0], {"tx": versions(rows), "other": versions([])})
    assert "deliver corrections together" in str(caught.value.hint)


@pytest.mark.parametrize("most", [features_versions._MOST_PACKED, 0], ids=["packed", "ranked"])
@pytest.mark.parametrize("reach", [20, 10**15, 2**61])
def test_epochs_of_a_key_end_where_its_rows_were_corrected(monkeypatch, most, reach):
    """Numbers of keys and moments are packed where they fit 64 bits, and ranked where they do not."""
    monkeypatch.setattr(features_versions, "_MOST_PACKED", most)
    dice = random.Random(reach)
    codes = np.array([dice.randrange(4) for _ in range(30)])
    ends = [[dice.randint(-reach, reach) if dice.random() < 0.4 else None for _ in codes] for _ in range(2)]
    epochs = features_versions.Epochs(pl.DataFrame(dict(zip(DATES, ends, strict=True)), schema=DATES), codes, 4)
    for code in range(5):
        own = {end for column in ends for of, end in zip(codes, column, strict=True) if of == code and end is not None}
        moments = np.array([-reach - 1, reach + 1, *own, *(dice.randint(-reach, reach) for _ in range(9))])
        numbers = epochs.of(np.full(len(moments), code), moments) - epochs.of(np.array([code]), np.array([-(2**62)]))
        assert numbers.tolist() == [sum(end <= moment for end in own) for moment in moments.tolist()]
