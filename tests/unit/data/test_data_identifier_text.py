"""Values that differ as text stay different: leading zeros, quotes."""

from __future__ import annotations

import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.data.checks.verdict import SourceBreachError
from cumulant.data.files.reading import read, read_table
from cumulant.data.proposal.proposal import infer
from cumulant.data.spec import RuleSpec, SourceSpec
from cumulant.data.text.csv_text import read_csv
from cumulant.data.text.identifier_text import PADDED

KEYS = "code,n\n00123,1\n0123,2\n123,3\n0,4\n"


def test_leading_zeros_keep_keys_apart(place):
    place.write("trips.csv", KEYS)
    found = place.ingest(key="code")
    assert found.rows_quarantined == 0
    assert place.rows(found, "code") == [("00123",), ("0123",), ("123",), ("0",)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["0", "5"], [0, 5]),
        (["0.5", "-0.25"], [0.5, -0.25]),
        (["-0", "7"], [0, 7]),
        (["-05", "7"], ["-05", "7"]),
        (["00", "0"], ["00", "0"]),
        (["01.5", "1.5"], ["01.5", "1.5"]),
        (["10", "100"], [10, 100]),
    ],
)
def test_which_numbers_have_leading_zeros(place, values, expected):
    path = place.write("trips.csv", "a,x,b\n" + "".join(f"1,{value},2020-01-02\n" for value in values))
    assert read(path, "trips.csv", SourceSpec())["x"].to_list() == expected


