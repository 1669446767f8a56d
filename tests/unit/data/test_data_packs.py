"""Many small files: packed parts give what parts of their own give, stay few over many snapshots, and survive faults."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cumulant.data.parts import pack_making, part_store
from cumulant.data.parts.part import PackFacts
from cumulant.data.retention import removable_keys
from cumulant.data.snapshot import scan

pytestmark = pytest.mark.slow

NOW = datetime(2024, 1, 10, tzinfo=UTC)


def small(number: int, rows: int = 5, **columns) -> pl.DataFrame:
    base = {"id": range(number * rows, (number + 1) * rows), "km": [number + 0.5] * rows, "city": ["A"] * rows}
    return pl.DataFrame(base | columns)


def alone(monkeypatch) -> None:
    """Let every file be a part of its own."""
    monkeypatch.setattr(part_store, "FEWEST", 1 << 40)
    monkeypatch.setattr(part_store, "_FAN", 1 << 40)


def compare(place, packed, single) -> None:
    """All that two snapshots of the same files say must be equal."""
    for name in (
        "id",
        "fields",
        "rows_in",
        "rows_passed",
        "rows_quarantined",
        "rows_dropped",
        "batches",
        "batch_checks",
        "warned",
        "breaches",
        "warnings",
        "processed",
        "changes",
    ):
        assert getattr(packed, name) == getattr(single, name), name
    counts = [
        {check.rule: (check.failed, check.text) for check in one.checks if check.failed} for one in (packed, single)
    ]
    assert counts[0] == counts[1]
    assert [(f.url, f.rows, f.sha256) for f in packed.files] == [(f.url, f.rows, f.sha256) for f in single.files]
    assert_frame_equal(scan(packed, place.tables).collect(), scan(single, place.tables).collect())
    left, right = place.quarantine(packed), place.quarantine(single)
    assert left.columns == right.columns
    order = ["__file", "__row", "__rule"]
    if left.height:
        assert_frame_equal(left.select(order).sort(order), right.select(order).sort(order))
        texts = [frame.sort(order).select(pl.col("id").cast(pl.String)) for frame in (left, right)]
        assert_frame_equal(*texts)
    for column, other in zip(packed.profile.columns, single.profile.columns, strict=True):
        same = ("name", "dtype", "rows", "nulls", "min", "max")
        assert [getattr(column, name) for name in same] == [getattr(other, name) for name in same]
        assert (column.mean or 0.0) == pytest.approx(other.mean or 0.0, rel=1e-9)


def csv_text(rng: np.random.Generator, number: int) -> str:
    """A file of a few rows, in which much may be wrong."""
    rows = int(rng.integers(0, 9))
    kind = rng.integers(0, 8)
    lines = ["id,at,km,city,code"]
    for row in range(rows):
        key = rng.integers(0, 60) if kind == 1 else number * 10 + row
        at = f"2024-01-0{rng.integers(1, 9)}T0{rng.integers(0, 9)}:00:00Z" if kind != 2 or row else "tomorrow"
        km = {3: "" if row else "1.5", 4: f"{rng.integers(-2, 9)}"}.get(int(kind), f"{rng.normal(4, 3):.2f}")
        city = rng.choice(["A", "B", "", "X"] if kind == 5 else ["A", "B"])
        code = "A7" if kind == 6 and row == 0 else f"{rng.integers(1, 99)}"
        lines.append(f"{key},{at},{km},{city},{code}" + (",more" if kind == 7 and row % 3 == 2 else ""))
    return "\n".join(lines) + "\n"


DECLARED = {
    "path": "in",
    "key": "id",
    "event_time": "at",
    "quarantine": "100%",
    "rules": {"km": {"min": 0, "nulls": "90%"}, "city": {"in": ["A", "B"]}},
    "batch": {"period": "day", "severity": "warn"},
    "on_schema_change": "accept",
    "missing_files": "100%",
}


@pytest.mark.parametrize("seed", range(2))
def test_packed_files_give_what_files_alone_give(place, monkeypatch, seed):
    """Also where files are added in any order, changed, deleted, moved and copied."""
    rng = np.random.default_rng(seed)
    packed = single = None
    names = [f"in/{name:03}.csv" for name in rng.permutation(45)]
    for name in names[:27]:
        place.write(name, csv_text(rng, int(name[3:6])))
    for step in range(3):
        packed = place.ingest(previous=packed, **DECLARED)
        with monkeypatch.context() as patch:
            alone(patch)
            single = place.ingest("other", previous=single, **DECLARED)
        compare(place, msgspec.structs.replace(packed, id=""), msgspec.structs.replace(single, id=""))
        assert len(packed.parts) < len(packed.files)
        present = sorted((place.root / "in").iterdir())
        for path in rng.choice(present, 3, replace=False):
            path.write_text(csv_text(rng, 900 + step))
        for path in rng.choice(present[::2], 3, replace=False):
            path.unlink()
        moved = sorted((place.root / "in").iterdir())[int(rng.integers(20))]
        moved.rename(moved.with_name(f"{moved.stem}-moved.csv"))
        place.write(f"in/copy-{step}.csv", sorted((place.root / "in").iterdir())[5].read_bytes())
        for name in names[27 + 6 * step : 33 + 6 * step]:
            place.write(name, csv_text(rng, int(name[3:6])))


def test_the_line_of_a_malformed_row_comes_before_its_values_whatever_file_is_first(place):
    place.write("in/0.csv", "id,km\n0,1.5\n1,-2\n")
    place.write("in/1.csv", "id,km\n2,1.5\n3,2,4\n")
    found = place.quarantine(place.ingest(path="in", rules={"km": {"min": 0}}, quarantine="100%"))
    assert found.columns == ["__rule", "__file", "__row", "__line", "id", "km"]
    assert found.rows() == [("km:min", "in/0.csv", 1, None, "1", "-2.0"), ("row:fields", "in/1.csv", 1, 3, "3", "2")]


def test_a_column_of_two_types_keeps_each_value(place):
    """Whole numbers that a float cannot hold stay exact in the pack, and in a snapshot where all are whole."""
    for n in range(40):
        values = [2**53 + 1, n] if n % 2 else [0.5, n]
        place.write(f"in/{n:02}.parquet", pl.DataFrame({"id": [2 * n, 2 * n + 1], "big": values}))
    both = place.ingest(path="in", key="id", missing_files="100%")
    assert place.rows(both, "big")[:4] == [(0.5,), (0.0,), (float(2**53),), (1.0,)]
    for n in range(0, 40, 2):
        (place.root / f"in/{n:02}.parquet").unlink()
    whole = place.ingest(path="in", key="id", missing_files="100%", previous=both, on_schema_change="accept")
    assert place.rows(whole, "big")[:2] == [(2**53 + 1,), (1,)]


def test_stored_files_and_reads_do_not_grow_with_the_files(place):
    for n in range(300):
        place.write(f"in/{n:03}.parquet", small(n))
    first = place.ingest(path="in", key="id")
    assert len(first.parts) == 1
    assert len(place.tables.keys("data/trips/")) == 2, "rows and facts"
    place.files.opened.clear()
    place.write("in/300.parquet", small(300))
    second = place.ingest(path="in", key="id", previous=first)
    assert place.files.opened == ["300.parquet"] * len(place.files.opened)
    assert second.processed == ("in/300.parquet",)
    assert len(second.parts) == 2
    assert place.rows(first, "id") == [(n,) for n in range(1500)], "the old snapshot reads as it was"


def test_snapshots_of_a_file_each_keep_few_parts_and_clean_removes_the_others(place, monkeypatch):
    monkeypatch.setattr(part_store, "_FAN", 6)
    monkeypatch.setattr(part_store, "_SIZES", (6, 36, 216))
    taken = []
    for n in range(45):
        place.write(f"in/{n:03}.csv", small(n, 2).write_csv())
        now = NOW + timedelta(hours=n)
        taken.append(place.ingest(path="in", key="id", previous=taken[-1] if taken else None, now=now))
    assert max(len(snapshot.parts) for snapshot in taken) <= 2 * part_store._FAN
    assert all(place.rows(one, "id") == [(n,) for n in range(2 * count)] for count, one in enumerate(taken, 1))
    gone = removable_keys("trips", taken[-1:], place.tables)
    assert len(gone) > 70
    for key in gone:
        place.tables.delete(key)
    assert len(place.tables.keys("data/trips/")) <= 4 * part_store._FAN
    place.files.opened.clear()
    again = place.ingest(path="in", key="id", previous=taken[-1])
    assert place.files.opened == []
    assert place.rows(again, "id") == [(n,) for n in range(90)]


def test_one_changed_file_leaves_other_packs_as_they_are(place, monkeypatch):
    for name, files in (("_LEAST", 32), ("_ONE_IN", 32), ("_MOST", 256)):
        monkeypatch.setattr(pack_making, name, files)
    for n in range(225):
        place.write(f"in/{n:04}.csv", f"id\n{n}\n")
    place.ingest(path="in", key="id")
    before = set(place.tables.keys("data/trips/"))
    place.write("in/0000.csv", "id\n99999\n")
    place.ingest(path="in", key="id")  # as after a refused run: nothing is known of the files
    added = set(place.tables.keys("data/trips/")) - before
    assert (len(added), len(before) > 4) == (2, True), "rows and facts of one pack, of several"


def test_a_pack_whose_table_was_deleted_is_made_again(place):
    for n in range(40):
        place.write(f"in/{n:02}.parquet", small(n))
    first = place.ingest(path="in", key="id")
    place.tables.delete(first.parts[0].key)
    assert place.rows(place.ingest(path="in", key="id", previous=first), "id") == [(n,) for n in range(200)]


def test_prepare_runs_for_each_file_of_a_pack(place):
    place.write(
        "features.py", "import polars as pl\n\n\ndef prepare(raw):\n    return raw.filter(pl.col('id') % 2 == 0)\n"
    )
    for n in range(40):
        place.write(f"in/{n:02}.parquet", small(n))
    found = place.ingest(path="in", key="id", prepare="features.py:prepare")
    assert found.rows_dropped == 100
    assert place.rows(found, "id") == [(n,) for n in range(0, 200, 2)]
    assert [file.rows for file in found.files] == [5] * 40


def test_partition_columns_of_packed_files(place):
    for n in range(40):
        place.write(f"in/day={n % 4}/{n:02}.parquet", small(n))
    found = place.ingest(path="in", key="id")
    rows = scan(found, place.tables).select("id", "day").collect()
    assert len(found.parts) == 1
    assert dict(rows.iter_rows()) == {id_: (id_ // 5) % 4 for id_ in range(200)}


def test_facts_of_a_pack_are_small(place):
    for n in range(200):
        place.write(f"in/{n:03}.parquet", small(n))
    first = place.ingest(path="in", key="id", rules={"km": {"min": 0}})
    key = first.parts[0].key.replace("/rows", "/facts")
    text = place.tables.scan(key).collect().item(0, "json")
    assert len(msgspec.json.decode(text, type=PackFacts).files) == 200
    assert len(text) < 200 * 120


def test_no_value_of_a_personal_column_enters_the_facts_of_a_pack(place):
    for n in range(40):
        place.write(f"in/{n:02}.parquet", small(n, 5, badge=[70_000_000 + n] * 5))
    first = place.ingest(path="in", key="id", personal=["badge"], table={"where": ["id <> 3"]}, quarantine="10%")
    place.write("in/40.parquet", small(39, 5, badge=[1] * 5))  # repeats keys of another file
    second = place.ingest(
        path="in",
        key="id",
        personal=["badge"],
        table={"where": ["id <> 3"]},
        quarantine="10%",
        previous=first,
        batch={"severity": "warn"},
    )
    assert second.rows_quarantined == 6
    facts = [
        place.tables.scan(key).collect().item(0, "json")
        for key in sorted(place.tables.keys())
        if key.endswith("/facts")
    ]
    assert len(facts) >= 2
    assert not any("70000" in text for text in facts)


def test_a_reference_is_checked_over_all_files_of_a_pack(place):
    place.write("cities.csv", "city\nA\n")
    cities = place.ingest("cities", path="cities.csv")
    for n in range(40):
        place.write(f"in/{n:02}.parquet", small(n, 5, city=["A", None, "B" if n % 10 == 0 else "A", None, "A"]))
    found = place.ingest(
        path="in", key="id", rules={"city": {"references": "cities.city"}}, others={"cities": cities}, quarantine="10%"
    )
    refused = place.quarantine(found).select("__rule", "__file", "__row", "id").rows()
    assert refused == [("city:references", f"in/{n:02}.parquet", 2, 5 * n + 2) for n in range(0, 40, 10)]
    assert (found.rows_passed, found.profile["city"].nulls) == (196, 80)


def test_the_verdict_on_many_broken_files_takes_no_square_of_them(place):
    from cumulant.data.checks import batch_checks

    counted = []
    original = batch_checks.overdispersion  # type: ignore[attr-defined]
    batch_checks.overdispersion = lambda *counts: counted.append(len(counts[0])) or original(*counts)  # type: ignore[attr-defined]
    try:
        for n in range(1000):
            place.write(f"in/{n:03}.csv", "id,km\n" + "".join(f"{20 * n + row},-1\n" for row in range(20)))
        found = place.refused(path="in", rules={"km": {"min": 0}})
    finally:
        batch_checks.overdispersion = original  # type: ignore[attr-defined]
    assert len(found.batch_checks) > 100
    assert max(counted) <= 200
