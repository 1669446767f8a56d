"""JSON lines and ORC in pieces: the types, values and messages of a file that is read whole."""

from __future__ import annotations

import json
import random
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal
from pyarrow import orc
from test_data_large_files import in_pieces

from cumulant.core.errors import DataError
from cumulant.core.system import memory
from cumulant.data.files import large_files
from cumulant.data.files.file_pieces import PieceError
from cumulant.data.files.large_files import pieces_of
from cumulant.data.files.reading import read_table
from cumulant.data.parts.spill import MemoryBudget
from cumulant.data.row_columns import ROW
from cumulant.data.spec import SourceSpec
from cumulant.data.text.csv_text import FileTable

VALUES = {
    "int": ["0", "-7", "12", "9007199254740993"],
    "float": ["0.5", "1e3", "-0.0", "1E-7"],
    "long": ["18446744073709551615", "-9223372036854775809"],
    "bool": ["true", "false"],
    "text": ['"x"', '""', '"007"', '"\\ud83d\\ude00"', '"\\u0000"', '"é"'],
    "list": ["[]", "[1]", "[0.5,null]", '["x"]'],
    "object": ["{}", '{"x":1}', '{"y":null,"x":0.5}', '{"z":{"x":[1]}}'],
    "wrong": ["NaN", "Infinity", "01", "1e400", '"\\q"'],
}
LINES = ["", "  ", "[1]", "null", "5", "{", "{}", "\ufeff{}", '{"a":1}{"a":2}', '{"a":1},', '{"a":1,"a":"x"}', "\r"]
KINDS = [*VALUES, "int", "float", "text"]


def hostile(draw: random.Random) -> bytes:
    """JSON lines of a few fields, of which some are rare, late, or of several types."""
    names = draw.sample(["a", "b", 'q"x', "é", ""], draw.choice([1, 2, 3]))
    kinds = {name: draw.sample(KINDS, draw.choice([1, 1, 1, 2])) for name in names}
    missing, nulls, wrong = draw.choice([0, 0.5]), draw.choice([0, 0.7]), draw.choice([0, 0, 0.05])
    lines = []
    for number in range(40):
        fields = []
        for name in draw.sample(names, len(names)) if missing else names:
            if draw.random() < missing or (name == "é" and number < 25):
                continue
            kind = kinds[name][-1 if number > 20 else 0]
            value = "null" if draw.random() < nulls else draw.choice(VALUES[kind])
            fields.append(f"{json.dumps(name)}: {value}")
        lines.append(draw.choice(LINES) if draw.random() < wrong else "{" + ",".join(fields) + "}")
    return (draw.choice(["\n", "\r\n"]).join(lines) + draw.choice(["", "\n", "\n\n"])).encode()


def outcome(path: Path, spec: SourceSpec | None = None) -> FileTable | str:
    try:
        return read_table(path, path.name, spec or SourceSpec(path=path.name))
    except DataError as error:
        return str(error)


def test_pieces_of_hostile_lines_are_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_files, "LARGE_TEXT", 1)
    path, same, refused, set_aside = tmp_path / "t.jsonl", 0, 0, 0
    for seed in range(250):
        draw = random.Random(seed)
        path.write_bytes(hostile(draw))
        monkeypatch.setattr(large_files, "_ROWS", draw.choice([2, 5, 10]))
        whole = outcome(path)
        pieces = pieces_of(path, path.name, SourceSpec(path=path.name), ())
        if pieces is None:
            assert isinstance(whole, str) or "" in whole.rows.columns, seed
            continue
        try:
            tables = list(pieces.tables())
        except PieceError:
            assert isinstance(whole, str), seed
            refused += 1
            continue
        assert isinstance(whole, FileTable), (seed, whole)
        frames = [table.rows for table in tables]
        assert all(list(frame.schema.items()) == list(pieces.schema.items()) for frame in frames), seed
        assert_frame_equal(pl.concat(frames), whole.rows)
        lines = [table.refused for table in tables if table.refused is not None]
        assert (whole.refused is None) == (not lines), seed
        if whole.refused is not None:
            assert_frame_equal(pl.concat(lines), whole.refused)
            set_aside += 1
        same += len(frames) > 1
    assert (same > 80, refused > 2, set_aside > 20) == (True, True, True)


LEAVES = [*(value for kind in KINDS[:-3] for value in VALUES[kind]), "18446744073709551616", "9223372036854775808"]


