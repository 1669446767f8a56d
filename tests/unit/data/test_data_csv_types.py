"""Types of CSV columns: those that the engine infers from all rows, found from the text of all rows."""

from __future__ import annotations

import csv
import io
import re
import struct

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.errors import DataError
from cumulant.data.spec import RuleSpec, SourceSpec
from cumulant.data.text import csv_text
from cumulant.data.text.csv_text import read_csv
from cumulant.data.text.identifier_text import PADDED

FIELDS = {
    "whole": ["0", "7", "-12", "-0", "9223372036854775807"],
    "long": ["9223372036854775808", "-9223372036854775809", "1" * 38],
    "fraction": ["0.5", "-1.25", ".5", "5.", "+1.5", "1e5", "1.5E-3", "NaN", "-inf", "1e400", "4.9e-324", "00.5"],
    "truth": ["true", "FALSE", "tRue"],
    "padded": ["007", "-01", "00"],
    "text": [
        "+5",
        " 5",
        "5 ",
        "5.e3",
        "nan",
        "Inf",
        "infinity",
        "1_0",
        "--5",
        "t",
        "x",
        "é",
        " ",
        '""',
        '" 5"',
        '"a,b"',
    ],
    "quoted": ['"5"', '"0.5"', '"true"', '"x"'],
    "mark": ["NA", '"NA"'],
    "empty": [""],
    "script": ["１", "1" * 45],
}


@pytest.fixture(autouse=True, scope="module")
def by_texts():
    """Small texts are read as large ones are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_text, "_MANY", 0)
        yield


KIND = st.sampled_from(list(FIELDS))


@st.composite
def column(draw: st.DrawFn, rows: int) -> list[str]:
    """Fields of one or two kinds, and perhaps single ones of another kind far behind the others."""
    kinds = draw(st.lists(KIND, min_size=1, max_size=2))
    field = st.sampled_from([field for kind in kinds for field in FIELDS[kind]])
    few = draw(st.lists(field, min_size=1, max_size=6))
    fields = [few[row % len(few)] for row in range(rows)]
    for kind in draw(st.lists(KIND, max_size=2)):
        fields[-1 - draw(st.integers(0, 2))] = draw(st.sampled_from(FIELDS[kind]))
    return fields


@st.composite
def text(draw: st.DrawFn) -> bytes:
    rows = draw(st.sampled_from([3, 5, 90]))  # more rows than are looked at first
    columns = draw(st.lists(column(rows), min_size=1, max_size=3))
    lines = ["a,b,c"[: 2 * len(columns) - 1] + ",end", *(",".join([*row, "1"]) for row in zip(*columns, strict=True))]
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    return (draw(st.sampled_from(["", "\ufeff"])) + end.join(lines) + end).encode()


def inferred(content: bytes, missing: list[str]) -> pl.DataFrame:
    """The engine's types of all rows, but for numbers with leading zeros, which are text."""
    marks = missing or None
    rows = pl.read_csv(io.BytesIO(content), infer_schema_length=None, null_values=marks)
    texts = pl.read_csv(io.BytesIO(content), infer_schema=False, null_values=marks)
    padded = [
        texts[name]
        for name, dtype in rows.schema.items()
        if dtype.is_numeric() and any(re.match(PADDED, value) for value in texts[name].drop_nulls())
    ]
    return rows.with_columns(padded)


def bits(rows: pl.DataFrame) -> list[list[object]]:
    """Values of which -0.0 and 0.0 differ, and NaN is itself."""
    return [
        [struct.pack("d", value) if isinstance(value, float) and value == value else str(value) for value in column]
        for column in rows
    ]


@settings(max_examples=150, deadline=None)
@given(text(), st.sampled_from([[], ["NA"]]))
def test_types_and_values_are_those_that_the_engine_infers_from_all_rows(content, missing) -> None:
    try:
        expected = inferred(content, missing)
    except pl.exceptions.ComputeError:
        with pytest.raises(pl.exceptions.ComputeError):
            read_csv(content, "t.csv", SourceSpec(missing=missing), (), separator=",", begin=False)
        return
    found = read_csv(content, "t.csv", SourceSpec(missing=missing), (), separator=",", begin=False).rows
    assert found.schema == expected.schema
    assert bits(found) == bits(expected)
    known = read_csv(
        content, "t.csv", SourceSpec(missing=missing), (), separator=",", begin=False, types=expected.schema
    )
    assert bits(known.rows) == bits(expected)


