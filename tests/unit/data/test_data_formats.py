"""Every format through the same cases: one table gives one snapshot, and a broken file one error that names it."""

from __future__ import annotations

import bz2
import gzip
import io
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from pyarrow import orc

from cumulant.core.errors import DataError
from cumulant.data.files.reading import read
from cumulant.data.files.streaming import FileStream
from cumulant.data.spec import SourceSpec

ROWS = 60
TABLE = pl.DataFrame(
    {
        "code": [f"{row:05d}" if row % 7 else None for row in range(ROWS)],
        "amount": [row / 4 if row % 5 else None for row in range(ROWS)],
        "count": [row - 3 if row % 11 else None for row in range(ROWS)],
        "open": [row % 2 == 0 if row % 9 else None for row in range(ROWS)],
        "at": [datetime(2024, 3, 1 + row % 30, row % 24, tzinfo=UTC) for row in range(ROWS)],
        "day": [date(2024, 3, 1 + row % 30) if row % 4 else None for row in range(ROWS)],
        "note": [f'größe, "{row}"' if row % 3 else None for row in range(ROWS)],
    }
)
TYPES = {"code": "str", "amount": "float", "count": "int", "open": "bool", "at": "time", "day": "date", "note": "str"}
RULES = {"code": {"type": "str"}, "at": {"type": "time"}, "day": {"type": "date"}}


def csv(frame: pl.DataFrame) -> bytes:
    return frame.write_csv(datetime_format="%Y-%m-%dT%H:%M:%SZ").encode()


