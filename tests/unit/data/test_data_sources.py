"""Files and frames of every kind, whole and broken."""

from __future__ import annotations

import bz2
import gzip
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cumulant.core.errors import DataError
from cumulant.data.files import reading
from cumulant.data.files.listing import display_path
from cumulant.data.files.reading import read
from cumulant.data.snapshot import scan
from cumulant.data.spec import SourceSpec

TABLE = pl.DataFrame({"id": [1, 2, 3], "city": ["A", "B", None], "km": [1.5, None, 3.0]})


MANY = b"id,km\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(5000))


def zstd(text: bytes) -> bytes:
    return pa.compress(text, codec="zstd", asbytes=True)


def content(kind: str) -> bytes:
    text = TABLE.write_csv().encode()
    return {
        "csv": text,
        "csv.gz": gzip.compress(text),
        "tsv": text.replace(b",", b"\t"),
        "jsonl": TABLE.write_ndjson().encode(),
        "csv.bz2": bz2.compress(text[:20]) + bz2.compress(text[20:]),
        "csv.zst": zstd(text[:20]) + zstd(text[20:]),
        "json.zst": zstd(TABLE.write_ndjson().encode()),
        "ndjson.gz": gzip.compress(TABLE.write_ndjson().encode()),
    }[kind]


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "csv.bz2", "csv.zst", "tsv", "jsonl", "json.zst", "ndjson.gz"])
def test_every_text_format_gives_the_same_rows(place, kind):
    place.write(f"trips.{kind}", content(kind))
    found = place.ingest(path=f"trips.{kind}", key="id")
    assert place.rows(found) == TABLE.rows()


@pytest.mark.parametrize("path", ["in", "in/*.parquet", "in/**/*.parquet"])
def test_folders_and_globs(place, path):
    place.write("in/b.parquet", TABLE[1:])
    place.write("in/a.parquet", TABLE[:1])
    place.write("in/README.md", "not data")
    found = place.ingest(path=path, key="id")
    assert place.rows(found) == TABLE.rows(), "files in the order of their names"
    assert [file.url for file in found.files] == ["in/a.parquet", "in/b.parquet"]


@pytest.mark.parametrize(
    "frame",
    [
        TABLE,
        TABLE.lazy(),
        TABLE.to_pandas(),
        TABLE.to_arrow(),
        TABLE.with_columns(
            pl.col("city").cast(pl.Categorical), pl.col("id").cast(pl.UInt8), pl.col("km").cast(pl.Float32)
        ),
        pd.DataFrame({"id": [1, 2, 3], "city": pd.Categorical(["A", "B", None]), "km": [1.5, np.nan, 3.0]}),
        pa.table({"id": pa.array([1, 2, 3], pa.int16()), "city": ["A", "B", None], "km": [1.5, None, 3.0]}),
    ],
    ids=["polars", "lazy", "pandas", "arrow", "narrow types", "pandas categories", "arrow narrow"],
)
def test_frames_of_every_library(place, frame):
    found = place.ingest(path="", frame=frame, key="id")
    assert place.rows(found) == TABLE.rows()
    assert [field.dtype for field in found.fields] == ["int", "str", "float"]


def test_pandas_frames_with_numbers_as_names_and_zones(place):
    at = pd.to_datetime(["2024-07-01 12:00"]).tz_localize("Europe/Paris")
    found = place.ingest(path="", frame=pd.DataFrame({0: [7], "at": at}), event_time="at")
    assert place.rows(found, "0", "at") == [(7, datetime(2024, 7, 1, 10, tzinfo=UTC))]


@pytest.mark.parametrize(
    "frame", [pd.DataFrame({"x": [1, "a", 2.5]}), {"x": [1]}, 17, pl.LazyFrame({"a": [1]}).select("b")]
)
def test_what_is_no_table_is_refused(place, frame):
    with pytest.raises(DataError) as caught:
        place.ingest(path="", frame=frame)
    assert caught.value.hint


