"""Sources that went wrong, lost columns or broke their contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from wrong_input_support import HEADER, changed, orders, refused, table, write

pytestmark = pytest.mark.slow


def snapshot(cumulant: Any, project: Path) -> str:
    found = cumulant("data", "show", "rows", "--project", project, "--json")
    assert found.code == 0, found.err
    return str(found.document["snapshot"])


CUT = table().encode()[:-4]


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (None, 2, "no file matches"),
        (b"", 2, "is empty (0 bytes)"),
        (table([]).encode(), 2, "has no rows"),
        (CUT, 2, "is cut off"),
        (table().encode() + b'id9,"1', 2, "a quoted field that does not end, in the row that begins in line 302"),
        (table(separator=";").encode(), 2, 'set separator: ";"'),
        (table().encode("utf-16"), 2, "set encoding: utf-16"),
        (table(header=("id", "amount", "kinds", "late")).encode(), 1, "renamed?"),
        (table([row[:3] for row in orders()], header=HEADER[:3]).encode(), 1, 'column "late" is gone'),
        (table(changed(1, lambda n, v: "lots" if n < 7 else v)).encode(), 1, "amount:type (7)"),
        (table(changed(3, lambda n, v: "maybe" if n == 7 else v)).encode(), 1, "changed from int to str"),
        (table([*orders(), *orders()[:99]]).encode(), 1, "key:repeat (99)"),
        (table(changed(1, lambda n, v: -v if n < 30 else v)).encode(), 1, "amount:min (30)"),
    ],
)
def test_a_source_that_went_wrong_leaves_the_accepted_snapshot(cumulant, project, content, code, said):
    assert cumulant("data", "validate", "--project", project).code == 0
    before = snapshot(cumulant, project)
    file = project.parent / "orders.csv"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    refused(cumulant("data", "validate", "--project", project), code, said)
    assert snapshot(cumulant, project) == before
    assert cumulant("events", "verify", "--project", project).code == 0
    file.write_text(table())
    assert cumulant("data", "validate", "--project", project).code == 0
    assert snapshot(cumulant, project) == before


WIDER = ("id", "amount", "kind", "late", "note", "remark")


def wider(*names: str) -> str:
    """The orders with two more columns, as the columns `names` only."""
    rows = [(*row, number % 7, f"r{number % 5}") for number, row in enumerate(orders())]
    return table([tuple(row[WIDER.index(name)] for name in names) for row in rows], header=names)


def test_a_column_that_nothing_uses_may_go_and_is_told(cumulant, project):
    file = project.parent / "orders.csv"
    file.write_text(wider(*WIDER))
    assert cumulant("data", "validate", "--project", project).code == 0
    file.write_text(wider("id", "amount", "kind", "late", "remark"))
    ended = cumulant("data", "validate", "--project", project)
    assert ended.code == 0, ended.err
    assert 'warning: column "note" is gone in ../orders.csv; nothing uses it' in ended.out
    trained = cumulant("train", "--quick", "--project", project)
    assert 'warning: rows: column "note" is gone' in trained.out
    for page in ("page.html", "page.md"):
        assert cumulant("report", "shop", "--project", project, "--out", page).code == 0
        assert "is gone in ../orders.csv; nothing uses it" in Path(page).read_text().replace("\\", "")
    found = cumulant("data", "show", "rows", "--project", project, "--json").document
    assert [(one["column"], one["unused"], one["refused"]) for one in found["changes"]] == [("note", True, False)]
    assert len(found["warnings"]) == 1


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("kind", 'column "kind" is gone in ../orders.csv; it is used by feature kind'),
        ("late", 'column "late" is gone in ../orders.csv; it is used by the target'),
        ("note", "it is used by evaluation.slices"),
        ("remark", "no column \"remark\", which the condition `remark <> 'x'` names"),
        ("id", "declared as key"),
        ("amount", "which rules names"),
    ],
)
def test_a_column_that_something_uses_may_not_go(cumulant, project, gone, said):
    """One exit code for every use of the column and every command that reads the source."""
    write(project, "training:", "evaluation: {slices: [note]}\ntraining:")
    text = (project / "cumulant.yaml").read_text()
    (project / "cumulant.yaml").write_text(
        text.replace("    rules:", "    table: {where: [\"remark <> 'x'\"]}\n    rules:")
    )
    file = project.parent / "orders.csv"
    file.write_text(wider(*WIDER))
    assert cumulant("data", "validate", "--project", project).code == 0
    before = snapshot(cumulant, project)
    file.write_text(wider(*(name for name in WIDER if name != gone)))
    for words in (["data", "validate"], ["train", "--quick"], ["plan"]):
        refused(cumulant(*words, "--project", project), 1, said, "contract-breach")
    assert snapshot(cumulant, project) == before


@pytest.mark.parametrize("old", ["key: id", "amount: {min: 0}"])
def test_a_declared_column_that_never_was_is_a_fault_of_the_project_file(cumulant, project, old):
    assert cumulant("data", "validate", "--project", project).code == 0
    write(project, old, old.replace("id", "idd").replace("amount", "amuont"))
    for words in (["data", "validate"], ["train", "--quick"], ["plan"]):
        refused(cumulant(*words, "--project", project), 2, "did you mean", "errors.md#data")


CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: rows
name: rows
version: 1.0.0
status: active
schema:
  - name: rows
    properties:
      - name: amount
        logicalType: number
        quality:
          - {type: sql, query: "SELECT AVG(amount) FROM rows", mustBeLessThan: 60}
"""


