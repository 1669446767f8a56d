"""Columns that are declared as paths into structs, JSON objects and JSON texts."""

from __future__ import annotations

import io
import json

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import orc

from cumulant.core.errors import DataError, UsageError
from cumulant.data.checks.verdict import SourceBreachError, warnings_of
from cumulant.data.column_paths import paths_of
from cumulant.data.files.reading import read
from cumulant.data.files.streaming import FileStream
from cumulant.data.formats.json_lines import read_jsonl
from cumulant.data.formats.nested_paths import with_nested
from cumulant.data.spec import SourceSpec
from cumulant.data.views import read_quarantine

COLUMNS = {"city": "address.city", "lat": "address.at.lat", "since": "account.since"}
ROWS = [
    {"id": 1, "address": {"city": 'Köln \\ "x"', "at": {"lat": 50.9}}, "account": {"since": 2001}},
    {"id": 2, "address": {"city": None, "at": None}, "account": {"since": 2002}},
    {"id": 3, "address": None, "account": {"since": None}},
    {"id": 4, "address": {"city": "Bonn", "at": {"lat": 50.0}}, "account": {"since": 2004}},
]
FLAT = [(1, 'Köln \\ "x"', 50.9, 2001), (2, None, None, 2002), (3, None, None, None), (4, "Bonn", 50.0, 2004)]


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: list[dict]) -> bytes:
    pl.DataFrame(rows).write_parquet(stream := io.BytesIO())
    return stream.getvalue()


def orc_file(rows: list[dict]) -> bytes:
    orc.write_table(pa.Table.from_pylist(rows), sink := pa.BufferOutputStream())
    return sink.getvalue().to_pybytes()


def csv(rows: list[dict]) -> bytes:
    texts = [{name: json.dumps(value) if name != "id" else value for name, value in row.items()} for row in rows]
    return pl.DataFrame(texts).write_csv().encode()


FORMATS = {"rows.parquet": parquet, "rows.orc": orc_file, "rows.csv": csv, "rows.jsonl": lambda rows: lines(*rows)}


@pytest.mark.parametrize("name", FORMATS)
def test_declared_paths_are_columns_in_every_format(place, name):
    place.write(name, FORMATS[name](ROWS))
    found = place.ingest(path=name, columns=COLUMNS)
    assert [(field.name, field.dtype) for field in found.fields] == [
        ("id", "int"),
        ("city", "str"),
        ("lat", "float"),
        ("since", "int"),
    ]
    assert place.rows(found, "id", "city", "lat", "since") == FLAT


@pytest.mark.parametrize("path", ["address.city", "city"])
def test_a_column_without_a_name_is_refused(path):
    with pytest.raises(UsageError, match=f'the column with the path "{path}" has no name'):
        paths_of({"": path})


def test_a_frame_has_declared_paths_too(place):
    found = place.ingest(frame=pl.DataFrame(ROWS), columns=COLUMNS)
    assert place.rows(found, "id", "city", "lat", "since") == FLAT


@pytest.mark.parametrize("name", FORMATS)
def test_pieces_of_a_stream_have_declared_paths(tmp_path, name):
    (tmp_path / name).write_bytes(FORMATS[name](ROWS))
    stream = FileStream(tmp_path / name, name, SourceSpec(path=name, columns=COLUMNS), rows=2)
    assert set(stream.head.columns) == {"id", "city", "lat", "since"}
    pieces = [piece.rows for piece in stream.pieces(["city", "id"])]
    assert [pair for rows in pieces for pair in rows.select("id", "city").rows()] == [row[:2] for row in FLAT]


def test_wrong_kinds_at_a_path_are_refused_rows_with_their_reason(place):
    wrong = [
        {"id": 7, "address": "Bonn"},
        {"id": 8, "address": {"city": {"name": "x"}}},
        {"id": 9, "address": {"city": ["a"]}},
    ]
    place.write("rows.jsonl", lines(*ROWS, *wrong))
    found = place.ingest(path="rows.jsonl", columns=COLUMNS, quarantine="50%")
    assert place.rows(found, "id", "city", "lat", "since") == FLAT
    refused = place.quarantine(found)
    assert refused["__rule"].to_list() == ["city:path"] * 3
    assert refused["__row"].to_list() == [4, 5, 6]
    assert refused["city"].to_list() == ["Bonn", '{"name":"x"}', '["a"]']
    assert refused["id"].to_list() == ["7", "8", "9"]
    with pytest.raises(SourceBreachError, match="city"):
        place.ingest(path="rows.jsonl", columns=COLUMNS)


def test_a_value_of_another_type_is_quarantined_by_the_declared_type(place):
    place.write("rows.jsonl", lines(*({"a": {"n": number}} for number in (1, 2, "x", 3))))
    found = place.ingest(path="rows.jsonl", columns={"n": "a.n"}, rules={"n": {"type": "int"}}, quarantine="50%")
    assert place.rows(found, "n") == [(1,), (2,), (3,)]
    assert place.quarantine(found).select("__rule", "n").rows() == [("n:type", "x")]