def broken_gzip() -> bytes:
    whole = gzip.compress(MANY)
    return whole[: len(whole) // 2]


def half_parquet(place) -> bytes:
    whole = place.write("whole.parquet", pl.DataFrame({"a": range(5000)})).read_bytes()
    return whole[: len(whole) // 2]


def holed_parquet(place) -> bytes:
    whole = bytearray(place.write("whole.parquet", pl.DataFrame({"a": [f"{n * n}" for n in range(9000)]})).read_bytes())
    whole[5000:9000] = bytes(4000)
    return bytes(whole)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.csv", b"", "is empty"),
        ("a.parquet", b"", "is empty"),
        ("a.jsonl", b"", "is empty"),
        ("a.csv", b"id,km\n1,2\n3", "cut off"),
        ("a.csv", b"id,km\n1,2,3\n3,4,5\n", "none of its 2 rows has all the 2 fields"),
        ("a.csv", b"id,city\n1,caf\xe9\n", "not UTF-8"),
        ("a.csv", b'id,city\n1,"abc\n2,b\n', "quoted field"),
        ("a.csv", b"id,id\n1,2\n", "two columns named id"),
        ("a.csv", b"id,km\n", "has no rows"),
        ("a.csv", ",".join(f"c{n}" for n in range(500)).encode() + b"\n" + b"1\n" * 50_000, "500 fields, which most"),
        ("a.csv", bytes(range(256)) * 8, "a.csv"),
        ("a.csv.gz", broken_gzip(), "cut off"),
        ("a.csv.gz", b"\x1f\x8b not gzip", "damaged"),
        ("a.csv.bz2", bz2.compress(MANY)[:-9], r"cut off \(bzip2\)"),
        ("a.csv.bz2", b"BZh9 not bzip2", r"damaged or cut off \(bzip2\)"),
        ("a.csv.zst", zstd(MANY)[:-9], r"cut off \(Zstandard\)"),
        ("a.csv.zst", b"\x28\xb5\x2f\xfd not Zstandard", r"damaged or cut off \(Zstandard\)"),
        ("a.parquet", half_parquet, "not a whole Parquet file"),
        ("a.parquet", holed_parquet, "not a whole Parquet file"),
        ("a.parquet", b"id,km\n1,2\n", "not a whole Parquet file"),
        ("a.jsonl", b'{"x": 1}\n{"x": 2', "cut off: its last line is not a whole JSON object"),
        ("a.jsonl", b'hello\n{"x": 2\n[1]\n', "no line that is a JSON object"),
        ("a.jsonl", b'\xff\n{"x": "\xe4"\n', "is not UTF-8 text"),
        ("a.json", b'[{"x": 1}, {"x": 2}]', "one JSON array"),
        ("a.jsonl", b'{"x": 1}\n{"x": true}\n', "different types"),
        ("a.jsonl", b'{"x": [1, 2]}\n', "not a plain value"),
        ("a.dat", b"id,km\n1,2\n", "its name does not show its format"),
        ("a.parquet", pl.DataFrame({"a": []}, schema={"a": pl.Int64}), "has no rows"),
        ("a.parquet", pl.DataFrame({"__row": [1]}), "two underscores"),
    ],
)
def test_broken_files_are_named_with_what_to_do(place, name, data, told):
    place.write(name, data(place) if callable(data) else data)
    with pytest.raises(DataError, match=told) as caught:
        place.ingest(path=name)
    assert caught.value.hint
    assert "polars" not in str(caught.value)
    assert place.tables.keys("data/trips/quarantine") == []


def test_a_header_that_begins_as_bzip2_is_text(place):
    place.write("trips.csv", "BZhours,x\n1,2\n")
    assert place.rows(place.ingest()) == [(1, 2)]


def test_a_text_that_expands_beyond_any_table_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_SMALL", 16 << 20)
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"id,km\n" + b"1,2\n" * 250_000))
    assert read(path, "a.csv.gz", SourceSpec(path="a.csv.gz")).height == 250_000
    path.write_bytes(gzip.compress(b"id,km\n" + b"1,2\n" * 270_000))
    with pytest.raises(DataError, match="expands to more than 200 times its size"):
        read(path, "a.csv.gz", SourceSpec(path="a.csv.gz"))


def test_lines_inside_quotes_are_no_rows_with_missing_fields(tmp_path):
    names = ",".join(f"c{n}" for n in range(2000))
    row = ",".join(["1"] * 1999 + ['"' + "\n" * 30_000 + '"'])
    (tmp_path / "a.csv").write_text(f"{names}\n{row}\n")
    assert read(tmp_path / "a.csv", "a.csv", SourceSpec(path="a.csv")).shape == (1, 2000)


def test_missing_files_and_unreadable_paths(place):
    with pytest.raises(DataError, match=r"no file matches nowhere/\*\.csv"):
        place.ingest(path="nowhere/*.csv")
    place.write("near/trips.csv", TABLE)
    with pytest.raises(DataError, match="no file matches") as caught:
        place.ingest(path="near/tripz.csv")
    assert caught.value.hint == 'did you mean "trips.csv"?'
    with pytest.raises(DataError, match="declares no path"):
        place.ingest(path="")


