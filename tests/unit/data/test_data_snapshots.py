"""Snapshots over time: identity, what is read again, schema changes, shifts, retention."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import StorageError
from cumulant.data.checks.verdict import describe_change
from cumulant.data.events import facts_of
from cumulant.data.retention import expired_snapshots, removable_keys
from cumulant.data.shift import measure_shifts
from cumulant.data.snapshot import SchemaChange, Snapshot, scan
from cumulant.drivers.local.tables import FileTables

NOW = datetime(2024, 1, 10, tzinfo=UTC)


def month(number: int, rows: int = 500, **columns) -> pl.DataFrame:
    random = np.random.default_rng(number)
    base = {
        "id": range(number * rows, (number + 1) * rows),
        "km": random.normal(10, 2, rows),
        "city": random.choice(list("ABC"), rows),
    }
    return pl.DataFrame(base | columns)


def test_only_new_and_changed_files_are_read(place):
    for n in range(3):
        place.write(f"in/{n}.parquet", month(n))
    first = place.ingest(path="in", key="id")
    assert first.processed == ("in/0.parquet", "in/1.parquet", "in/2.parquet")
    place.files.opened.clear()
    again = place.ingest(path="in", key="id", previous=first, now=NOW + timedelta(days=1))
    assert place.files.opened == []
    assert msgspec.structs.replace(again, processed=first.processed) == first, "the same snapshot, accepted once"
    place.write("in/3.parquet", month(3))
    place.write("in/1.parquet", month(1).with_columns(pl.col("km") + 1))
    place.files.opened.clear()
    grown = place.ingest(path="in", key="id", previous=first)
    assert sorted(set(place.files.opened)) == ["1.parquet", "3.parquet"]
    assert grown.processed == ("in/1.parquet", "in/3.parquet")
    assert grown.rows_passed == 2000
    assert [a == b for a, b in zip(first.parts, grown.parts, strict=False)] == [True, False, True]
    assert place.rows(grown, "id") == [(n,) for n in range(2000)]
    assert scan(first, place.tables).collect().height == 1500, "the old snapshot still reads as it was"


def test_parts_are_found_again_without_the_last_snapshot(place):
    """What a killed run had finished is not done again."""
    place.write("in/0.parquet", month(0))
    first = place.ingest(path="in", key="id")
    before = {
        path: path.stat().st_mtime_ns
        for path in Path(place.root.parent / "tables").rglob("*.parquet")
        if path.is_file()
    }
    again = place.ingest(path="in", key="id")
    assert again == first
    after = {
        path: path.stat().st_mtime_ns
        for path in Path(place.root.parent / "tables").rglob("*.parquet")
        if path.is_file()
    }
    assert after == before


def test_a_part_whose_rows_were_deleted_is_made_again(place):
    place.write("in/0.parquet", month(0))
    first = place.ingest(path="in", key="id")
    place.tables.delete(first.parts[0].key)
    assert place.rows(place.ingest(path="in", key="id", previous=first)) == month(0).rows()


def test_identity_follows_content_and_declaration_not_names_or_limits(place):
    place.write("a.parquet", month(0))
    place.write("b/c.parquet", month(0))
    first = place.ingest(path="a.parquet", key="id")
    assert place.ingest(path="b", key="id", quarantine="5%", keep="30d", table={"min_rows": 1}).id == first.id
    assert place.ingest(path="a.parquet", key=["id", "city"]).id != first.id
    assert place.ingest("other", path="a.parquet", key="id").id != first.id
    assert place.ingest(path="a.parquet", key="id", rules={"km": {"min": -100}}).id != first.id


def test_a_manifest_is_json(place):
    place.write("a.parquet", month(0))
    found = place.ingest(path="a.parquet", key="id", event_time=None)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Snapshot) == found


def test_size_is_set_against_csv(place):
    place.write("a.parquet", month(0, rows=20_000))
    found = place.ingest(path="a.parquet", key="id")
    exact = len(month(0, rows=20_000).write_csv(include_header=False))
    assert found.csv_bytes == pytest.approx(exact, rel=0.02)
    assert 0 < found.bytes < found.csv_bytes


@pytest.mark.parametrize(
    ("change", "kind", "refused"),
    [
        (lambda f: f.with_columns(new=pl.lit(1.5)), "added", False),
        (lambda f: f.with_columns(n=pl.col("n") + 0.5), "widened", False),
        (lambda f: f.drop("n"), "removed", True),
        (lambda f: f.with_columns(pl.col("km").round().cast(pl.Int64)), "narrowed", True),
        (lambda f: f.with_columns(pl.col("km").cast(pl.String)), "narrowed", True),
        (lambda f: f.rename({"km": "KM_"}), "renamed", True),
        (lambda f: f.rename({"km": "distance"}), "renamed", True),
        (lambda f: f.rename({"city": "ort"}), "renamed", True),
    ],
)
def test_schema_changes_are_classed_by_policy(place, change, kind, refused):
    place.write("in/0.parquet", month(0, n=1))
    first = place.ingest(path="in", key="id")
    place.write("in/1.parquet", change(month(1, n=1)))
    spec = {"path": "in", "key": "id", "previous": first}
    found = place.refused(**spec) if refused else place.ingest(**spec)
    assert [(c.kind, c.refused, c.file) for c in found.changes] == [(kind, refused, "in/1.parquet")]
    accepted = place.ingest(**spec, on_schema_change="accept")
    assert accepted.rows_passed == 1000
    assert [c.kind for c in accepted.changes] == [kind]
    assert place.refused(**spec, on_schema_change="refuse").breaches
    column = found.changes[0].column
    if kind in ("removed", "narrowed", "renamed"):
        assert not place.ingest(**spec, used={"id"} - {column}).breaches, "an unused column may go"


@pytest.mark.parametrize(
    ("kind", "before", "to", "said"),
    [
        ("narrowed", "int", "str", "changed from int to str"),
        ("narrowed", "str", "int", "changed from str to int"),
        ("narrowed", "bool", "date", "changed from bool to date"),
        ("narrowed", "float", "int", "narrowed from float to int"),
        ("narrowed", "time", "date", "narrowed from time to date"),
        ("widened", "int", "float", "widened from int to float"),
    ],
)
def test_a_change_of_type_is_called_narrowed_only_where_it_is(kind, before, to, said):
    change = SchemaChange(kind=kind, column="x", before=before, to=to)
    assert describe_change(change).startswith(f'column "x" {said}')


def test_changes_that_the_project_itself_makes_are_told_and_not_refused(place):
    place.write("in/0.parquet", month(0))
    first = place.ingest(path="in", key="id")
    place.write("features.py", "def prepare(raw):\n    return raw.drop('city')\n")
    found = place.ingest(path="in", key="id", prepare="features.py:prepare", previous=first)
    assert [(c.kind, c.column, c.refused) for c in found.changes] == [("removed", "city", False)]


def test_types_guessed_from_text_do_not_narrow(place):
    place.write("in/a.csv", "x,code\n1.5,A1\n")
    first = place.ingest(path="in")
    place.write("in/b.csv", "x,code\n2,7\n")
    found = place.ingest(path="in", previous=first)
    assert found.changes == ()
    assert place.rows(found) == [(1.5, "A1"), (2.0, "7")]
    place.write("in/c.csv", "x,code\nn/a,B\n")
    stopped = place.refused(path="in", previous=found)
    assert [(c.kind, c.column) for c in stopped.changes] == [("narrowed", "x")]


def test_shifts_are_effect_sizes_of_new_rows_against_the_last_snapshot(place):
    place.write("in/0.parquet", month(0, rows=5000))
    first = place.ingest(path="in", key="id")
    assert first.shifts == ()
    place.write("in/1.parquet", month(1, rows=5000))
    calm = place.ingest(path="in", key="id", previous=first)
    assert max(shift.distance for shift in calm.shifts if shift.column != "id") < 0.05
    moved = month(2, rows=5000).with_columns(
        km=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.col("km") + 4), city=pl.lit("D")
    )
    place.write("in/2.parquet", moved)
    found = {shift.column: shift for shift in place.ingest(path="in", key="id", previous=calm).shifts}
    assert found["city"].distance == pytest.approx(1.0, abs=0.01)
    assert found["km"].nulls == 0.5
    assert found["km"].distance > 0.3
    assert found["km"].psi > 0.25


def test_shift_of_equal_profiles_is_nothing(place):
    place.write("a.parquet", month(0))
    found = place.ingest(path="a.parquet", key="id")
    assert all(shift.distance == 0 and shift.psi == 0 for shift in measure_shifts(found.profile, found.profile))


def test_a_refused_source_leaves_the_last_snapshot_in_force(place):
    place.write("in/0.parquet", month(0))
    first = place.ingest(path="in", key="id", rules={"km": {"min": 0}})
    place.write("in/1.parquet", month(1).with_columns(-pl.col("km")))
    stopped = place.refused(path="in", key="id", rules={"km": {"min": 0}}, previous=first)
    assert stopped.rows_quarantined == 500
    assert scan(first, place.tables).collect().height == 500
    kinds = [fact.kind for fact in facts_of(stopped)]
    assert kinds == ["data.rows_quarantined", "data.snapshot_refused"]
    assert [fact.kind for fact in facts_of(first)] == ["data.snapshot_accepted"]


def test_retention_keeps_the_newest_and_whatever_it_needs(place):
    taken = []
    for n in range(3):
        place.write(
            f"in/{n}.parquet",
            month(n).with_columns(pl.when(pl.col("id") % 100 == 0).then(-1.0).otherwise("km").alias("km")),
        )
        now = NOW + timedelta(days=10 * n)
        taken.append(
            place.ingest(path="in", key="id", rules={"km": {"min": 0}}, previous=taken[-1] if taken else None, now=now)
        )
    end = NOW + timedelta(days=30)
    assert expired_snapshots(taken, None, end) == []
    assert expired_snapshots(taken, timedelta(days=15), end) == taken[:2]
    assert expired_snapshots(taken, timedelta(days=1), end) == taken[:2], "the newest never expires"
    assert removable_keys("trips", taken, place.tables) == []
    gone = removable_keys("trips", taken[2:], place.tables)
    assert gone == sorted(snapshot.quarantine.key for snapshot in taken[:2])
    for key in gone:
        place.tables.delete(key)
    assert place.rows(taken[2], "id") == [(n,) for n in range(1500) if n % 100]
    place.files.opened.clear()
    place.ingest(path="in", key="id", rules={"km": {"min": 0}}, previous=taken[2], now=end)
    assert place.files.opened == []


def test_a_place_that_cannot_be_written_is_a_storage_error(place):
    place.write("a.parquet", month(0))
    place.tables = FileTables(f"file://{place.write('plain file', 'x')}")
    with pytest.raises(StorageError):
        place.ingest(path="a.parquet", key="id")


def test_progress_tells_the_files(place):
    place.write("in/0.parquet", month(0))
    told = []
    place.ingest(path="in", progress=lambda text, share=None: told.append((text, share)))
    assert told[0] == ("trips: reading in/0.parquet", 0.0)
    assert told[-1] == ("trips: 500 of 500 rows passed", 1.0)


def test_force_compares_contents_where_size_and_times_say_nothing(place, monkeypatch):
    place.write("trips.csv", "id,km\n1,2\n")
    listed = place.files.list
    monkeypatch.setattr(
        place.files, "list", lambda pattern: [msgspec.structs.replace(one, stamp="same") for one in listed(pattern)]
    )
    found = place.ingest()
    place.write("trips.csv", "id,km\n1,3\n")
    assert place.rows(place.ingest(previous=found)) == [(1, 2)]
    assert place.rows(place.ingest(previous=found, force=True)) == [(1, 3)]


def test_a_file_edited_in_place_with_its_size_and_time_is_read_again(place):
    path = place.write("trips.csv", "id,km\n1,2\n")
    before, found = path.stat(), place.ingest()
    place.write("trips.csv", "id,km\n1,3\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert place.rows(place.ingest(previous=found)) == [(1, 3)]


@pytest.mark.parametrize(("newest", "fresh"), [("2024-01-09T23:00:00Z", True), ("2024-01-07T00:00:00Z", False)])
def test_a_wrong_year_does_not_make_a_source_fresh(place, newest, fresh):
    place.write("trips.csv", f"id,at\n1,{newest}\n2,2024-01-05T00:00:00Z\n3,2999-01-01T00:00:00Z\n")
    declared = {"event_time": "at", "table": {"fresh": "2d"}}
    if fresh:
        assert place.ingest(**declared).breaches == ()
    else:
        assert "the newest at up to now is at most" in place.refused(**declared).breaches[0]
    place.write("trips.csv", "id,at\n3,2999-01-01T00:00:00Z\n")
    assert "is in the past" in place.refused(**declared).breaches[0]