def test_what_a_contract_asks_and_nothing_checks_is_told(cumulant, project):
    (project / "rows.odcs.yaml").write_text(CONTRACT)
    write(project, "    key: id", "    key: id\n    contract: rows.odcs.yaml")
    said = "the contract requires more than is checked: amount: sql is not checked"
    ended = cumulant("data", "validate", "--project", project)
    assert ended.code == 0, ended.err
    assert f"warning: {said}" in ended.out
    found = cumulant("data", "validate", "--project", project, "--json").document["sources"]["rows"]
    assert found["warnings"] == [said]
    assert f"warning: rows: {said}" in cumulant("train", "--quick", "--project", project).out
    for page in ("page.html", "page.md"):
        assert cumulant("report", "shop", "--project", project, "--out", page).code == 0
        assert said in Path(page).read_text()


def test_refused_rows_can_be_looked_at_after_a_breach(cumulant, project):
    write(project, "{min: 0}", "{min: 50}\n      kind: {in: [x, y]}")
    ended = cumulant("train", "--quick", "--project", project)
    refused(ended, 1, "more than the 0.01 that `quarantine` allows", "cumulant data quarantine rows")
    found = cumulant("data", "quarantine", "rows", "--project", project, "--rows", "1000", "--json").document
    wrong = {row[0] for row in orders() if row[1] < 50 or row[2] == "z"}
    assert {row["id"] for row in found["rows"]} == wrong
    assert {rule for row in found["rows"] for rule in row["__rule"].split(", ")} == {"amount:min", "kind:in"}
    assert not cumulant("models", "list", "--project", project, "--json").document
    out = project.parent / "refused.csv"
    assert cumulant("data", "quarantine", "rows", "--project", project, "--out", out).code == 0
    assert pl.read_csv(out).height == len(wrong)


def test_few_wrong_values_go_to_quarantine(cumulant, project):
    (project.parent / "orders.csv").write_text(table(changed(1, lambda n, v: "lots" if n == 7 else v)))
    found = cumulant("data", "validate", "--project", project, "--json").document["sources"]["rows"]
    assert (found["rows_in"], found["rows_passed"], found["rows_quarantined"]) == (300, 299, 1)
    shown = cumulant("data", "quarantine", "rows", "--project", project, "--json").document["rows"]
    assert [(row["__rule"], row["id"], row["amount"]) for row in shown] == [("amount:type", "id0007", "lots")]


def test_rows_with_too_few_fields_go_to_quarantine(cumulant, project):
    lines = table().splitlines(keepends=True)
    lines[3:3], lines[9:9] = ["id9001,4\n"], ["\n", "id9002,5,x\n"]
    (project.parent / "orders.csv").write_text("".join(lines))
    found = cumulant("data", "validate", "--project", project, "--json").document["sources"]["rows"]
    assert (found["rows_in"], found["rows_passed"], found["rows_quarantined"]) == (302, 300, 2)
    assert "each row has the 4 fields of the header" in cumulant("data", "validate", "--project", project).out
    shown = cumulant("data", "quarantine", "rows", "--project", project, "--json").document["rows"]
    assert [(row["__rule"], row["__row"], *(row[name] for name in HEADER)) for row in shown] == [
        ("row:fields", 2, "id9001", "4", None, None),
        ("row:fields", 8, "id9002", "5", "x", None),
    ]
    (project.parent / "orders.csv").write_text(
        "".join(line[:6] + "\n" if n % 9 == 3 else line for n, line in enumerate(lines))
    )
    refused(cumulant("data", "validate", "--project", project), 1, "row:fields", "cumulant data quarantine rows")