@pytest.mark.parametrize(
    ("present", "named", "hint"),
    [
        ("bike.csv", "nofile.csv", "relative paths start at "),
        ("bike.csv.gz", "nofile.csv.gz", "relative paths start at "),
        ("bike.csv", "bikes.csv", 'did you mean "bike.csv"?'),
        ("bike.csv.gz", "bike.csv", 'did you mean "bike.csv.gz"?'),
        ("bike", "bikes", 'did you mean "bike"?'),
    ],
)
def test_a_file_is_suggested_for_its_name_and_not_for_its_suffix(place, present, named, hint):
    place.write(f"near/{present}", b"id\n1\n")
    with pytest.raises(DataError, match="no file matches") as caught:
        place.ingest(path=f"near/{named}")
    assert caught.value.hint.startswith(hint)


def test_one_broken_file_among_good_ones_refuses_the_snapshot(place):
    place.write("in/a.parquet", TABLE)
    place.write("in/b.parquet", b"broken, cut off, no Parquet at all")
    assert [file.url for file in place.refused(path="in").unreadable] == ["in/b.parquet"]
    place.write("in/b.parquet", TABLE.with_columns(pl.col("id") + 3))
    place.files.opened.clear()
    assert place.ingest(path="in", key="id").rows_passed == 6


def test_other_encodings_and_separators(place):
    place.write("trips.csv", "id;city\n1;Zürich\n".encode("latin-1"))
    found = place.ingest(encoding="latin-1", separator=";")
    assert place.rows(found) == [(1, "Zürich")]
    with pytest.raises(DataError, match="encoding"):
        place.ingest(encoding="no-such-code", separator=";")


def test_byte_order_marks_and_windows_line_ends(place):
    place.write("trips.csv", b"\xef\xbb\xbfid,city\r\n1,A\r\n2,B\r\n")
    assert place.rows(place.ingest(key="id"), "id", "city") == [(1, "A"), (2, "B")]


def test_lines_that_end_with_a_carriage_return_alone(place):
    place.write("trips.csv", b"id,city\r" + b"".join(b"%d,C%d\r" % (n, n) for n in range(999)) + b"999,last")
    found = place.rows(place.ingest(key="id"), "id", "city")
    assert (len(found), found[1], found[-1]) == (1000, (1, "C1"), (999, "last"))


def test_a_header_without_rows_beside_full_files(place):
    place.write("in/a.csv", "id,km\n")
    place.write("in/b.csv", "id,km\n1,2\n")
    found = place.ingest(path="in", key="id", rules={"km": {"unique": True}})
    assert place.rows(found) == [(1, 2)]
    assert [file.rows for file in found.files] == [0, 1]


def test_columns_that_hold_nothing(place):
    place.write("a/x.parquet", pl.DataFrame({"id": [1], "note": [None]}))
    assert place.rows(place.ingest(path="a")) == [(1, None)]
    place.write("a/y.parquet", pl.DataFrame({"id": [2], "note": [2.5]}))
    found = place.ingest(path="a")
    assert place.rows(found) == [(1, None), (2, 2.5)]
    assert found.profile["note"].nulls == 1


def test_digits_in_one_file_and_text_in_another_stay_text(place):
    place.write("in/a.csv", "code,n\n007,1\n")
    place.write("in/b.csv", "code,n\nX1,2\n")
    found = place.ingest(path="in")
    assert place.rows(found) == [("007", 1), ("X1", 2)]
    again = place.ingest(path="in", previous=found)
    assert again.id == found.id
    assert not again.processed


def test_integers_in_one_file_and_fractions_in_another(place):
    place.write("in/a.csv", "n\n1\n")
    place.write("in/b.csv", "n\n2.5\n")
    found = place.ingest(path="in")
    assert place.rows(found) == [(1.0,), (2.5,)]
    assert scan(found, place.tables).collect().schema["n"] == pl.Float64()


def test_numbers_beyond_64_bits_are_refused_as_values_not_wrapped(place):
    place.write("trips.csv", "n\n18446744073709551615\n2\n")
    found = place.ingest(quarantine="50%")
    assert place.rows(found) == [(2,)]
    assert place.quarantine(found).select("__rule", "n").rows() == [("n:type", "18446744073709551615")]


def test_not_a_number_becomes_null(place):
    found = place.ingest(path="", frame=pl.DataFrame({"x": [1.0, float("nan")]}))
    assert place.rows(found) == [(1.0,), (None,)]


def test_read_gives_the_raw_file(place):
    path = place.write("a.csv", "id,at\n1,2024-01-01\n")
    assert read(path, "a.csv", SourceSpec()).rows() == [(1, "2024-01-01")]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("/p/data/a.csv", "data/a.csv"),
        ("file:///p/a.csv", "a.csv"),
        ("/other/a.csv", "/other/a.csv"),
        ("s3://b/a.csv", "s3://b/a.csv"),
    ],
)
def test_files_are_told_as_people_know_them(url, told):
    assert display_path(url, Path("/p")) == told