def hostile_paths(draw: random.Random) -> bytes:
    """Lines of `hostile` in which objects, and what is none, stand where paths lead through."""
    kinds, found = draw.sample(LEAVES, draw.choice([1, 2, 12])), []
    late, plain = draw.choice([0, 30]), draw.choice([0, 0, 0.1, 1])
    for number, line in enumerate(hostile(draw).split(b"\n")):
        value = draw.choice(kinds)
        inner = draw.choice([f'{{"x": {value}}}', f'{{"x": {value}, "y": {{"z": {value}}}}}', "{}", "null"])
        root = value if draw.random() < plain else inner
        is_object = line.startswith(b"{") and line.rstrip() not in (b"{", b"{}") and number >= late
        found.append(line.replace(b"{", f'{{"root": {root}, "n": {inner}, '.encode(), 1) if is_object else line)
    return b"\n".join(found)


PATHS = [{"x": "root.x"}, {"x": "root.x", "z": "n.y.z"}, {"z": "root.y.z", "root": "n.x"}, {"a": "root.x"}]


@pytest.mark.slow
def test_pieces_of_hostile_lines_have_the_declared_columns_of_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_files, "LARGE_TEXT", 1)
    path, same, refused, set_aside = tmp_path / "t.jsonl", 0, 0, 0
    for seed in range(400):
        draw = random.Random(seed)
        path.write_bytes(hostile_paths(draw))
        monkeypatch.setattr(large_files, "_ROWS", draw.choice([8, 20, 40]))
        spec = SourceSpec(path=path.name, columns=draw.choice(PATHS))
        whole = outcome(path, spec)
        pieces = pieces_of(path, path.name, spec, ())
        if pieces is None:
            assert isinstance(whole, str) or b'"":' in path.read_bytes(), seed
            continue
        try:
            tables = list(pieces.tables())
        except PieceError:
            assert isinstance(whole, str), seed
            refused += 1
            continue
        assert isinstance(whole, FileTable), (seed, whole)
        frames = [table.rows for table in tables]
        assert all(list(frame.schema.items()) == list(pieces.schema.items()) for frame in frames), seed
        assert_frame_equal(pl.concat(frames), whole.rows)
        lines = [table.refused for table in tables if table.refused is not None]
        assert (whole.refused is None) == (not lines), seed
        if whole.refused is not None:
            place = pl.concat(lines, how="diagonal_relaxed").sort(ROW)
            assert_frame_equal(place, whole.refused.sort(ROW), check_column_order=False)
            assert set(place["__rule"]) == set(whole.refused["__rule"])
            set_aside += 1
        same += len(frames) > 1
    assert (same > 120, refused > 2, set_aside > 40) == (True, True, True), (same, refused, set_aside)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Files are read in pieces of about 50 rows; the list has the rows of each piece."""
    return in_pieces(monkeypatch)


@pytest.mark.parametrize("key", ["id", "other"])
def test_a_value_of_another_kind_is_named_with_its_line_in_the_file(place, small, key) -> None:
    """Also where the declaration does not fit: what cannot be read is said first, as of a file that is read whole."""
    place.write("t.jsonl", '{"id": 1, "n": 2}\n' * 300 + '{"id": 1, "n": {"a": 1}}\n')
    with pytest.raises(DataError, match='"n" holds an object in line 301 and a plain value before'):
        place.ingest(path="t.jsonl", key=key)


def test_json_lines_in_pieces_may_be_larger_than_the_memory(place, small) -> None:
    place.write("t.jsonl", '{"id": 1, "late": null}\n' * 3000 + '{"id": 1, "late": 5}\n')
    snapshot = place.ingest(path="t.jsonl", budget=MemoryBudget(10_000))
    assert {field.name: field.dtype for field in snapshot.fields} == {"id": "int", "late": "int"}
    assert sum(small) == 3001
    assert len(small) > 20


def long_texts(path: Path) -> None:
    """400 rows that take 40 MB and are stored in a few KB."""
    with orc.ORCWriter(str(path), compression="zstd", dictionary_key_size_threshold=1.0) as writer:
        for _ in range(8):
            writer.write(pa.table({"text": ["x" * 100_000] * 50}))


def test_orc_in_pieces_may_take_more_than_half_of_the_memory(place, small, monkeypatch) -> None:
    long_texts(place.root / "t.orc")
    monkeypatch.setattr(memory, "machine_memory", lambda: 20 << 20)
    monkeypatch.setattr(large_files, "EXPANSION", 1 << 20)
    assert place.ingest(path="t.orc").rows_passed == 400
    assert len(small) > 5


def test_orc_in_pieces_takes_what_is_declared_at_most(place, small) -> None:
    long_texts(place.root / "t.orc")
    with pytest.raises(DataError, match="takes more than"):
        place.ingest(path="t.orc", memory="4MiB")
    assert sum(small) < 400


def test_a_table_of_bytes_alone_is_stored(place) -> None:
    place.write("t.parquet", pl.DataFrame({"raw": [b"a", b"\xff", None]}))
    assert place.ingest(path="t.parquet").rows_passed == 3
