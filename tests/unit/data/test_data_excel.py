"""Excel workbooks: cells as they are stored, and a refusal with what to do where a sheet is no table."""

from __future__ import annotations

import sys
import zipfile
from datetime import UTC, datetime

import polars as pl
import pytest

from cumulant.core.errors import DataError, MissingPartError
from cumulant.data.files.reading import read
from cumulant.data.spec import SourceSpec
from cumulant.flows.data.tables import propose

openpyxl = pytest.importorskip("openpyxl")


def saved(folder, *sheets, name="rows.xlsx", change=None):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets:
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    if change is not None:
        change(book)
    book.save(folder / name)
    return folder / name


def table(path, **more) -> pl.DataFrame:
    return read(path, path.name, SourceSpec(path=str(path), **more))


def test_types_of_cells(tmp_path):
    rows = [
        ["text", "digits", "shown", "whole", "part", "flag", "day", "at", "mixed", 2024],
        ["a", "007", 7, 1, 0.5, True, datetime(2024, 1, 31), datetime(2024, 1, 31, 8, 30), 1, None],
        [None, "7", 12345, 2, 1, False, datetime(2024, 2, 1), None, "x", "y"],
    ]

    def formats(book):
        for place in ("C2", "C3"):
            book["rows"][place].number_format = "00000"

    frame = table(saved(tmp_path, ("rows", rows), change=formats))
    assert frame.schema == {
        "text": pl.String,
        "digits": pl.String,
        "shown": pl.String,
        "whole": pl.Int64,
        "part": pl.Float64,
        "flag": pl.Boolean,
        "day": pl.Date,
        "at": pl.Datetime("us"),
        "mixed": pl.String,
        "2024": pl.String,
    }
    assert frame["digits"].to_list() == ["007", "7"]
    assert frame["shown"].to_list() == ["00007", "12345"]
    assert frame["mixed"].to_list() == ["1", "x"]


def test_blank_rows_are_no_records_and_hidden_rows_are_read(tmp_path):
    def hide(book):
        book["rows"].row_dimensions[2].hidden = True

    path = saved(tmp_path, ("rows", [[], ["n"], [1], [], ["  "], [2]]), change=hide)
    assert table(path)["n"].to_list() == [1, 2]


@pytest.mark.parametrize("files", [1, 20])  # parts of their own, and a pack
def test_hidden_rows_and_columns_are_named_in_each_snapshot(place, files):
    def hide(book):
        book["rows"].row_dimensions[3].hidden = True
        book["rows"].column_dimensions["B"].hidden = True
        book["rows"].row_dimensions[9].hidden = True  # there is nothing in it

    for number in range(files):
        rows = [["id", "n", "m"], *([number * 3 + row, 5, 6] for row in range(3))]
        saved(place.root, ("rows", rows), name=f"d{number}.xlsx", change=hide if number == 0 else None)
    first = place.ingest(path="d*.xlsx", key="id")
    assert first.rows_passed == 3 * files
    (warning,) = first.warnings
    assert warning.startswith("d0.xlsx: 1 row (the first is 3) and column B of its sheet are hidden, and are read")
    assert place.ingest(path="d*.xlsx", key="id", previous=first).warnings == first.warnings


def test_the_proposal_for_a_workbook_is_for_the_named_sheet(tmp_path):
    def hide(book):
        book["second"].row_dimensions[2].hidden = True

    path = saved(tmp_path, ("first", [["a"], [1]]), ("second", [["b"], [1], [2]]), change=hide)
    with pytest.raises(DataError, match="has 2 sheets"):
        propose(path)
    found = propose(path, sheet="second")
    assert found.source["sheet"] == "second"
    assert any("1 row (the first is 2) of its sheet" in note for note in found.notes)


