from __future__ import annotations

import csv
import io

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.errors import DataError
from cumulant.data.files.reading import read
from cumulant.data.spec import SourceSpec
from cumulant.data.text.csv_records import malformed_records, open_quote
from cumulant.data.views import read_quarantine

SALT = b"salt"


def taken(text: str, names: str = "abc", records: int | None = None):
    content = text.encode()
    read = pl.read_csv(io.BytesIO(content), infer_schema_length=None, truncate_ragged_lines=True)
    rows = read.height if records is None else records
    return malformed_records(content, ",", list(names), records=rows)


def test_malformed_records_are_taken_out_and_kept_as_text():
    text = 'a,b,c\n1,2,3\n4,5\n"x, ""y""\nz"\n6,7,8\n\n9,,\n1,2,3,4\n'
    found = taken(text)
    assert found.content == b"a,b,c\n1,2,3\n6,7,8\n9,,\n"
    assert found.rows.rows() == [(1, 3, "4", "5", None), (2, 4, 'x, "y"\nz', None, None), (5, 9, "1", "2", "3")]


@pytest.mark.parametrize("text", ["a,b,c\n1,2,\n,,\n", 'a,b,c\r\n1,2,"x,\n"\r\n', "\n\na,b,c\n1,2,3", "a,b,c\n1,2,3\n"])
def test_whole_records_stay(text):
    assert taken(text) is None


def test_lines_that_the_engine_splits_otherwise_are_left_alone():
    assert taken("a,b,c\n1\n", records=2) is None


CELL = st.text(st.sampled_from('xé,"\n 1'), max_size=4)


@given(st.lists(st.lists(CELL, min_size=1, max_size=4), min_size=1, max_size=8))
def test_records_are_those_of_another_reader(rows):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([["a", "b", "c"], *rows])
    content = stream.getvalue().encode()
    found = malformed_records(content, ",", ["a", "b", "c"], records=len(rows))
    malformed = [(place, *row[:3], *[""] * (3 - len(row))) for place, row in enumerate(rows) if len(row) != 3]
    assert (found.rows.drop("__line").fill_null("").rows() if found else []) == malformed
    left = list(csv.reader(io.StringIO((found.content if found else content).decode(), newline="")))
    assert left == [["a", "b", "c"], *(row for row in rows if len(row) == 3)]
    assert open_quote(content, ",") is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('a,b\n1,"x', 2),
        ('a,b\n1,"x\ny"\n2,"\n', 4),
        ('a,b\n1,5" pipe\n2,x\n', None),
        ('a,b\n1,"x""y"\n', None),
        ('a,b\n1,"' + "x" * 200_000, 2),
    ],
)
def test_a_quoted_field_that_does_not_end(text, line):
    assert open_quote(text.encode(), ",") == line


def test_malformed_rows_are_refused_rows_with_their_lines(place):
    place.write(
        "trips.csv",
        "id,km,city\n1,2.5,a\n# a remark\n2,1.5,b\n3,0.5\n4,2,a, b\n" + "".join(f"{n},1,c\n" for n in range(5, 400)),
    )
    found = place.ingest(key="id", rules={"km": {"min": 1}})
    assert (found.rows_in, found.rows_passed, found.rows_quarantined) == (400, 397, 3)
    assert [field.dtype for field in found.fields] == ["int", "float", "str"], "they do not change the types"
    assert place.quarantine(found).select("__rule", "__row", "__line", "id", "km").rows() == [
        ("row:fields", 1, 3, "# a remark", None),
        ("row:fields", 3, 5, "3", "0.5"),
        ("row:fields", 4, 6, "4", "2"),
    ]
    (check,) = [check for check in found.checks if check.rule == "row:fields"]
    assert (check.failed, check.text) == (3, "each row has the 3 fields of the header")
    assert place.ingest(key="id", rules={"km": {"min": 1}}, previous=found).rows_quarantined == 3


def test_rows_refused_by_other_rules_stand_beside_them(place):
    place.write("trips.csv", "id,km,city\n1,-1,a\n3,0.5\n" + "".join(f"{n},1,c\n" for n in range(4, 400)))
    found = place.ingest(key="id", rules={"km": {"min": 0}}, personal=["city"])
    assert place.quarantine(found).select("__rule", "id", "km").rows() == [
        ("km:min", "1", "-1"),
        ("row:fields", "3", "0.5"),
    ]
    shown = read_quarantine(found, place.tables, SALT).rows(named=True)
    assert shown[0]["id"] == "1"
    assert all(row["city"] is None or row["city"].startswith("#") for row in shown)
    assert shown[1]["id"].startswith("#"), "a value of a broken row may stand under any column"
    assert shown[1]["km"].startswith("#")


def test_a_plain_reading_refuses_malformed_rows(place):
    path = place.write("trips.csv", "id,km\n1,2\n2\n3,4,5\n4,5\n")
    with pytest.raises(DataError, match=r"2 rows have fewer or more fields than the header \(the first is line 3\)"):
        read(path, "trips.csv", SourceSpec())
