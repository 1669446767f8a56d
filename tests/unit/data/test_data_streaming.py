"""A file in pieces: every row once, in order, from any piece on."""

from __future__ import annotations

import gzip

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.errors import DataError
from cumulant.data.files.blocks import read_blocks
from cumulant.data.files.reading import read
from cumulant.data.files.streaming import FileStream
from cumulant.data.spec import SourceSpec

FIELD = st.text(st.sampled_from('ab,"\n ž'), max_size=6)


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


def whole(stream, **options):
    pieces = list(stream.pieces(**options))
    begin = sum(options.get("done", []))
    before = [sum(one.rows.height for one in pieces[:number]) for number in range(len(pieces))]
    assert [piece.first for piece in pieces] == [begin + rows for rows in before]
    return pieces


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=40), st.integers(1, 9))
def test_blocks_of_a_csv_hold_whole_records(tmp_path_factory, rows, size):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    lines = [f"{quoted(one)},{quoted(other)}\n" for one, other in rows]
    path.write_text("x,y\n" + "".join(lines), newline="")
    found = [block.content.decode() for block in read_blocks(path, rows=size, most=1 << 20, csv=True)]
    assert all(content.startswith("x,y\n") for content in found)
    assert "".join(content.removeprefix("x,y\n") for content in found) == "".join(lines)
    assert found == [block.content.decode() for block in read_blocks(path, rows=size, most=1 << 20, csv=True)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_pieces_are_the_file_and_can_be_begun_at_any(tmp_path, name, rows):
    frame = pl.DataFrame({"n": range(103), "t": [f"row {k}\nžluť" if k % 9 == 0 else "x" for k in range(103)]})
    path = tmp_path / name
    if name.endswith("parquet"):
        frame.write_parquet(path, row_group_size=10)
    else:
        text = (frame.write_csv() if "csv" in name else frame.write_ndjson()).encode()
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    stream = FileStream(path, name, SourceSpec(path=name), rows=rows)
    pieces = whole(stream)
    assert pl.concat(piece.rows for piece in pieces).equals(read(path, name, SourceSpec(path=name)))
    assert pieces[-1].share == 1.0
    heights = [piece.rows.height for piece in pieces]
    for done in range(1, len(pieces)):
        rest = whole(FileStream(path, name, SourceSpec(path=name), rows=rows), done=heights[:done])
        assert rest[0].first == sum(heights[:done])
        assert [piece.rows.rows() for piece in rest] == [piece.rows.rows() for piece in pieces[done:]]


def test_separators_and_encodings_are_found_out(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"n;t\n" + b"".join(f"{n};{'é' if n == 90 else 'e'}\n".encode("latin-1") for n in range(99)))
    found = pl.concat(piece.rows for piece in whole(FileStream(path, "a.csv", SourceSpec(path="a.csv"), rows=10)))
    assert found["n"].to_list() == list(range(99))
    assert found["t"][90] == "é"


def test_wide_rows_make_small_pieces(tmp_path):
    pl.DataFrame({"t": ["x" * 1_000_000 + str(n) for n in range(100)]}).write_parquet(tmp_path / "a.parquet")
    pieces = whole(FileStream(tmp_path / "a.parquet", "a.parquet", SourceSpec(), rows=1000))
    assert max(piece.rows.height for piece in pieces) <= 40
    assert sum(piece.rows.height for piece in pieces) == 100


def test_a_short_row_is_counted_in_the_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "1,2\n" * 50 + "1\n" + "1,2\n" * 10)
    with pytest.raises(DataError, match=r"a\.csv: 1 row has fewer or more fields .*counted from row \d+ on"):
        whole(FileStream(path, "a.csv", SourceSpec(), rows=5))


def test_no_format_and_no_bytes_are_refused(tmp_path):
    for name, said in (("a.doc", "its name does not show its format"), ("a.csv", "is empty")):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(DataError, match=said):
            FileStream(tmp_path / name, name, SourceSpec(), rows=5)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_pieces_have_the_columns_of_the_folders(tmp_path, name):
    path = tmp_path / name
    frame = pl.DataFrame({"n": range(25), "m": range(25)})
    frame.write_parquet(path) if name.endswith("parquet") else frame.write_csv(path)
    stream = FileStream(path, name, SourceSpec(), rows=10, partition=(("year", "2024"), ("zip", "01001")))
    assert stream.head.columns == ["n", "m", "year", "zip"]
    pieces = [piece.rows for piece in stream.pieces(["n", "year", "zip"])]
    assert pl.concat(pieces).select("n", "year", "zip").rows() == [(n, 2024, "01001") for n in range(25)]