MANY = 2 * csv_text._SAMPLE


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([""] * MANY + ["7"], pl.Int64()),
        (["5"] * MANY + ["0.5"], pl.Float64()),
        (["5"] * MANY + ["x"], pl.String()),
        (["5"] * MANY + ['""'], pl.String()),
        (["5"] * MANY + ["+5"], pl.String()),
        (["0.5"] * MANY + ["5", "9223372036854775808"], pl.String()),
        (["true"] * MANY + ["1"], pl.String()),
        (["5"] * MANY + ["9223372036854775808"], pl.Int128()),
        (['"5"', "6"] * MANY, pl.Int64()),
    ],
)
def test_no_type_takes_the_engine_a_search_through_all_rows(monkeypatch, fields, expected) -> None:
    engine = csv_text.pl.read_csv  # type: ignore[attr-defined]

    def read(*given, infer_schema=True, **more):
        assert not infer_schema, "the engine infers types"
        return engine(*given, infer_schema=infer_schema, **more)

    monkeypatch.setattr(csv_text.pl, "read_csv", read)  # type: ignore[attr-defined]
    content = ("a,b\n" + "".join(f"{field},1\n" for field in fields)).encode()
    table = read_csv(content, "t.csv", SourceSpec(), (), separator=",")
    assert table.rows.schema == {"a": expected, "b": pl.Int64()}


def test_a_return_after_a_field_makes_it_text() -> None:
    """The engine leaves it out of the text, so only the engine itself can tell."""
    table = read_csv(b"a,b\n5\r,1\n6,2\n", "t.csv", SourceSpec(), (), separator=",")
    assert table.rows.schema == {"a": pl.String(), "b": pl.Int64()}


def test_a_header_after_a_blank_line_is_one(place) -> None:
    rows = [["code", "n"], *([f"{number:03}", str(number)] for number in range(200))]
    stream = io.StringIO("\n", newline="")
    stream.seek(1)
    csv.writer(stream, lineterminator="\n").writerows(rows)
    place.write("trips.csv", stream.getvalue())
    found = place.ingest(key="code")
    assert place.rows(found, "code", "n")[:2] == [("000", 0), ("001", 1)]
    assert found.rows_passed == 200


@pytest.mark.parametrize("many", [0, 1 << 20])
@pytest.mark.parametrize("before", ["\n", "\r\n\n", "\ufeff\n"])
def test_what_is_declared_holds_after_a_blank_line(monkeypatch, many, before) -> None:
    monkeypatch.setattr(csv_text, "_MANY", many)
    text = 'code,zip,x,"q""q"\n1.10,01,1.234,1\n1.1,02,2.500,2\n'
    spec = SourceSpec(path="-", rules={"code": RuleSpec(type="str"), "x": RuleSpec(number_format="1.234,5")})
    plain = read_csv(text.encode(), "-", spec, (), separator=",").rows
    assert plain.columns == ["code", "zip", "x", 'q"q']
    assert plain["code"].to_list() == ["1.10", "1.1"]
    assert plain["x"].to_list() == ["1.234", "2.500"], "it is 1234 in this format"
    assert read_csv((before + text).encode(), "-", spec, (), separator=",").rows.equals(plain)
    with pytest.raises(DataError, match="two columns named n"):
        read_csv(f"{before}a,n,n\n01,1,2\n".encode(), "-", spec, (), separator=",")


@pytest.mark.slow
@pytest.mark.parametrize("many", [0, 1 << 20])
def test_what_is_declared_holds_in_a_header_of_any_length_and_with_a_return_in_a_name(monkeypatch, many) -> None:
    monkeypatch.setattr(csv_text, "_MANY", many)
    names = [f"column_{number:05}" for number in range(7_000)]
    text = (
        ",".join(names) + "\n" + "".join(",".join(["01"] + ["1"] * 6_998 + [last]) + "\n" for last in ("1.10", "1.1"))
    )
    spec = SourceSpec(path="-", rules={names[-1]: RuleSpec(type="str")})
    assert read_csv(text.encode(), "-", spec, (), separator=",").rows[names[-1]].to_list() == ["1.10", "1.1"]
    spec = SourceSpec(path="-", rules={"c": RuleSpec(type="str")})
    found = read_csv(b"a,b\r,z,c\n1,2,01,1.10\n1,2,02,1.1\n", "-", spec, (), separator=",").rows
    assert found["c"].to_list() == ["1.10", "1.1"]