def test_files_that_cannot_be_read_are_named_and_refused_unless_that_only_warns(cumulant, project):
    write(project, "path: ../orders.csv", "path: ../in")
    folder = project.parent / "in"
    folder.mkdir()
    for name, content in {"1.csv": table(), "2.csv": "", "3.parquet": "hello"}.items():
        (folder / name).write_text(content)
    refused(cumulant("data", "validate", "--project", project), 1, "2.csv is empty", "3.parquet is not a whole Parquet")
    assert not cumulant("models", "list", "--project", project, "--json").document
    write(project, "path: ../orders.csv", "path: ../in\n    severity: {unreadable_files: warn}")
    found = cumulant("data", "validate", "--project", project, "--json").document["sources"]["rows"]
    assert found["rows_passed"] == 300
    assert [file["reason"] for file in found["unreadable"]] == [
        "../in/2.csv is empty (0 bytes)",
        "../in/3.parquet is not a whole Parquet file: damaged or cut off",
    ]
    shown = cumulant("data", "show", "rows", "--project", project).out
    assert "2 cannot be read" in shown
    assert "2.csv is empty (0 bytes); " in " ".join(shown.split())


def test_values_of_a_broken_row_are_hidden_where_the_source_has_personal_columns(cumulant, project):
    write(project, "    key: id", "    key: id\n    personal: [kind]")
    (project.parent / "orders.csv").write_text(table() + "id9001,secret\n")
    assert cumulant("data", "validate", "--project", project).code == 0
    ended = cumulant("data", "quarantine", "rows", "--project", project, "--json")
    assert [row["__rule"] for row in ended.document["rows"]] == ["row:fields"]
    assert "secret" not in ended.out
    assert "id9001" not in ended.out


def test_few_repeated_keys_go_to_quarantine(cumulant, project):
    (project.parent / "orders.csv").write_text(table([*orders(), *orders()[:2]]))
    found = cumulant("data", "validate", "--project", project, "--json").document["sources"]["rows"]
    assert (found["rows_in"], found["rows_passed"], found["rows_quarantined"]) == (302, 300, 2)


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ("../orders.csv", "../ordrs.csv", 2, 'did you mean "orders.csv"?'),
        ("    path: ../orders.csv\n", "", 2, "declares no path"),
        ("key: id", "key: idd", 2, 'did you mean "id"?'),
        ("amount: {min", "amont: {min", 2, 'did you mean "amount"?'),
        ("{min: 0}", "{type: bool}", 1, "amount:type"),
        ("key: id", "key: id\n    event_time: when", 2, "declared as event_time"),
        ("key: id", "key: id\n    event_time: {column: kind, zone: Europe/Pariss}", 2, 'did you mean "Europe/Paris"?'),
        ("key: id", "key: id\n    event_time: kind", 1, "kind:type (300)"),
        ("key: id", "key: id\n    contract: none.yaml", 2, "none.yaml"),
    ],
)
def test_a_declaration_that_does_not_fit_the_source(cumulant, project, old, new, code, said):
    write(project, old, new)
    refused(cumulant("data", "validate", "--project", project), code, said)


def test_times_in_any_order_and_zone(cumulant, here):
    zones = ("Z", "+02:00", "-05:00", "")
    rows = [
        (*row, f"2024-03-{28 - number % 28:02d}T10:00:00{zones[number % 4]}") for number, row in enumerate(orders())
    ]
    (here / "orders.csv").write_text(table(rows, header=(*HEADER, "at")))
    made = cumulant("new", "shop", "--from", "orders.csv", "--target", "late", "--time", "at", "--key", "id")
    assert "read as UTC" in made.out
    shown = cumulant("data", "show", "rows", "--project", "shop", "--rows", "4", "--json")
    assert shown.code == 2
    assert cumulant("data", "validate", "--project", "shop").code == 0
    found = cumulant("data", "show", "rows", "--project", "shop", "--rows", "4", "--json").document["rows"]
    assert [row["at"][:16] for row in found] == [
        "2024-03-28T10:00",
        "2024-03-27T08:00",
        "2024-03-26T15:00",
        "2024-03-25T10:00",
    ]


