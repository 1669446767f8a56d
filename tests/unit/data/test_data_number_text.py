"""Formatted numbers: how they are recognised, read, and read again where rows are given for prediction."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.errors import RequestError
from cumulant.core.ids import digest
from cumulant.core.plan import Field
from cumulant.data.files.prediction_rows import as_fields, prediction_spec
from cumulant.data.files.reading import read as read_file
from cumulant.data.proposal.proposal import infer
from cumulant.data.spec import RuleSpec, SourceSpec
from cumulant.data.text import number_text
from cumulant.data.text.casts import column_casts
from cumulant.project.file.loading import load
from cumulant.project.new.create import create_from

EN, EU = "1,234.5", "1.234,5"


def read(values: list[str], form: str) -> list[float | None]:
    return pl.DataFrame({"x": values}).select(number_text.read(pl.col("x"), form))["x"].to_list()


@pytest.mark.parametrize(
    ("text", "form", "value"),
    [
        ("1,234.50", EN, 1234.5),
        ("$1,234", EN, 1234.0),
        ("12%", EN, 12.0),
        ("(100.5)", EN, -100.5),
        ("-$3", EN, -3.0),
        ("$-3.5", EN, -3.5),
        ("1 234.5", EN, 1234.5),
        ("1e5", EN, 1e5),
        (".5", EN, 0.5),
        ("7", EN, 7.0),
        ("1.234,5", EU, 1234.5),
        ("1.234", EU, 1234.0),
        ("12,5 €", EU, 12.5),
        ("1.5", EU, None),
        ("1e5", EU, 1e5),
        ("1\u202f234,5", EU, 1234.5),
        ("1.234,5", EN, None),
        ("1,234.5", EU, None),
        ("1,23,4", EN, None),
        ("12 km", EN, None),
        ("1-2", EN, None),
        ("12,50 EUR", EU, 12.5),
        ("USD 1,234.50", EN, 1234.5),
        ("-CHF 1'234.5", EN, -1234.5),
        ("EUR12.5", EN, 12.5),
        ("12,50 km", EU, None),
        ("12,50 EURO", EU, None),
        ("(3.5 GBP)", EN, -3.5),
        ("12.5 ABC", EN, None),
        ("", EN, None),
        ("2024-01-05", EN, None),
        ("10.0.0.1", EU, None),
        ("(3", EN, None),
    ],
)
def test_a_number_is_read_in_its_format_or_not_at_all(text, form, value):
    assert read([text], form) == [value]


@given(st.floats(-1e9, 1e9).map(lambda x: round(x, 2)), st.sampled_from(["", "$", "€"]), st.sampled_from(["", "%"]))
def test_what_python_writes_is_read_back(value, currency, percent):
    text = f"{currency}{value:,.2f}{percent}"
    assert read([text], EN) == [pytest.approx(value)]
    assert read([text.translate(str.maketrans(",.", ".,"))], EU) == [pytest.approx(value)]


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (["$1,200", "$950"], None),  # one value with a mark: 1200 or 1.2
        (["$1,200.00", "$950.00"], EN),
        (["1.200,00", "950,00"], EU),
        (["12%", "7%"], EN),
        (["$5", "$7"], EN),
        (["1,200,000", "950"], EN),
        ([f"{n},{n}" for n in range(100, 130)], None),
        ([f"{n % 3},{n}" for n in range(100, 130)], EU),
        ([f"1,{n} €" for n in range(400, 999)], None),
        (["1,459", "12.5"], EN),
        (["0,459", "1,459"], EU),
        (["12,50 EUR", "1.234,50 EUR"], EU),
        (["USD 5", "USD 7"], EN),
        (["5 EUR", "5 USD"], None),
        (["5 EUR", "5"], None),
        (["12%", "7"], None),
        (["$5", "€5"], None),
        (["1.5,2", "3"], None),
        (["12 km", "7 km"], None),
        (["555 123 456", "555 987 321"], None),
        (["007", "12"], None),
        (["5,5", "5.5"], None),
    ],
)
def test_a_format_is_found_only_where_every_value_has_it(values, form):
    assert number_text.detect(pl.Series(values)) == form


@pytest.mark.parametrize(
    "values",
    [
        [f"CAD{number}" for number in range(1001, 1401)],
        [f"SEK-{number}" for number in range(1, 99)],
        ["RUB12", "RUB7"],
        ["TRY 01", "TRY 2"],
        ["CAD1001", "CAD01002"],
        ["12EUR", "7EUR"],
        ["CAD-1001", "CAD-1002"],
        ["USD 0012", "USD 15"],
        ["CAD 1001", "CAD 1002", "CAD 1003"],
    ],
)
def test_identifiers_that_begin_with_a_currency_code_are_no_numbers(values):
    assert number_text.detect(pl.Series(values)) is None


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (["USD12.5", "USD7"], EN),
        (["EUR1.200,50", "EUR12"], EU),
        (["USD 100", "USD 250", "USD 100"], EN),
        (["12 EUR", "7 EUR"], EN),
        (["USD 1 200", "USD 900"], EN),
        (["USD 0.50", "USD 0"], EN),
        (["$5", "$7"], EN),
    ],
)
def test_amounts_with_a_currency_code_are_numbers(values, form):
    assert number_text.detect(pl.Series(values)) == form


def test_the_key_of_a_table_may_begin_with_a_currency_code():
    rows = pl.DataFrame({"part": [f"CAD{n}" for n in range(1001, 1401)], "bought": [n % 2 for n in range(400)]})
    found = infer(rows, target="bought")
    assert "part" not in found.spec.rules or found.spec.rules["part"].number_format is None
    assert found.spec.key == "part"


def test_a_proposal_says_what_it_reads_and_what_stays_text():
    rows = pl.DataFrame({"price": ["$1,200.00", "$950.00"], "share": ["12%", "7"], "y": [0, 1]})
    found = infer(rows)
    assert found.spec.rules["price"] == RuleSpec(type="float", number_format=EN)
    assert "share" not in found.spec.rules
    notes = "\n".join(found.notes)
    assert "price is text that is read as numbers, written 1,234.5" in notes
    assert "share stays text" in notes
    assert "950" not in notes


@pytest.mark.parametrize("grouped", [5, 50, 200])
def test_plain_numbers_with_a_few_grouped_ones_are_one_column(grouped):
    values = [f"{n % 900}.50" for n in range(1000 - grouped)] + [f"1,{n + 100}.25" for n in range(grouped)]
    found = infer(pl.DataFrame({"price": values, "y": [n % 2 for n in range(1000)]}), target="y")
    assert found.spec.rules["price"].number_format == EN


def test_formatted_numbers_beside_wrong_values_are_none_of_the_wrong_ones():
    values = ["12.50"] * 945 + ["1,234.50"] * 50 + ["abc"] * 5
    found = infer(pl.DataFrame({"price": values, "y": [n % 2 for n in range(1000)]}), target="y")
    assert found.spec.rules["price"].number_format == EN
    assert "price holds numbers, but 5 of 1,000 values are none (the first in row 996)" in "\n".join(found.notes)
    plain = infer(pl.DataFrame({"price": ["12.5"] * 999 + ["abc"], "y": [n % 2 for n in range(1000)]}), target="y")
    assert (plain.spec.rules["price"].type, plain.spec.rules["price"].number_format) == ("float", None)


def test_an_unclear_format_stays_text_with_the_line_to_write():
    values = [f"1,{n}" for n in range(400, 999)]
    found = infer(pl.DataFrame({"price": values, "y": [n % 2 for n in range(599)]}), target="y")
    assert "price" not in found.spec.rules or found.spec.rules["price"].number_format is None
    [note] = [one for one in found.notes if one.startswith("price stays text")]
    assert "rules: {price: {type: float, number_format: '1,234.5'}}, or '1.234,5'" in note


def test_a_format_alone_means_numbers():
    [cast] = column_casts({"x": pl.String()}, SourceSpec(rules={"x": RuleSpec(number_format=EN)}), "rows")
    assert pl.DataFrame({"x": ["1,000", "?"]}).select(cast.expr)["x"].to_list() == [1000.0, None]
    [cast] = column_casts({"x": pl.String()}, SourceSpec(rules={"x": RuleSpec(type="int", number_format=EN)}), "rows")
    assert pl.DataFrame({"x": ["1,000", "1.5"]}).select(cast.expr)["x"].to_list() == [1000, None]


def test_rows_for_prediction_are_read_as_the_source_is():
    fields = [Field("price", "float")]
    spec = SourceSpec(rules={"price": RuleSpec(type="float", number_format=EU)})
    frame = pl.DataFrame({"price": ["1.200,50 €", None, ""]})
    assert as_fields(frame, fields, rules=spec.rules)["price"].to_list() == [1200.5, None, None]
    with pytest.raises(RequestError, match="must be a number"):
        as_fields(frame, fields)
    numbers = pl.DataFrame({"price": [1.5]})
    assert as_fields(numbers, fields, rules=spec.rules)["price"].to_list() == [1.5]


@pytest.mark.parametrize(("lines", "values"), [("1.234\n2.500", [1234.0, 2500.0]), ("999\n7", [999.0, 7.0])])
def test_files_whose_values_an_engine_could_read_are_read_in_the_format(lines, values, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"price\n{lines}\n")
    spec = SourceSpec(path="a.csv", rules={"price": RuleSpec(number_format=EU)})
    rows = read_file(path, "a.csv", spec)
    [cast] = column_casts(rows.schema, spec, "rows")
    assert rows.select(cast.expr)["price"].to_list() == values
    fields = [Field("price", "float")]
    given = read_file(path, "a.csv", prediction_spec(spec, fields, "a.csv"))
    assert as_fields(given, fields, rules=spec.rules)["price"].to_list() == values


def test_a_new_project_declares_them(tmp_path):
    lines = ["price,size,y", *(f'"${n * 37 % 5000 + 100:,}.50",{n % 7},{n % 2}' for n in range(200))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    project = load(create_from(tmp_path / "t.csv", "y", name="m", directory=tmp_path).path)
    assert project.spec.data["rows"].rules == {
        "price": RuleSpec(type="float", number_format=EN),
        "y": RuleSpec(type="int", in_=[0, 1]),
    }
    assert '"price"' in project.policies.features.read_text()


def test_a_source_without_a_format_keeps_the_identity_that_it_had():
    rule = RuleSpec(type="float", min=0)
    plain = SourceSpec(path="a.csv", rules={"x": rule}).plain()
    assert "number_format" not in plain["rules"]["x"]
    assert digest(plain) == "78bb4ddcc21295b0332f61928d70def2df672010d6514ca009c8afc5a68251f3"
    formed = SourceSpec(path="a.csv", rules={"x": RuleSpec(type="float", min=0, number_format=EN)}).plain()
    assert digest(formed) != digest(plain)