def jsonl(frame: pl.DataFrame) -> bytes:
    return frame.with_columns(pl.col(pl.Datetime).dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_ndjson().encode()


def parquet(frame: pl.DataFrame) -> bytes:
    frame.write_parquet(stream := io.BytesIO(), row_group_size=17)
    return stream.getvalue()


def orc_bytes(frame: pl.DataFrame) -> bytes:
    plain = frame.to_arrow()
    strings = [
        field.with_type(pa.string()) if pa.types.is_large_string(field.type) else field for field in plain.schema
    ]
    sink = pa.BufferOutputStream()
    orc.write_table(plain.cast(pa.schema(strings)), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def excel(frame: pl.DataFrame) -> bytes:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("trips")
    sheet.append(frame.columns)
    for row in frame.with_columns(pl.col(pl.Datetime).dt.replace_time_zone(None)).iter_rows():
        sheet.append(row)
    book.save(stream := io.BytesIO())
    return stream.getvalue()


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


FORMATS: dict[str, Callable[[pl.DataFrame], bytes]] = {
    ".csv": csv,
    ".csv.gz": lambda frame: gzip.compress(csv(frame)),
    ".csv.bz2": lambda frame: bz2.compress(csv(frame)),
    ".csv.zst": lambda frame: zstd(csv(frame)),
    ".tsv": lambda frame: frame.write_csv(separator="\t", datetime_format="%Y-%m-%dT%H:%M:%SZ").encode(),
    ".jsonl": jsonl,
    ".jsonl.gz": lambda frame: gzip.compress(jsonl(frame)),
    ".jsonl.bz2": lambda frame: bz2.compress(jsonl(frame)),
    ".jsonl.zst": lambda frame: zstd(jsonl(frame)),
    ".parquet": parquet,
    ".orc": orc_bytes,
    ".xlsx": excel,
}
each = pytest.mark.parametrize("suffix", FORMATS)


@each
def test_one_table_gives_one_snapshot_in_every_format(place, suffix):
    place.write(f"trips{suffix}", FORMATS[suffix](TABLE))
    snapshot = place.ingest(path=f"trips{suffix}", rules=RULES)
    assert {field.name: field.dtype for field in snapshot.fields} == TYPES
    assert place.rows(snapshot, *TYPES) == TABLE.rows()
    assert (snapshot.rows_passed, snapshot.rows_quarantined) == (ROWS, 0)


@each
def test_a_folder_reads_every_format(place, suffix):
    place.write("trips/1.csv", csv(TABLE))
    place.write(f"trips/2{suffix}", FORMATS[suffix](TABLE.head(7)))
    snapshot = place.ingest(path="trips", rules=RULES)
    assert place.rows(snapshot, *TYPES) == [*TABLE.rows(), *TABLE.head(7).rows()]


@each
def test_pieces_of_a_stream_are_the_rows_and_can_be_resumed(tmp_path, suffix):
    path = tmp_path / f"trips{suffix}"
    path.write_bytes(FORMATS[suffix](TABLE))
    spec = SourceSpec(path=str(path))
    stream = FileStream(path, path.name, spec, rows=16)
    pieces = list(stream.pieces())
    assert [piece.first for piece in pieces] == [
        sum(one.rows.height for one in pieces[:index]) for index in range(len(pieces))
    ]
    whole = read(path, path.name, spec)
    assert pl.concat([piece.rows.select("count", "amount") for piece in pieces]).equals(whole.select("count", "amount"))
    assert stream.head.columns == TABLE.columns
    after = list(FileStream(path, path.name, spec, rows=16).pieces(done=[piece.rows.height for piece in pieces[:1]]))
    assert [piece.rows["amount"].to_list() for piece in after] == [
        piece.rows["amount"].to_list() for piece in pieces[1:]
    ]


@each
@pytest.mark.parametrize("harm", ["cut", "empty", "noise"])
def test_broken_files_are_refused_by_name(tmp_path, suffix, harm):
    path = tmp_path / f"trips{suffix}"
    whole = FORMATS[suffix](TABLE)
    content = {"cut": whole[: len(whole) // 2], "empty": b"", "noise": (bytes(range(128, 256)) + b"\n") * 40}[harm]
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"trips\{suffix}"):
        read(path, path.name, SourceSpec(path=str(path)))


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.bz2", ".csv.zst", ".jsonl.bz2"])
def test_bytes_after_the_end_of_compressed_text_are_refused(tmp_path, suffix):
    path = tmp_path / f"trips{suffix}"
    path.write_bytes(FORMATS[suffix](TABLE) + b"no more of it")
    with pytest.raises(DataError, match="damaged or cut off"):
        read(path, path.name, SourceSpec(path=str(path)))


def test_compressed_texts_behind_each_other_are_one(tmp_path):
    path = tmp_path / "trips.csv.bz2"
    content = csv(TABLE)
    path.write_bytes(bz2.compress(content[:100]) + bz2.compress(content[100:]))
    assert read(path, path.name, SourceSpec(path=str(path))).height == ROWS


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, zstd], ids=["gz", "bz2", "zst"])
def test_short_rows_by_the_million_are_refused_where_compression_hides_them(tmp_path, compress):
    suffix = {gzip.compress: "gz", bz2.compress: "bz2"}.get(compress, "zst")
    path = tmp_path / f"trips.csv.{suffix}"
    path.write_bytes(compress(b"n\n" + b"1\n" * 5_000_000))
    with pytest.raises(DataError, match="expands"):
        read(path, path.name, SourceSpec(path=str(path)))


def test_orc_that_takes_more_than_its_memory_is_refused_before_it_is_whole(tmp_path):
    path = tmp_path / "long.orc"
    with orc.ORCWriter(str(path), compression="zstd", dictionary_key_size_threshold=1.0) as writer:
        for _ in range(8):
            writer.write(pa.table({"text": ["x" * 100_000] * 50}))
    assert path.stat().st_size < 50_000
    with pytest.raises(DataError, match="takes more than"):
        read(path, path.name, SourceSpec(path=str(path), memory="4MiB"))
    assert read(path, path.name, SourceSpec(path=str(path))).height == 400


def test_orc_times_that_nanoseconds_cannot_hold_are_refused_with_what_to_do(tmp_path):
    path = tmp_path / "old.orc"
    orc.write_table(pa.table({"at": pa.array([datetime(1600, 1, 1)], pa.timestamp("us"))}), str(path))
    with pytest.raises(DataError, match="before 1677") as caught:
        read(path, path.name, SourceSpec(path=str(path)))
    assert "Parquet" in (caught.value.hint or "")


def test_formats_are_declared_where_names_do_not_tell(tmp_path):
    path = Path(tmp_path / "part-0000")
    path.write_bytes(orc_bytes(TABLE))
    assert read(path, path.name, SourceSpec(path=str(path), format="orc")).height == ROWS
    with pytest.raises(DataError, match="its name does not show its format") as caught:
        read(path, path.name, SourceSpec(path=str(path)))
    assert "orc" in (caught.value.hint or "")


def test_orc_texts_that_are_not_utf_8_are_refused(tmp_path):
    path = tmp_path / "latin.orc"
    sink = pa.BufferOutputStream()
    orc.write_table(pa.table({"text": ["caffe"]}), sink, compression="uncompressed")
    path.write_bytes(sink.getvalue().to_pybytes().replace(b"caffe", b"caff\xe9"))
    with pytest.raises(DataError, match=r"latin\.orc"):
        read(path, path.name, SourceSpec(path=str(path)))


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ('{"id": 9, "n": [1, 2]}', '"n" holds a list in line 4 and a plain value before'),
        ('{"id": 9, "n": {"a": 1}}', '"n" holds an object in line 4 and a plain value before'),
    ],
)
def test_a_field_of_several_kinds_of_json_is_named(place, last, said):
    place.write("rows.jsonl", '{"id": 1, "n": null}\n{"id": 2, "n": 5}\n{"id": 3, "n": 6}\n' + last)
    with pytest.raises(DataError) as caught:
        place.ingest(path="rows.jsonl", key="id")
    assert said in str(caught.value)
    assert caught.value.subject == "n"