def test_rows_to_predict_are_refused_with_the_place(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(lines({"a": {"n": 1}}, {"a": 5}))
    with pytest.raises(DataError, match=r"1 row has a list or an object in place of a value \(n in row 2\)"):
        read(tmp_path / "rows.jsonl", "rows.jsonl", SourceSpec(path="rows.jsonl", columns={"n": "a.n"}))


def test_a_path_that_no_row_has_is_null_and_a_warning(place):
    place.write("rows.jsonl", lines(*ROWS))
    found = place.ingest(path="rows.jsonl", columns={**COLUMNS, "town": "address.town", "zip": "adress.zip"})
    assert set(place.rows(found, "town", "zip")) == {(None, None)}
    assert sum("check its spelling" in warning for warning in warnings_of(found)) == 2


def test_a_path_that_one_of_two_files_lacks_is_null_there(place):
    place.write("rows/1.jsonl", lines({"id": 1, "a": {"n": 5}}))
    place.write("rows/2.jsonl", lines({"id": 2}))
    found = place.ingest(path="rows", columns={"n": "a.n"})
    assert sorted(place.rows(found, "id", "n")) == [(1, 5), (2, None)]


@pytest.mark.parametrize(
    ("columns", "problem", "hint"),
    [
        ({"tags": "a.tags"}, "tags leads to a list, a.tags", "prepare"),
        ({"b": "a.b"}, "b ends at a struct, a.b", "a.b.c"),
        ({"deep": "a.n.x"}, "leads through a.n, which holds plain values", "columns"),
        ({"id": "a.n"}, 'has a column "id"', "another name"),
    ],
)
def test_paths_that_give_no_column_are_refused_with_what_to_do(place, columns, problem, hint):
    place.write("rows.parquet", pl.DataFrame([{"id": 1, "a": {"tags": ["x"], "b": {"c": 1}, "n": 1}}]))
    with pytest.raises(DataError, match=problem) as caught:
        place.ingest(path="rows.parquet", columns=columns)
    assert hint in (caught.value.hint or "")


def test_lists_and_structs_without_a_path_are_refused_with_what_to_declare(place):
    place.write("rows.parquet", pl.DataFrame([{"id": 1, "a": {"n": 1}}]))
    with pytest.raises(DataError, match='"a" holds') as caught:
        place.ingest(path="rows.parquet")
    assert "columns: {a_n: a.n}" in (caught.value.hint or "")
    place.write("rows.parquet", pl.DataFrame([{"id": 1, "a": [1]}]))
    with pytest.raises(DataError, match='"a" holds') as caught:
        place.ingest(path="rows.parquet")
    assert "no feature can read a list" in (caught.value.hint or "")


@pytest.mark.parametrize("path", ["address", "address.", ".city", ""])
def test_a_path_without_a_field_is_refused(place, path):
    place.write("rows.jsonl", lines(*ROWS))
    with pytest.raises(UsageError, match="names no field"):
        place.ingest(path="rows.jsonl", columns={"city": path})


def test_no_row_with_a_value_is_an_error(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(lines({"a": 1}, {"a": "x"}))
    with pytest.raises(DataError, match="none of its 2 rows"):
        read(tmp_path / "rows.jsonl", "rows.jsonl", SourceSpec(path="rows.jsonl", columns={"n": "a.n"}))


plain = st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.text(max_size=8))
values = st.recursive(
    plain,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("bc"), inner, max_size=2)),
    max_leaves=4,
)


@given(st.lists(st.dictionaries(st.sampled_from("ad"), values, max_size=2), min_size=1, max_size=6))
def test_every_row_is_read_or_refused(rows):
    """Against the obvious walk: no row is lost, none has another row's value."""
    expected = []
    for row in rows:
        value = row.get("a")
        for name in "bc":
            value = (
                value if value is None or value == "wrong" else value.get(name) if isinstance(value, dict) else "wrong"
            )
        expected.append("wrong" if isinstance(value, dict | list) else value)
    content = lines(*({"id": number, "a": row.get("a")} for number, row in enumerate(rows)))
    fits = [(number, value) for number, value in enumerate(expected) if value != "wrong"]
    if not fits:
        with pytest.raises(DataError):
            read_jsonl(content, "rows", {"x": "a.b.c"})
        return
    table = read_jsonl(content, "rows", {"x": "a.b.c"})
    text = table.rows.schema["x"] == pl.String()
    shown = [
        (number, value if value is None or not text or isinstance(value, str) else json.dumps(value))
        for number, value in fits
    ]
    assert table.rows.select("id", "x").rows() == shown
    assert (0 if table.refused is None else table.refused.height) == len(rows) - len(fits)


def test_equal_names_of_column_and_root(tmp_path):
    rows, refused = with_nested(pl.DataFrame([{"address": {"city": "{}"}}]), {"address": "address.city"}, "rows")
    assert rows.rows() == [("{}",)]
    assert refused is None
    assert read_jsonl(lines({"address": {"city": "{}"}}), "rows", {"address": "address.city"}).rows.rows() == [("{}",)]


def test_what_stands_in_place_of_an_object_is_hashed_where_a_source_has_personal_columns(place):
    place.write("rows.jsonl", lines({"a": {"mail": "x@y.de", "n": 1}}, {"a": "x@y.de"}))
    columns = {"n": "a.n", "mail": "a.mail"}
    found = place.ingest(path="rows.jsonl", columns=columns, personal=["mail"], quarantine="90%")
    assert "x@y.de" not in str(read_quarantine(found, place.tables, b"salt").rows())
    with pytest.raises(SourceBreachError) as caught:
        place.ingest(path="rows.jsonl", columns=columns, personal=["mail"])
    assert "x@y.de" not in f"{caught.value} {caught.value.hint}"
