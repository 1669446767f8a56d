"""Rows given for prediction: typed as the source's, with nothing lost silently."""

from datetime import UTC, datetime

import polars as pl
import pytest

from cumulant.core.errors import RequestError
from cumulant.core.plan import Field
from cumulant.data.files.prediction_rows import as_fields, prediction_spec
from cumulant.data.files.reading import read
from cumulant.data.spec import RuleSpec, SourceSpec

FIELDS = (
    Field("code", "str"),
    Field("amount", "float"),
    Field("count", "int"),
    Field("express", "bool"),
    Field("at", "time", zone="America/New_York"),
)


def test_values_get_the_types_of_the_fields():
    frame = pl.DataFrame(
        {
            "count": [1.0, None],
            "code": [7, 8],
            "amount": [" 2.5", "?"],
            "express": ["yes", "No"],
            "at": ["2024-01-01 00:00", "2024-07-01T00:00:00Z"],
            "more": [1, 2],
        }
    )
    found = as_fields(frame, FIELDS, missing=["?"])
    assert found.to_dict(as_series=False) == {
        "code": ["7", "8"],
        "amount": [2.5, None],
        "count": [1, None],
        "express": [True, False],
        "at": [datetime(2024, 1, 1, 5, tzinfo=UTC), datetime(2024, 7, 1, tzinfo=UTC)],
    }


def test_digits_of_a_text_field_stay_as_they_are_in_a_file(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("code,amount\n007,NA\n010,3\n")
    declared = SourceSpec(path="elsewhere/*.csv", missing=["NA"], key="code")
    frame = as_fields(read(file, "rows.csv", prediction_spec(declared, FIELDS, str(file))), FIELDS)
    assert frame.rows() == [("007", None), ("010", 3.0)]


def test_columns_of_nulls_and_no_rows():
    frame = as_fields(pl.DataFrame({"code": [None], "amount": [None]}), FIELDS)
    assert frame.schema == {"code": pl.String, "amount": pl.Float64}
    assert as_fields(frame.clear(), FIELDS).shape == (0, 2)


@pytest.mark.parametrize(
    ("rows", "said", "hint"),
    [
        ({"amuont": [1.0], "code": ["a"]}, "lack amount", 'did you mean "amuont"?'),
        ({"other": [1.0]}, "lack code, amount, count, express, at", "models show"),
        ({"amount": [1.0], "at": ["soon"]}, '"at" must be a time .* not in row 1', "fix"),
        ({"amount": ["1", "x", "y"]}, '"amount" must be a number, and is not in row 2 and 1 more', "fix"),
        ({"count": [1.0, 1.5]}, '"count" must be a whole number', "fix"),
        ({"express": ["maybe"]}, '"express" must be true or false', "fix"),
    ],
)
def test_what_does_not_fit(rows, said, hint):
    with pytest.raises(RequestError, match=said) as caught:
        as_fields(pl.DataFrame(rows), FIELDS)
    assert hint in caught.value.hint
    assert not any(str(value) in caught.value.message for value in ("soon", "maybe"))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        (
            Field("at", "time", zone="UTC"),
            "31/13/2024 10:00",
            'a time such as 31/12/2024 15:30 (date_format: 31/12/2024), and is not in row 2: "31/13/2024 10:00"',
        ),
        (
            Field("at", "date"),
            "9" * 70,
            f'a date such as 31/12/2024 (date_format: 31/12/2024), and is not in row 2: "{"9" * 60}..."',
        ),
        (
            Field("at", "date", personal=True),
            "soon",
            "a date such as 31/12/2024 (date_format: 31/12/2024), and is not in row 2",
        ),
    ],
)
def test_a_time_in_no_declared_format_is_shown_with_the_format(field, value, said):
    rows = pl.DataFrame({"at": ["31/12/2024", value]})
    with pytest.raises(RequestError) as caught:
        as_fields(rows, (field,), rules={"at": RuleSpec(date_format="31/12/2024")})
    assert caught.value.message == f'column "at" must be {said}'


def test_a_required_field_must_be_there():
    with pytest.raises(RequestError, match=r"lack at$"):
        as_fields(pl.DataFrame({"amount": [1.0]}), FIELDS, required=["at"])
    with pytest.raises(RequestError, match=r"lack name$"):
        as_fields(pl.DataFrame({"amount": [1.0]}), (*FIELDS, Field("name", "str", nullable=False)))


@pytest.mark.parametrize("frame", [{"amount": ["12,50 of it"], "code": ["a"]}, {"amont": [12.5], "code": ["a"]}])
def test_a_prepare_that_is_not_run_is_named_where_rows_do_not_fit(frame):
    with pytest.raises(RequestError) as refused:
        as_fields(pl.DataFrame(frame), FIELDS[:2], prepare="features.py:clean")
    assert "`prepare: features.py:clean` is not run on rows to predict" in refused.value.hint
    with pytest.raises(RequestError) as refused:
        as_fields(pl.DataFrame(frame), FIELDS[:2])
    assert "prepare" not in refused.value.hint
