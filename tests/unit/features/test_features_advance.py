"""State that moves on: posted rows, whole or in part, repeated, late, by several writers, against the offline engine."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from test_features_windows import HOUR, PLANS, START, assert_same, frame, histories, plans, quick, rows_of

from cumulant.features.offline.offline import compute
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.testing.online import MemoryOnline

LATE = ("label", "done", "result")


@st.composite
def tellings(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows, and the same rows in pieces and in any order, some of them several times.

    `amount` and `items` come together: one feature reads both, and what was computed of one alone stands.
    """
    rows = draw(histories())
    pieces = []
    for row in rows:
        cut = draw(st.lists(st.sampled_from(sorted(row)), max_size=6))
        cut += ["amount", "items"] if {"amount", "items"} & set(cut) else []
        for part in (set(cut), set(row) - set(cut)):
            pieces += [{"id": row["id"]} | {name: row[name] for name in row if name in part}]
    again = draw(st.lists(st.sampled_from(pieces), max_size=4)) if pieces else []
    return rows, draw(st.permutations(pieces + again))


def in_order(rows: list[dict[str, Any]], told: list[dict[str, Any]], first: list[Any]) -> list[dict[str, Any]]:
    """Rows in the order of a source: those of the snapshot, then the others as they were first told."""
    order = list(dict.fromkeys([*first, *(piece["id"] for piece in told)]))
    by_id = {row["id"]: row for row in rows}
    return [by_id[name] for name in order]


def vectors(online: OnlineFeatures, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = online.vectors(rows).columns
    return [{name: values[i] for name, values in found.items()} for i in range(len(rows))]


@quick
@given(tellings(), tellings(), st.lists(rows_of, max_size=4), st.integers(0, 3), st.integers(1, 5), plans)
def test_told_in_pieces_and_in_any_order_is_as_if_it_had_always_been_there(
    tx: Any, other: Any, new: Any, known: int, batch: int, chosen: int
) -> None:
    plan, store = PLANS[chosen], MemoryOnline()
    (tx_rows, tx_told), (other_rows, other_told) = tx, other
    snapshot = tx_rows[:known]
    materialize(plan, {"tx": frame(snapshot), "other": frame([])}, store, table="t")
    # writers of several processes have a cache each
    writers = [OnlineFeatures(plan, store, "t") for _ in range(2)]
    asked = [{"id": 100 + i, **row} for i, row in enumerate(new)] + tx_rows[:3]
    for source, told in (("tx", tx_told), ("other", other_told)):
        for number, i in enumerate(range(0, len(told), batch)):
            writers[number % 2].advance(source, told[i : i + batch])
            writers[0].vectors(asked)
    full_tx = in_order(tx_rows, tx_told, [row["id"] for row in snapshot])
    full_other = in_order(other_rows, other_told, [])
    right = compute(plan, {"tx": frame(full_tx), "other": frame(full_other)}, rows=frame(asked)).to_dicts()
    for writer in writers:
        assert_same(vectors(writer, asked), [{name: row[name] for name in plan.names} for row in right])
    before = store.get("t", [b"\x00state"])
    for source, told in (("tx", tx_told), ("other", other_told)):
        found = writers[0].advance(source, told)
        assert (found.accepted, found.duplicates) == (0, len(told))
    assert store.get("t", [b"\x00state"]) == before


@quick
@given(tellings(), tellings(), st.integers(0, 24), st.integers(0, 6), plans)
def test_what_was_posted_outlives_new_snapshots(tx: Any, other: Any, cut: int, known: int, chosen: int) -> None:
    """Filled as of a moment, told the rest in pieces, filled again from some of it: nothing is lost or double."""
    plan, store = PLANS[chosen], MemoryOnline()
    (tx_rows, tx_told), (other_rows, other_told) = tx, other
    first = {"tx": frame(tx_rows[:known]), "other": frame(other_rows[:known])}
    materialize(plan, first, store, table="old", as_of=START + cut * HOUR / 2, since=START)
    online = OnlineFeatures(plan, store, "old")
    online.advance("tx", tx_told)
    online.advance("other", other_told)
    second = {"tx": frame(tx_rows[: known + 3]), "other": frame(other_rows[: known + 3])}
    materialize(plan, second, store, table="new")
    asked = [{"id": 100 + i, **row} for i, row in enumerate(tx_rows)] + tx_rows
    asked = [row for row in asked if row[plan.predict_at.column] is not None]
    asked = [row for row in asked if row[plan.predict_at.column] + offset(plan) >= START]
    for table, rows, until in (("old", known, START + cut * HOUR / 2), ("new", known + 3, None)):
        everything = {
            "tx": frame(in_order(tx_rows, tx_told, stored(tx_rows[:rows], until))),
            "other": frame(in_order(other_rows, other_told, stored(other_rows[:rows], until))),
        }
        right = compute(plan, everything, rows=frame(asked)).to_dicts()
        found = vectors(OnlineFeatures(plan, store, table), asked)
        assert_same(found, [{name: row[name] for name in plan.names} for row in right])


def stored(rows: list[dict[str, Any]], until: datetime | None) -> list[Any]:
    """The keys of the rows that a filling as of `until` has seen."""
    return [row["id"] for row in rows if until is None or (row["at"] is not None and row["at"] <= until)]


def offset(plan: Any) -> timedelta:
    return timedelta(microseconds=plan.predict_at.offset_us)
