"""JSON lines that ask too much of a parser: nested too deep, or with too many fields."""

from __future__ import annotations

import json
import random
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from test_data_large_files import in_pieces

from cumulant.core.errors import DataError
from cumulant.data.files import large_files
from cumulant.data.files.large_files import pieces_of
from cumulant.data.files.reading import read, read_table
from cumulant.data.formats import json_limits
from cumulant.data.formats.json_faults import set_aside
from cumulant.data.formats.json_limits import MOST_FIELDS, MOST_LEVELS, deep_lines, is_deep
from cumulant.data.spec import SourceSpec
from cumulant.data.views import read_quarantine


def lists(levels: int, value: object = 1) -> str:
    """A line whose value is in so many lists; its object is one level more."""
    return '{"id": 0, "x": ' + "[" * levels + json.dumps(value) + "]" * levels + "}\n"


def objects(levels: int, name: str) -> str:
    return '{"id": 0, "x": ' + f'{{"{name}": ' * levels + "1" + "}" * levels + "}\n"


def plain(numbers: range) -> str:
    return "".join(f'{{"id": {number}, "n": {number}}}\n' for number in numbers)


DEEP = {
    "lists": lists(500) + lists(499),
    "objects": objects(500, "a") + objects(499, "b"),
    "open": "[" * 100_000 + "\n" + '{"x": ' + "{" * 100_000 + "\n",
}


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("columns", [{}, {"city": "address.city"}])
@pytest.mark.parametrize("deep", DEEP)
def test_rows_that_are_nested_too_deep_go_to_quarantine_with_their_lines(
    place, monkeypatch, deep, columns, pieces
) -> None:
    read_at_once = in_pieces(monkeypatch) if pieces else []
    place.write("t.jsonl", plain(range(1, 200)) + "\n" + DEEP[deep] + plain(range(200, 400)))
    found = place.ingest(path="t.jsonl", key="id", quarantine="2%", columns=columns)
    assert (found.rows_in, found.rows_passed) == (401, 399)
    refused = place.quarantine(found)
    assert refused.select("__rule", "__row", "__line").rows() == [("row:depth", 199, 201), ("row:depth", 200, 202)]
    assert refused["__text"].to_list() == [line[:1000] for line in DEEP[deep].splitlines()]
    (check,) = [check for check in found.checks if check.rule == "row:depth"]
    assert (check.failed, check.column, check.text) == (2, None, "each row is nested at most 20 levels deep")
    assert (len(read_at_once) > 1) == pieces


def test_a_whole_piece_of_deep_rows_is_refused(place, monkeypatch) -> None:
    in_pieces(monkeypatch)
    place.write("t.jsonl", plain(range(300)) + lists(30) * 300 + plain(range(300, 600)))
    found = place.ingest(path="t.jsonl", key="id", quarantine="50%")
    assert (found.rows_passed, found.rows_quarantined) == (600, 300)
    assert place.quarantine(found)["__line"].to_list() == list(range(301, 601))


def test_a_file_that_is_nested_too_deep_everywhere_is_named(place) -> None:
    place.write("t.jsonl", lists(20) + lists(21))
    with pytest.raises(DataError, match=r"t\.jsonl: all of its 2 rows are nested more than 20 levels deep"):
        place.ingest(path="t.jsonl")


def test_the_deepest_rows_that_are_read_are_answered_at_once(tmp_path: Path) -> None:
    """Types that differ in the innermost list take longest to be found different: two to the power of the levels."""
    path = tmp_path / "t.jsonl"
    path.write_text(lists(19) + lists(18))
    with pytest.raises(DataError, match="different types in one field"):
        read_table(path, "t.jsonl", SourceSpec(path="t.jsonl"))
    path.write_text(lists(19) + lists(19, 0.5))
    assert read_table(path, "t.jsonl", SourceSpec(path="t.jsonl")).rows.height == 2


def test_rows_to_predict_that_are_nested_too_deep_are_refused_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(plain(range(3)) + lists(20))
    with pytest.raises(DataError, match=r"1 row is nested more than 20 levels deep \(line 4\)"):
        read(tmp_path / "t.jsonl", "t.jsonl", SourceSpec(path="t.jsonl"))


def test_a_deep_row_of_a_source_with_personal_columns_is_shown_as_a_hash(place) -> None:
    place.write("t.jsonl", '{"mail": "a@b.de"}\n' * 3 + '{"mail": "x@y.de", "x": ' + "[" * 30 + "\n")
    found = place.ingest(path="t.jsonl", personal=["mail"], quarantine="50%")
    shown = read_quarantine(found, place.tables, b"salt")
    assert shown["__rule"].to_list() == ["row:depth"]
    assert "x@y.de" not in str(shown.rows())
    assert shown["__text"][0].startswith("#")


def test_a_json_text_that_is_nested_too_deep_has_no_paths(place) -> None:
    texts = ['{"city": "Bonn"}', '{"city": ' + "[" * 100_000]
    place.write("t.parquet", pl.DataFrame({"id": [1, 2], "address": texts}))
    found = place.ingest(path="t.parquet", columns={"city": "address.city"}, quarantine="50%")
    assert place.rows(found, "id", "city") == [(1, "Bonn")]
    assert place.quarantine(found)["__rule"].to_list() == ["city:path"]


def levels(line: str) -> int:
    """How deep a line is nested, sign by sign."""
    depth = deepest = 0
    quoted = escaped = False
    for sign in line:
        if escaped:
            escaped = False
        elif quoted and sign == "\\":
            escaped = True
        elif sign == '"':
            quoted = not quoted
        elif not quoted and sign in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif not quoted and sign in "]}":
            depth -= 1
    return deepest


