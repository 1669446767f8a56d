"""Folders of files: columns in the names of folders, files that are skipped, files that are gone."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from cumulant.core.errors import DataError
from cumulant.data.checks.verdict import warnings_of
from cumulant.data.files.streaming import FileStream
from cumulant.data.parts.file_lists import load_file_lists, store_file_lists
from cumulant.data.spec import SourceSpec
from cumulant.flows.data.tables import propose, read_table


def part(*values: int) -> pl.DataFrame:
    return pl.DataFrame({"n": list(values)})


def days(place, folder="trips"):
    for day in (1, 2, 3):
        place.write(f"{folder}/dt=2024-01-0{day}/region=0{day}/part.parquet", part(day, day))


def test_folders_of_partitions_are_columns(place):
    days(place)
    found = place.ingest(path="trips", event_time={"column": "dt", "zone": "UTC"})
    assert [(field.name, field.dtype) for field in found.fields] == [("n", "int"), ("dt", "time"), ("region", "str")]
    rows = place.rows(found, "n", "dt", "region")
    assert [(n, f"{at:%Y-%m-%d}", region) for n, at, region in rows] == [
        (day, f"2024-01-0{day}", f"0{day}") for day in (1, 1, 2, 2, 3, 3)
    ]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["2023", "2024"], [2023, 2024]),
        (["1.5", "2"], [1.5, 2.0]),
        (["09", "10"], ["09", "10"]),
        (["7", "x y%2Fz%3D1"], ["7", "x y/z=1"]),
        (["true", "false"], [True, False]),
        (["1", "__HIVE_DEFAULT_PARTITION__"], [1, None]),
    ],
)
def test_types_of_partitions_are_those_of_csv(place, folders, expected):
    for number, folder in enumerate(folders):
        place.write(f"trips/x={folder}/{number}.parquet", part(number))
    found = place.ingest(path="trips")
    assert dict(place.rows(found, "n", "x")) == dict(enumerate(expected))


def test_a_glob_and_csv_have_partitions_too_but_not_in_the_declared_folder(place):
    place.write("a=1/b=2/x.csv", "n\n1\n")
    place.write("a=1/b=3/x.csv", "n\n2\n")
    found = place.ingest(path="a=1/b=*/x.csv")
    assert {field.name for field in found.fields} == {"n", "b"}
    assert sorted(place.rows(found, "n", "b")) == [(1, 2), (2, 3)]
    assert [field.name for field in place.ingest(path="a=1/b=2/x.csv").fields] == ["n"]


def test_equal_files_of_two_partitions_stay_apart(place):
    place.write("trips/x=1/a.parquet", part(5))
    place.write("trips/x=2/a.parquet", part(5))
    found = place.ingest(path="trips")
    assert sorted(place.rows(found, "n", "x")) == [(5, 1), (5, 2)]
    (place.root / "trips/x=2").rename(place.root / "trips/x=3")
    moved = place.ingest(path="trips", previous=found, missing_files=1)
    assert moved.id != found.id
    assert sorted(place.rows(moved, "n", "x")) == [(5, 1), (5, 3)]


def test_a_partition_that_contradicts_its_file_is_named(place):
    path = "trips/x=1/a.parquet"
    place.write(path, pl.DataFrame({"n": [1, 2], "x": [1, 1]}))
    assert place.rows(place.ingest(path="trips"), "n", "x") == [(1, 1), (2, 1)]
    place.write(path, pl.DataFrame({"n": [1, 2], "x": [1, 2]}))
    with pytest.raises(DataError, match=r'trips/x=1/a.parquet: column "x" has other values .* x=1'):
        place.ingest(path="trips")


def test_one_folder_of_rows_to_predict_has_the_columns_of_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "trips/x=01/y=2/a.csv"
    path.parent.mkdir(parents=True)
    path.write_text("n,y\n1,5\n")
    expected = [{"n": 1, "y": 5, "x": "01"}]
    for place in (path, path.parent):
        assert read_table(place, like=SourceSpec()).to_dicts() == expected
    assert read_table(path).to_dicts() == [{"n": 1, "y": 5}]
    stream = FileStream(path, f"file://{path}", SourceSpec(), rows=10)
    assert [row for piece in stream.pieces() for row in piece.rows.to_dicts()] == expected


@pytest.mark.parametrize(
    ("folder", "value", "other"),
    [
        ("2024-01-01", datetime(2024, 1, 1, 5, 30), datetime(2024, 1, 2)),
        ("2024-01-01 05%3A30%3A00", datetime(2024, 1, 1, 5, 30), datetime(2024, 1, 1, 6)),
        ("2024-01-01", datetime(2024, 1, 1, 5, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)),
        ("2024-01-01", date(2024, 1, 1), date(2024, 1, 2)),
        ("2024-13-01", None, datetime(2024, 1, 2)),
        ("True", True, False),
        ("01", 1, 2),
    ],
)
def test_a_file_may_write_the_value_of_its_folder_otherwise(place, folder, value, other):
    path = f"trips/x={folder}/a.parquet"
    if value is not None:
        place.write(path, pl.DataFrame({"x": [value]}))
        assert place.ingest(path="trips").rows_passed == 1
    place.write(path, pl.DataFrame({"x": [other]}))
    with pytest.raises(DataError, match="other values than the name of its folder"):
        place.ingest(path="trips")


def test_files_that_are_skipped_are_named(place):
    for name in ("a.csv", "b.avro", "c.csv.xz", "d.xls", "e.avro", "_SUCCESS", ".c.crc", "_log/x.avro"):
        place.write(f"trips/{name}", "n\n1\n")
    found = place.ingest(path="trips")
    (warning,) = warnings_of(found)
    assert warning.startswith("4 files are not read, ")
    assert warning.endswith("trips/b.avro, trips/c.csv.xz, trips/d.xls and 1 more")
    assert place.ingest(path="trips/a.csv").warnings == ()


def test_a_folder_without_a_readable_file_is_refused_with_their_names(place):
    for name in ("b.avro", "d.xls"):
        place.write(f"trips/{name}", "n\n1\n")
    with pytest.raises(DataError, match=r"no file in a known format, but trips/b\.avro, trips/d\.xls") as caught:
        place.ingest(path="trips")
    assert "Parquet" in caught.value.hint


def test_files_of_rows_to_predict_that_are_skipped_are_named(tmp_path, monkeypatch):
    for name in ("a=1/x.csv", "a=2/x.csv", "b.avro"):
        (tmp_path / "rows" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rows" / name).write_text("n\n1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    found = read_table("rows", progress=lambda text, share=None: said.append(text))
    assert found.select("n", "a").rows() == [(1, 1), (1, 2)]
    assert ["b.avro" in text for text in said] == [True]
    proposed = propose("rows")
    assert any("b.avro" in note for note in proposed.notes)


def daily(place, *numbers, rows=10):
    for number in numbers:
        place.write(f"trips/{number:03}.csv", "n\n" + "".join(f"{number * 1000 + row}\n" for row in range(rows)))


def remove(place, *numbers):
    for number in numbers:
        (place.root / f"trips/{number:03}.csv").unlink()


def test_lost_files_are_named_and_stop_the_run(place):
    daily(place, *range(40))
    found = place.ingest(path="trips")
    remove(place, *range(1, 40))
    refused = place.refused(path="trips", previous=found)
    (breach,) = refused.breaches
    assert "390 of 400" in breach
    assert "39 files" in breach
    assert "trips/001.csv" in breach
    accepted = place.ingest(path="trips", previous=found, missing_files="100%")
    assert any("39 files of the last snapshot are gone (390 rows)" in warning for warning in warnings_of(accepted))
    assert place.ingest(path="trips", previous=accepted).warnings == ()


def test_files_that_were_written_again_with_fewer_rows_are_named_and_stop_the_run(place):
    daily(place, *range(4), rows=100)
    found = place.ingest(path="trips")
    daily(place, 1, rows=40)
    refused = place.refused(path="trips", previous=found)
    (breach,) = refused.breaches
    assert "60 of 400" in breach
    assert "1 file has fewer rows than in the last snapshot: trips/001.csv (40 of 100)" in breach
    assert any("trips/001.csv" in text for text in place.ingest(path="trips", previous=found, missing_files=1).warnings)
    daily(place, 2, rows=160)  # growth of another file makes up for them
    assert any("(40 of 100)" in text for text in place.ingest(path="trips", previous=found).warnings)


def test_a_file_without_its_refused_rows_is_mended(place):
    lines = [f"{number},{'bad' if number % 5 == 0 else number}" for number in range(300)]
    place.write("trips/a.csv", "id,n\n" + "\n".join(lines) + "\n")
    declared = {"path": "trips", "rules": {"n": {"min": 0}}, "quarantine": "50%"}
    found = place.ingest(**declared)
    assert found.rows_quarantined == 60
    place.write("trips/a.csv", "id,n\n" + "\n".join(line for line in lines if "bad" not in line) + "\n")
    assert place.ingest(**declared, previous=found).rows_passed == 240
    place.write("trips/a.csv", "id,n\n" + "\n".join(line for line in lines[60:] if "bad" not in line) + "\n")
    assert "48 of 300" in str(place.refused(**declared, previous=found).breaches)


def test_a_deleted_list_of_files_is_named(place):
    daily(place, *range(130), rows=1)
    found = place.ingest(path="trips", key="n")
    record = store_file_lists(found, place.tables)
    assert load_file_lists(record, place.tables).files == found.files
    for ref in record.file_lists:
        place.tables.delete(ref.key)
    lost = load_file_lists(record, place.tables)
    [warning] = place.ingest(path="trips", key="n", previous=lost).warnings
    assert "list of the last snapshot's files was deleted" in warning
    assert place.ingest(path="trips", key="n", previous=found).warnings == ()


def test_a_file_that_equals_another_one_is_lost_too(place):
    for number in range(20):
        place.write(f"trips/{number:03}.csv", "n\n1\n2\n")
    found = place.ingest(path="trips")
    place.write("trips/020.csv", "n\n1\n2\n")
    remove(place, 0)
    moved = place.ingest(path="trips", previous=found)
    [warning] = moved.warnings
    assert warning.startswith("19 files are copies of another")
    remove(place, *range(1, 20))
    assert "38 of 40" in place.refused(path="trips", previous=moved).breaches[0]


def test_one_file_of_forty_is_a_loss(place):
    daily(place, *range(40))
    found = place.ingest(path="trips")
    remove(place, 7)
    assert "10 of 400" in place.refused(path="trips", previous=found).breaches[0]


def test_a_folder_that_rotates_goes_on_and_says_so(place):
    daily(place, *range(30))
    found = place.ingest(path="trips")
    for day in (30, 31, 32):
        remove(place, day - 30)
        daily(place, day)
        found = place.ingest(path="trips", previous=found)
        assert found.warnings == (f"1 file of the last snapshot is gone (10 rows): trips/{day - 30:03}.csv",)


def test_files_that_were_moved_or_merged_are_no_loss(place):
    daily(place, 1, 2, 3)
    found = place.ingest(path="trips")
    (place.root / "trips/001.csv").rename(place.root / "trips/004.csv")
    moved = place.ingest(path="trips", previous=found)
    assert moved.warnings == ()
    remove(place, 2, 3)
    place.write("trips/all.csv", "n\n" + "".join(f"{row}\n" for row in range(20)))
    assert place.ingest(path="trips", previous=moved).breaches == ()


def test_another_path_is_a_decision_and_no_loss(place):
    daily(place, *range(10))
    found = place.ingest(path="trips")
    assert place.ingest(path="trips/00[0-4].csv", previous=found).warnings == ()
    place.write("small/a.csv", "n\n1\n")
    assert place.ingest(path="small", previous=found).warnings == ()
