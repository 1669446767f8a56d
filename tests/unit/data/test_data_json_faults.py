"""JSON lines of which some are no JSON objects: these go to quarantine, and the others are read."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from test_data_large_files import in_pieces

from cumulant.core.errors import DataError
from cumulant.data.checks.verdict import SourceBreachError
from cumulant.data.files import large_files
from cumulant.data.files.reading import read, read_table
from cumulant.data.formats.json_faults import find_non_objects
from cumulant.data.spec import SourceSpec
from cumulant.data.views import read_quarantine

BAD = [
    b'{"id": 7, "n": 2',
    b"hello",
    b'{"id": 7}{"id": 8}',
    b'{"id": 7},',
    b"[1, 2]",
    b"[]",
    b"null",
    b"5",
    b"-1.5",
    b"true",
    b'"text"',
    b'{"id": NaN}',
    b'{"id": 01}',
    b'{"id": 1e400}',
    b'{"id": ' + b"9" * 60 + b"}",
    b'{"id": "\xff"}',
    b'{"id": 7}\x00',
    b"\x00",
    b"\x0c",
    b"{'id': 7}",
    b'{"id": 7, "n": "\\q"}',
    b"\xef\xbb\xbf{}",
    b"]",
]
GOOD = [b'{"id": 3, "id": 4}', b'{"id": 18446744073709551616}', b"{}", b'  {"id": 5}\t', b'{"n": "\\ud800"}', b'{"":1}']


def plain(numbers: range) -> bytes:
    return b"".join(b'{"id": %d, "a": {"n": %d}}\n' % (number, number) for number in numbers)


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("columns", [{}, {"n": "a.n"}])
@pytest.mark.parametrize("line", BAD)
def test_a_line_that_is_no_json_object_goes_to_quarantine_with_its_line(place, line, columns, packed) -> None:
    lines = plain if columns else flat
    content = lines(range(200)) + b"\n" + line + b"\n \r\n" + b"[" * 30 + b"\n" + lines(range(200, 400))
    name = "t.jsonl.gz" if packed else "t.jsonl"
    place.write(name, gzip.compress(content) if packed else content)
    found = place.ingest(path=name, key="id", quarantine="2%", columns=columns)
    assert (found.rows_in, found.rows_passed) == (402, 400)
    refused = place.quarantine(found)
    assert refused.select("__rule", "__row", "__line").rows() == [("row:json", 200, 202), ("row:depth", 201, 204)]
    assert refused["__text"][0] == line.decode(errors="replace")
    assert [(check.failed, check.column, check.text) for check in found.checks if check.rule == "row:json"] == [
        (1, None, "each row is one JSON object")
    ]


def flat(numbers: range) -> bytes:
    return b"".join(b'{"id": %d, "n": 0.5}\n' % number for number in numbers)


@pytest.mark.slow
@pytest.mark.parametrize("line", BAD)
def test_such_lines_are_set_aside_in_pieces_too(place, monkeypatch, line) -> None:
    read_at_once = in_pieces(monkeypatch)
    place.write("t.jsonl", b"\n" + line + b"\n" + flat(range(300)) + (line + b"\n") * 3 + flat(range(300, 600)))
    found = place.ingest(path="t.jsonl", key="id", quarantine="2%")
    assert (found.rows_passed, len(read_at_once) > 5) == (600, True)
    refused = place.quarantine(found).select("__rule", "__row", "__line").rows()
    assert refused == [("row:json", row, line) for row, line in ((0, 2), (301, 303), (302, 304), (303, 305))]


def test_they_count_for_the_share_that_may_be_refused(place) -> None:
    place.write("t.jsonl", flat(range(97)) + b"hello\n" * 3)
    with pytest.raises(SourceBreachError, match=r"3 of 100 rows are refused .* by row:json \(3\)"):
        place.ingest(path="t.jsonl", quarantine="2%")
    assert place.ingest(path="t.jsonl", quarantine="3%").rows_passed == 97


@pytest.mark.parametrize("pieces", [False, True])
def test_a_file_is_named_of_which_no_line_is_an_object_or_the_last_one_is_cut_off(place, monkeypatch, pieces) -> None:
    if pieces:
        in_pieces(monkeypatch)
    place.write("t.jsonl", b"hello\n5\n" + b"[" * 30 + b"\n")
    with pytest.raises(DataError, match=r"t\.jsonl has no line that is a JSON object"):
        place.ingest(path="t.jsonl", quarantine="100%")
    place.write("t.jsonl", flat(range(500))[:-5])
    with pytest.raises(DataError, match="cut off: its last line is not a whole JSON object"):
        place.ingest(path="t.jsonl", quarantine="100%")


def test_rows_to_predict_that_are_no_objects_are_refused_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(flat(range(3)) + b"null\n")
    with pytest.raises(DataError, match=r"1 row is no JSON object \(line 4\)"):
        read(tmp_path / "t.jsonl", "t.jsonl", SourceSpec(path="t.jsonl"))


def test_such_a_line_of_a_source_with_personal_columns_is_shown_as_a_hash(place) -> None:
    place.write("t.jsonl", '{"mail": "a@b.de"}\n' * 3 + '{"mail": "x@y.de"\n')
    found = place.ingest(path="t.jsonl", personal=["mail"], quarantine="50%")
    assert "x@y.de" not in str(read_quarantine(found, place.tables, b"salt").rows())


def test_a_byte_order_mark_is_no_part_of_the_first_line(place, monkeypatch) -> None:
    place.write("t.jsonl", b"\xef\xbb\xbf" + flat(range(500)))
    assert place.ingest(path="t.jsonl").rows_passed == 500
    read_at_once = in_pieces(monkeypatch)
    place.write("t.jsonl", b"\xef\xbb\xbf" + flat(range(501)))
    assert place.ingest(path="t.jsonl").rows_passed == sum(read_at_once) == 501


def test_lines_without_the_bad_ones_are_read_as_if_these_were_not_there(tmp_path: Path, monkeypatch) -> None:
    path, other = tmp_path / "t.jsonl", tmp_path / "good.jsonl"
    for seed in range(300):
        draw = random.Random(seed)
        lines = [json.dumps({"id": draw.choice([1, 2.5, None]), "t": draw.choice("ab")}).encode() for _ in range(20)]
        lines += draw.sample(GOOD, 2)
        draw.shuffle(lines)
        ends = draw.choice([b"\n", b"\r\n"])
        other.write_bytes(ends.join(lines) + ends)
        bad = {place: draw.choice(BAD) for place in draw.sample(range(1, 22), draw.choice([1, 2, 10]))}
        both = [line for place, good in enumerate(lines) for line in ([bad[place]] if place in bad else []) + [good]]
        path.write_bytes(ends.join(both) + ends)
        assert [both[place] for place in find_non_objects(ends.join(both))] == [bad[place] for place in sorted(bad)], (
            seed
        )
        table = read_table(path, path.name, SourceSpec(path=path.name))
        assert_frame_equal(table.rows, read_table(other, path.name, SourceSpec(path=path.name)).rows)
        assert table.refused.height == len(bad)


def test_very_many_bad_lines_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_files, "LARGE_TEXT", 1)
    path = tmp_path / "t.jsonl"
    path.write_bytes((b'{"id": 1}\n' + b"hello\n") * 50_000)
    pieces = large_files.pieces_of(path, path.name, SourceSpec(path=path.name), ())
    tables = list(pieces.tables())
    assert pl.concat([table.refused for table in tables])["__row"].to_list() == list(range(1, 100_000, 2))