def nested(draw: random.Random, depth: int) -> object:
    if not depth:
        return draw.choice([1, None, "]" * 30, '"[' * 30, "\\" * 7 + "{", '{"a": ["', "\n"])
    inner = nested(draw, depth - 1)
    beside = draw.choice(["[[[[", 5, [], {}, '\\"{'])
    return draw.choice([[inner], [beside, inner], {"a": inner}, {"{[": beside, '"': inner}])


def test_levels_are_those_that_go_sign_by_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = 0
    for seed in range(300):
        draw = random.Random(seed)
        monkeypatch.setattr(json_limits, "_STEP", draw.choice([1, 100, 1 << 18]))
        values = [{"x": nested(draw, draw.choice([0, 5, 15, 18, 19, 20, 21, 40]))} for _ in range(10)]
        lines = [json.dumps(value) for value in values]
        if seed % 3 == 0:
            lines[draw.randrange(10)] = draw.choice(['{"x": "' + "[" * 50, "[" * 21, '"', "", "{}" * 30, "]" * 9])
        content = "\n".join(lines).encode()
        found = set_aside(content, deep_lines(content), first_row=5, first_line=7)
        expected = [line for line in lines if levels(line) > MOST_LEVELS]
        assert found.content.decode().split("\n") == ["" if levels(line) > MOST_LEVELS else line for line in lines], (
            seed
        )
        assert [is_deep(line) for line in lines] == [levels(line) > MOST_LEVELS for line in lines], seed
        if expected:
            assert found.refused["__text"].to_list() == [line[:1000] for line in expected], seed
            assert found.refused["__line"][0] == 8 + lines.index(expected[0])
        deep += len(expected)
    assert 500 < deep < 2000


@pytest.mark.parametrize(
    ("content", "most"),
    [
        # the price of names that each line has for itself is a square
        ("".join(f'{{"id": {number}, "k{number}": 1}}\n' for number in range(1100)), 1000),
        ("".join(f'{{"id": {number}, "s": {{"k{number}": 1}}}}\n' for number in range(1100)), 1000),
        (plain(range(5)) + "{" + ", ".join(f'"k{number}": 1' for number in range(200_000)) + "}\n", MOST_FIELDS),
        ('{"s": [{' + ", ".join(f'"k{number}": 1' for number in range(MOST_FIELDS)) + "}]}\n", MOST_FIELDS),
    ],
    ids=["lines", "objects", "line", "list"],
)
@pytest.mark.parametrize("large", [False, True])
def test_names_that_are_data_are_named_as_such(place, monkeypatch, content, most, large) -> None:
    monkeypatch.setattr(json_limits, "MOST_FIELDS", most)
    if large:
        monkeypatch.setattr(large_files, "LARGE_TEXT", 1)
    place.write("t.jsonl", content)
    with pytest.raises(DataError, match=f"more than {most:,} fields: names that are data and no columns"):
        place.ingest(path="t.jsonl", memory="64GiB")


@pytest.mark.slow
def test_fields_that_most_lines_lack_take_no_more_memory_than_declared(place) -> None:
    place.write("t.jsonl", "".join(f'{{"s": {{"k{number % 900}": 1}}}}\n' for number in range(3000)))
    with pytest.raises(DataError, match=r"takes more than 0\.293 GiB when it is read"):
        place.ingest(path="t.jsonl", memory="300MiB")
    wide = "".join(json.dumps({f"k{number}": 1 for number in range(900)}) + "\n" for _ in range(1000))
    place.write("t.jsonl", wide)
    assert place.ingest(path="t.jsonl", memory="20MiB").rows_passed == 1000


def deep_object(value: object, levels: int) -> object:
    return value if not levels else {"o": deep_object(value, levels - 1)}


@pytest.mark.parametrize("line", ['{"id": 1, "a": null}', '{"id": 1, "b": {"items": []}}', '{"id": 1}'])
def test_null_objects_and_empty_lists_do_not_count_as_all_their_fields(tmp_path: Path, monkeypatch, line) -> None:
    fields = {f"k{number}": 1 for number in range(30)}
    first = json.dumps({"id": 0, "a": deep_object(fields, 6), "b": {"items": [fields]}})
    path, spec = tmp_path / "t.jsonl", SourceSpec(path="t.jsonl", memory="100MiB")
    path.write_text("\n".join([first, *[line] * 10_000]))
    assert read_table(path, "t.jsonl", spec).rows.height == 10_001
    monkeypatch.setattr(large_files, "LARGE_TEXT", 1)
    assert pieces_of(path, "t.jsonl", spec, ()) is not None


@pytest.mark.parametrize("items", [[], [{"k1": 1}]])
def test_lists_take_the_types_of_all_fields_of_their_items(place, items) -> None:
    first = json.dumps({"items": [{f"k{number}": 1 for number in range(900)}]})
    place.write("t.jsonl", "\n".join([first, *[json.dumps({"items": items})] * 3000]))
    with pytest.raises(DataError, match=r"takes more than 0\.195 GiB when it is read"):
        place.ingest(path="t.jsonl", memory="200MiB")


def test_lines_of_many_fields_have_the_columns_in_their_order_also_in_pieces(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(large_files, "LARGE_TEXT", 1)
    monkeypatch.setattr(large_files, "_ROWS", 20)
    path, spec = tmp_path / "t.jsonl", SourceSpec(path="t.jsonl")
    names = [f"f{number}" for number in random.Random(1).sample(range(200), 200)]
    rows = [{name: place * number for place, name in enumerate(names[: 100 + number])} for number in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = read_table(path, "t.jsonl", spec).rows
    assert whole.columns == names[:199]
    pieces = pieces_of(path, "t.jsonl", spec, ())
    frames = [table.rows for table in pieces.tables()]
    assert len(frames) > 3
    assert_frame_equal(pl.concat(frames), whole)