@pytest.mark.parametrize(("unit", "name"), [(1, "ts"), (1000, "created_at")])
def test_times_as_numbers_are_times(cumulant, here, unit, name):
    rows = [(*row, (1_700_000_000 + 3600 * number) * unit) for number, row in enumerate(orders())]
    (here / "orders.csv").write_text(table(rows, header=(*HEADER, name)))
    made = cumulant("new", "shop", "--from", "orders.csv", "--target", "late")
    assert made.code == 0, made.err
    assert f"the event's time is {name}" in made.out
    assert (
        f"{name} holds {'seconds' if unit == 1 else 'milliseconds'} since 1970 (UTC) and is read as times" in made.out
    )
    assert cumulant("plan", "--project", "shop", "--json").document["predict_at"] == name
    trained = cumulant("train", "--quick", "--project", "shop")
    assert trained.code in (0, 1), trained.err
    found = cumulant("data", "show", "rows", "--project", "shop", "--rows", "2", "--json").document
    assert found["rows_passed"] == 300
    assert [row[name][:19] for row in found["rows"]] == ["2023-11-14T22:13:20", "2023-11-14T23:13:20"]
    answered = cumulant("predict", "orders.csv", "--project", "shop", "--json")
    assert answered.code == 0, answered.err
    assert answered.document["rows"] == 300


def test_one_wrong_number_is_a_warning_and_one_row_in_quarantine(cumulant, here):
    (here / "orders.csv").write_text(table(changed(1, lambda n, v: "lots" if n == 7 else v)))
    made = cumulant("new", "shop", "--from", "orders.csv", "--target", "late")
    assert "warning: amount holds numbers, but 1 of 300 values are none (the first in row 8); it is read" in made.out
    assert "lots" not in made.out
    found = cumulant("data", "validate", "--project", "shop", "--json").document["sources"]["rows"]
    assert (found["rows_passed"], found["rows_quarantined"]) == (299, 1)


def test_a_clock_time_that_its_zone_skips_goes_to_quarantine(cumulant, project):
    rows = [
        (*row, "2024-03-31T02:30:00" if number == 5 else "2024-03-30T02:30:00") for number, row in enumerate(orders())
    ]
    (project.parent / "orders.csv").write_text(table(rows, header=(*HEADER, "at")))
    write(project, "key: id", "key: id\n    event_time: {column: at, zone: Europe/Paris}")
    found = cumulant("data", "validate", "--project", project, "--json").document["sources"]["rows"]
    assert found["rows_quarantined"] == 1
    write(project, "key: id", "key: id\n    event_time: at")
    refused(cumulant("data", "validate", "--project", project), 2, "have no zone", "zone: UTC")


def test_each_kind_of_breach_has_its_own_hint(cumulant, project):
    file = project.parent / "orders.csv"
    assert cumulant("data", "validate", "--project", project).code == 0
    rows = [row[:3] for row in changed(1, lambda n, v: -v if n < 30 else v)]
    file.write_text(table(rows, header=HEADER[:3]))
    ended = cumulant("data", "validate", "--project", project)
    refused(
        ended,
        1,
        'column "late" is gone',
        "(1) columns: fix the source, or accept it: on_schema_change: accept",
        "(2) refused rows: inspect the rows: cumulant data quarantine rows; fix them, or raise `quarantine`",
    )
    file.write_text(table(rows))
    assert "(1)" not in cumulant("data", "validate", "--project", project).err


def test_values_that_a_rule_does_not_name_are_shown_in_the_hint(cumulant, project):
    write(project, "{min: 0}", "{min: 0}\n      kind: {in: [x, y]}")
    ended = cumulant("data", "validate", "--project", project)
    refused(ended, 1, 'values of kind, such as "z" are not among those of `rules: {kind: {in: ...}}`: add them')


def test_why_files_cannot_be_read_is_said_once(cumulant, project):
    write(project, "path: ../orders.csv", "path: ../in\n    severity: {unreadable_files: warn}")
    folder = project.parent / "in"
    folder.mkdir()
    (folder / "1.csv").write_text(table())
    (folder / "2.csv").write_text("")
    for command in ("validate", "show"):
        words = ["rows", "--project", project] if command == "show" else ["--project", project]
        shown = " ".join(cumulant("data", command, *words).out.split())
        assert shown.count("2.csv is empty") == 1
        assert "rules hold" not in shown