def test_error_cells_and_formulas_without_a_value_are_refused_rows(place):
    saved(place.root, ("rows", [["id", "n"], [1, 5], [2, "#N/A"], [3, "=1+1"], [4, "#DIV/0!"]]))
    found = place.ingest(path="rows.xlsx", quarantine="90%")
    assert place.rows(found, "id", "n") == [(1, 5)]
    assert place.quarantine(found).select("__rule", "id", "n").rows() == [
        ("n:cell", "2", "#N/A"),
        ("n:cell", "3", "formula without a stored value"),
        ("n:cell", "4", "#DIV/0!"),
    ]
    found = place.ingest(path="rows.xlsx", quarantine="90%", missing=["#N/A"])
    assert place.rows(found, "id", "n") == [(1, 5), (2, None)]
    with pytest.raises(DataError, match=r"3 rows have an error or a formula without a value .* \(n in row 2\)"):
        table(place.root / "rows.xlsx")


def test_a_stored_value_of_a_formula_is_its_value(tmp_path):
    path = saved(tmp_path, ("rows", [["n"], ["=1+1"]]))
    with zipfile.ZipFile(path) as packed:
        content = {name: packed.read(name) for name in packed.namelist()}
    content["xl/worksheets/sheet1.xml"] = (
        content["xl/worksheets/sheet1.xml"].replace(b"<v></v>", b"<v>2</v>").replace(b"<v />", b"<v>2</v>")
    )
    with zipfile.ZipFile(path, "w") as packed:
        for name, data in content.items():
            packed.writestr(name, data)
    assert table(path)["n"].to_list() == [2]


def test_the_sheet_is_declared_where_several_are_visible(tmp_path):
    path = saved(tmp_path, ("north", [["n"], [1]]), ("south", [["n"], [2]]))
    with pytest.raises(DataError, match="2 sheets: north, south") as caught:
        table(path)
    assert "sheet: north" in (caught.value.hint or "")
    assert table(path, sheet="south")["n"].to_list() == [2]
    with pytest.raises(DataError, match='no sheet "soth"') as caught:
        table(path, sheet="soth")
    assert "south" in (caught.value.hint or "")

    def hide(book):
        book["north"].sheet_state = "hidden"

    hidden = saved(tmp_path, ("north", [["n"], [1]]), ("south", [["n"], [2]]), change=hide)
    assert table(hidden)["n"].to_list() == [2]


@pytest.mark.parametrize(
    ("rows", "merge", "problem"),
    [
        ([["n", None], [1, 2]], None, "column B has values and no name"),
        ([["Report of May"], ["n", "m"], [1, 2]], None, "column B has values and no name"),
        ([["n", "n"], [1, 2]], None, "two columns named n"),
        ([["n", "m"], [1, 2], [None, 3]], "A2:A3", "merged cells, A2:A3"),
        ([], None, "no columns"),
    ],
)
def test_sheets_that_are_no_tables_are_refused(tmp_path, rows, merge, problem):
    path = saved(tmp_path, ("rows", rows), change=lambda book: merge and book["rows"].merge_cells(merge))
    with pytest.raises(DataError, match=problem) as caught:
        table(path)
    assert caught.value.hint


def test_encrypted_and_old_workbooks_are_named(tmp_path):
    (tmp_path / "rows.xlsx").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    with pytest.raises(DataError, match="encrypted or an old workbook"):
        table(tmp_path / "rows.xlsx")


def test_workbooks_that_take_too_much_memory_are_refused(tmp_path):
    path = saved(tmp_path, ("rows", [["text"], *([["x" * 30_000]] * 100)]))
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="takes more than"):
        table(path, memory="1MiB")
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open("xl/a.xml", "w", force_zip64=True) as stream,
    ):
        for _ in range(513):
            stream.write(bytes(1 << 20))
    with pytest.raises(DataError, match="expands to more than 512 MiB"):
        table(path)


def test_without_the_extra_its_install_line_is_given(tmp_path, monkeypatch):
    path = saved(tmp_path, ("rows", [["n"], [1]]))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingPartError) as caught:
        table(path)
    assert caught.value.hint == 'pip install "cumulant[excel]"'


def test_times_of_cells_have_the_declared_zone(place):
    saved(place.root, ("rows", [["at", "n"], [datetime(2024, 7, 1, 12), 1], [datetime(2024, 1, 1, 12), 2]]))
    found = place.ingest(path="rows.xlsx", event_time={"column": "at", "zone": "Europe/Berlin"})
    assert place.rows(found, "at") == [(datetime(2024, 7, 1, 10, tzinfo=UTC),), (datetime(2024, 1, 1, 11, tzinfo=UTC),)]