@given(
    st.lists(
        st.tuples(*[st.sampled_from(["", "0", "7", "07", "-07", "+7", "0.5", "00.5", "1-02"])] * 3),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.sampled_from([",", ";"]),
)
def test_columns_with_leading_zeros_are_those_of_a_plain_search(rows, end, quoted, separator):
    lines = [["a", "b", "c"], *rows]
    written = [[f'"{field}"' if quoted and field else field for field in line] for line in lines]
    content = "".join(separator.join(line) + end for line in written).encode()
    table = read_csv(content, "t.csv", SourceSpec(separator=separator), (), separator=separator)
    for index, name in enumerate("abc"):
        fields = [row[index] for row in rows]
        if any(re.match(PADDED, field) for field in fields):
            assert table.rows[name].dtype == pl.String
        elif all(field in ("0", "7") for field in fields):
            assert table.rows[name].dtype == pl.Int64


def test_a_file_of_plain_digits_is_text_where_another_has_leading_zeros(place):
    place.write("trips/a.csv", "zip,n\n75001,1\n")
    place.write("trips/b.csv", "zip,n\n01001,1\n")
    found = place.ingest(path="trips")
    assert place.rows(found, "zip") == [("75001",), ("01001",)]


def test_declared_integers_that_would_merge_are_refused(place):
    place.write("trips.csv", KEYS)
    found = place.ingest(rules={"code": {"type": "int"}}, quarantine=1)
    assert place.rows(found, "code") == [(123,), (0,)]
    assert place.quarantine(found).select("__rule", "__row", "code").rows() == [
        ("code:zeros", 0, "00123"),
        ("code:zeros", 1, "0123"),
    ]
    with pytest.raises(SourceBreachError, match=r"code:zeros \(2\)") as refused:
        place.ingest(rules={"code": {"type": "int"}})
    assert "type: str" in refused.value.hint


def test_limits_do_not_merge_keys_either(place):
    place.write("trips.csv", KEYS)
    found = place.ingest(rules={"code": {"min": 0}}, quarantine=1)
    assert place.quarantine(found)["code"].to_list() == ["00123", "0123"]


def test_declared_integers_of_one_width_are_read(place):
    place.write("trips.csv", "month,n\n01,1\n02,2\n11,3\n01,4\n")
    found = place.ingest(rules={"month": {"type": "int"}})
    assert place.rows(found, "month") == [(1,), (2,), (11,), (1,)]
    assert found.warnings == ()


def test_files_that_write_declared_integers_with_other_zeros_are_named(place):
    place.write("trips/a.csv", "id,n\n00123,1\n00124,1\n")
    place.write("trips/b.csv", "id,n\n123,1\n")
    place.write("trips/c.csv", "id,n\n20000,1\n")
    found = place.ingest(path="trips", rules={"id": {"type": "int"}})
    (warning,) = found.warnings
    assert "id" in warning
    assert "trips/a.csv" in warning
    assert "trips/b.csv" in warning
    assert "trips/c.csv" not in warning
    assert "type: str" in warning


def test_quoted_digits_are_text_where_numbers_are_not_quoted(place):
    place.write("trips.csv", '"zip","n","name"\n"75001",1,"a"\n"10115",2.5,"b"\n')
    found = place.ingest()
    assert place.rows(found) == [("75001", 1.0, "a"), ("10115", 2.5, "b")]


def test_quoted_fractions_are_numbers_where_no_two_are_one(place):
    place.write("trips.csv", 'n,price,version\n1,"12.50","1.1"\n2,,"1.10"\n3,"7","2.0"\n')
    found = place.ingest()
    assert place.rows(found) == [(1, 12.5, "1.1"), (2, None, "1.10"), (3, 7.0, "2.0")]


def test_quotes_around_all_values_say_nothing(place):
    place.write("trips.csv", '"zip","n"\n"75001","1"\n"10115","2"\n')
    assert place.rows(place.ingest()) == [(75001, 1), (10115, 2)]


def test_texts_without_quotes_say_nothing_of_numbers_in_quotes(place):
    place.write("trips.csv", 'room,zip\nroom 5,"75001"\nroom 7,"10115"\n')
    assert place.rows(place.ingest()) == [("room 5", 75001), ("room 7", 10115)]


def test_quotes_around_some_values_of_a_column_say_nothing(place):
    place.write("trips.csv", 'zip,n\n"75001",1\n10115,2\n')
    assert place.rows(place.ingest()) == [(75001, 1), (10115, 2)]


def test_a_declared_number_in_quotes_is_one(place):
    place.write("trips.csv", 'zip,n\n"75001",1\n"10115",2\n')
    found = place.ingest(rules={"zip": {"type": "int"}})
    assert place.rows(found, "zip") == [(75001,), (10115,)]


def test_the_proposal_declares_text_and_says_why(place):
    rows = "".join(f'00{n},"{n}",{n},x\n' for n in range(100, 150))
    path = place.write("trips.csv", "zip,account,n,name\n" + rows)
    table = read_table(path, "trips.csv", SourceSpec())
    found = infer(table.rows, quoted=table.quoted)
    assert found.spec.rules["zip"] == RuleSpec(type="str")
    assert found.spec.rules["account"].type == "str"
    assert "n" not in found.spec.rules or found.spec.rules["n"].type is None
    assert any(note.startswith("zip stays text") and "leading zero" in note for note in found.notes)
    assert any(note.startswith("account stays text") and "quotes" in note for note in found.notes)


def test_quoted_digits_with_a_missing_mark_are_not_proposed_as_numbers(place):
    rows = "".join(f'"{n}",{n}\n' for n in range(100, 150))
    path = place.write("trips.csv", f"account,n\n{rows}NA,1\n")
    table = read_table(path, "trips.csv", SourceSpec())
    assert infer(table.rows, quoted=table.quoted).spec.rules["account"].type == "str"


def test_a_column_that_becomes_text_is_named_with_the_rule_that_keeps_numbers(place):
    place.write("trips.csv", "month,n\n1,1\n2,2\n")
    before = place.ingest()
    place.write("trips.csv", "month,n\n01,1\n02,2\n")
    stopped = place.refused(previous=before)
    assert "read numbers as before: rules: {month: {type: int}}" in stopped.breaches[0]
    kept = place.ingest(previous=before, rules={"month": {"type": "int"}})
    assert place.rows(kept, "month") == [(1,), (2,)]
