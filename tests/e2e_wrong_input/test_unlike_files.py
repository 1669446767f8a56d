"""Folders of which one file is unlike the others: the message names it, and says how the others are."""

from __future__ import annotations

import pytest
from wrong_input_support import HEADER, orders, refused, table, write

pytestmark = pytest.mark.slow

COUNT = 4


def folder(project, unlike=None, change=None, *, header=HEADER, count=COUNT):
    """Orders in `count` files; `change` makes the rows of the file number `unlike`, under `header`."""
    found = project.parent / "in"
    found.mkdir(exist_ok=True)
    for number in range(1, count + 1):
        rows = [(f"{number}-{row[0]}", *row[1:]) for row in orders(100, seed=number)]
        if number == unlike:
            (found / f"{number:02d}.csv").write_text(table([change(row) for row in rows], header=header))
        else:
            (found / f"{number:02d}.csv").write_text(table(rows))


def without_kind(row):
    return (*row[:2], row[3])


def in_euro(row):
    return (row[0], f"EUR {row[1]}", *row[2:])


@pytest.mark.parametrize("unlike", [1, 3])
@pytest.mark.parametrize("count", [4, 20])  # of 16 small files and more, many are read at once
def test_the_file_whose_values_do_not_fit_a_rule_is_named_and_the_others_type(cumulant, project, unlike, count):
    write(project, "../orders.csv", "../in")
    folder(project, unlike, in_euro, count=count)
    refused(
        cumulant("data", "validate", "--project", project),
        2,
        f'column "amount", which is of type str, in ../in/{unlike:02d}.csv; '
        f"it is of type float in the {count - 1} other files",
        "write the file again like the others",
    )


def test_the_file_without_the_key_is_named_and_that_the_others_have_it(cumulant, project):
    write(project, "../orders.csv", "../in")
    folder(project, 1, lambda row: row[1:], header=HEADER[1:])
    ended = cumulant("data", "validate", "--project", project)
    refused(ended, 2, '../in/01.csv has no column "id", which is declared as key; the 3 other files have it')


@pytest.mark.parametrize("unlike", [1, 3])
def test_the_first_reading_warns_of_a_file_without_a_column(cumulant, project, unlike):
    write(project, "../orders.csv", "../in")
    folder(project, unlike, without_kind, header=("id", "amount", "late"))
    ended = cumulant("data", "validate", "--project", project)
    assert ended.code == 0, ended.err
    assert f'warning: column "kind" is missing in ../in/0{unlike}.csv; the 3 other files have it' in ended.out


def test_the_first_reading_warns_of_a_renamed_column_in_one_file(cumulant, project):
    write(project, "../orders.csv", "../in")
    folder(project, 2, lambda row: row, header=("id", "amount", "kinds", "late"))
    found = cumulant("data", "validate", "--project", project, "--json").document["sources"]["rows"]["warnings"]
    assert [text.partition(";")[0] for text in found] == [
        'column "kind" is missing in ../in/02.csv',
        'column "kinds" is only in ../in/02.csv',
    ]


@pytest.mark.parametrize("unlike", [1, 3])
def test_the_first_reading_warns_of_a_file_that_makes_numbers_text(cumulant, project, unlike):
    write(project, "path: ../orders.csv\n    key: id\n    rules:\n      amount: {min: 0}", "path: ../in")
    folder(project, unlike, in_euro)
    ended = cumulant("data", "validate", "--project", project)
    assert f'column "amount" is text in ../in/0{unlike}.csv and float in the 3 other files' in ended.out
    assert "rules: {amount: {type: float}}" in ended.out


def test_files_that_are_alike_warn_of_nothing(cumulant, project):
    write(project, "../orders.csv", "../in")
    folder(project)
    assert cumulant("data", "validate", "--project", project, "--json").document["sources"]["rows"]["warnings"] == []


def test_digits_in_one_file_of_a_column_of_codes_are_no_difference(cumulant, project):
    write(project, "../orders.csv", "../in")
    folder(project, 2, lambda row: (*row[:2], 7, row[3]))
    assert cumulant("data", "validate", "--project", project, "--json").document["sources"]["rows"]["warnings"] == []


def test_a_later_change_of_type_names_the_new_file_that_holds_it(cumulant, project):
    write(project, "path: ../orders.csv\n    key: id\n    rules:\n      amount: {min: 0}", "path: ../in")
    folder(project, count=2)
    assert cumulant("data", "validate", "--project", project).code == 0
    folder(project, 4, in_euro)
    ended = cumulant("data", "validate", "--project", project)
    refused(ended, 1, 'column "amount" changed from float to str in ../in/04.csv')
    assert "03.csv" not in ended.err


def test_a_later_loss_of_a_column_says_how_many_files_have_it(cumulant, project):
    write(project, "../orders.csv", "../in")
    folder(project, count=1)
    assert cumulant("data", "validate", "--project", project).code == 0
    folder(project, 3, without_kind, header=("id", "amount", "late"))
    (project.parent / "in" / "04.csv").write_text((project.parent / "in" / "03.csv").read_text().replace("3-", "4-"))
    ended = cumulant("data", "validate", "--project", project)
    refused(ended, 1, 'column "kind" is gone in ../in/03.csv and 1 other file; it is used by feature kind')


def broken_folder(parent):
    folder = parent / "broken"
    folder.mkdir()
    for name, content in {"1.csv": "", "2.csv": table(), "3.parquet": "hello", "4.csv": ""}.items():
        (folder / name).write_text(content)
    return "broken"


UNREADABLE = (
    "3 of 4 files cannot be read: ",
    "1.csv is empty",
    "3.parquet is not a whole Parquet file",
    "4.csv is empty",
)


@pytest.mark.parametrize("command", [["new", "made", "--target", "late", "--from"], ["data", "infer"]])
def test_all_files_that_cannot_be_read_are_named_at_once(cumulant, here, command):
    refused(cumulant(*command, broken_folder(here)), 2, *UNREADABLE)


@pytest.mark.parametrize("out", [[], ["--out", "answers.csv"]])
def test_all_files_that_cannot_be_answered_are_named_at_once(cumulant, trained, here, out):
    ended = cumulant("predict", broken_folder(here), "--project", trained, *out)
    refused(ended, 2, *UNREADABLE)
    assert str(here) not in ended.err
