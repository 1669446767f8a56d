"""What people give by mistake: the exit code, the words that say what to do, no traceback, and nothing lost."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cumulant.cli.app import run

pytestmark = pytest.mark.slow

HEADER = ("id", "amount", "kind", "late")


def orders(count: int = 300, *, seed: int = 1) -> list[tuple[Any, ...]]:
    """[count] rows of `HEADER`; lateness can be learned from amount and kind."""
    dice, rows = random.Random(seed), []
    for number in range(count):
        amount, kind = dice.random() * 100, dice.choice("xyz")
        rows.append(
            (f"id{number:04d}", round(amount, 2), kind, int(amount + 20 * (kind == "z") + dice.gauss(0, 15) > 60))
        )
    return rows


def table(
    rows: list[tuple[Any, ...]] | None = None,
    *,
    header: tuple[str, ...] = HEADER,
    separator: str = ",",
    end: str = "\n",
) -> str:
    lines = [header, *(orders() if rows is None else rows)]
    return "".join(separator.join(str(value) for value in line) + end for line in lines)


def changed(column: int, change: Any) -> list[tuple[Any, ...]]:
    """The orders with one column changed: `change` takes the row's number and the value."""
    return [(*row[:column], change(number, row[column]), *row[column + 1 :]) for number, row in enumerate(orders())]


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def cumulant(capfd, monkeypatch):
    """Runs a command line in this process, by the same door as the console script."""
    monkeypatch.delenv("CUMULANT_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: object) -> Ended:
        capfd.readouterr()
        code = run([str(word) for word in words])
        found = capfd.readouterr()
        ended = Ended(code, found.out, found.err)
        assert "Traceback" not in ended.out + ended.err
        assert "run it again with --debug" not in ended.err  # what nobody foresaw
        return ended

    return call


def refused(ended: Ended, code: int, *words: str) -> None:
    """Ended with `code`, said `words` and nothing on standard output, and pointed at a page."""
    assert ended.code == code, ended.err
    assert not ended.out
    for word in words:
        assert word in ended.err
    assert "docs/reference/errors.md#" in ended.err


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with spaces, quotes and other letters in its path, which is the working directory."""
    folder = tmp_path / "my prøject $HOME 'q'"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


# A new project ---------------------------------------------------------------------------------------------------

PARQUET = "rows.parquet"


def parquet(frame: pl.DataFrame) -> bytes:
    import io

    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def jsonl(frame: pl.DataFrame) -> bytes:
    return frame.write_ndjson().encode()


FRAME = pl.DataFrame(orders(), schema=list(HEADER), orient="row")
LEFT_OUT = [
    ("id,late\na,1\nb,0\n", "no column is left", "identifies the row"),
    ("late\n0\n1\n0\n", "no column is left", "no column beside the target"),
]
UNREADABLE = {
    "an empty file": ("rows.csv", b"", "is empty (0 bytes)"),
    "blank lines only": ("rows.csv", b"\n\n\n", "holds no table"),
    "a header only": ("rows.csv", table([]).encode(), "there are no rows"),
    "a cut CSV": ("rows.csv", table().encode()[:-5], "is cut off: its last line has 2 of 4 fields"),
    "a row too long": ("rows.csv", table().encode() + b"id9,1,x,0,7\n", "more fields than its header"),
    "a cut in a quoted field": ("rows.csv", table().encode() + b'id9,"1', "in the row that begins in line 302"),
    "rows that are all too short": ("rows.csv", b"a,b,late\n1,2\n3,4\n", "none of its 2 rows has all the 3 fields"),
    "an open quote": ("rows.csv", table().encode() + b'id9,"1,x,0\n', "quoted field that does not end"),
    "a cut gzip": ("rows.csv.gz", gzip.compress(table().encode())[:400], "damaged or cut off (gzip)"),
    "no gzip at all": ("rows.csv.gz", b"\x1f\x8b garbage", "damaged or cut off (gzip)"),
    "an empty Parquet": (PARQUET, b"", "is empty (0 bytes)"),
    "a cut Parquet": (PARQUET, parquet(FRAME)[:900], "not a whole Parquet file"),
    "a Parquet without rows": (PARQUET, parquet(FRAME.clear()), "there are no rows"),
    "cut JSON lines": ("rows.jsonl", jsonl(FRAME)[:-20], "not JSON: damaged or cut off"),
    "one JSON array": ("rows.json", b'[{"a": 1}]', "one JSON array"),
    "a spreadsheet": ("rows.xlsx", b"PK\x03\x04", "save it as CSV or Parquet"),
    "two columns of one name": ("rows.csv", b"a,a,late\n1,2,0\n", "two columns named a"),
    "a name that is kept": ("rows.csv", b"__row,a,late\n1,2,0\n", "another name in the data"),
    "a constant target": ("rows.csv", table(changed(3, lambda *_: 1)).encode(), "the same value in every row"),
    "a target of nulls": ("rows.csv", table(changed(3, lambda *_: "")).encode(), "is empty in all 300 rows"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_no_project_can_be_made_of(cumulant, here, case):
    name, content, said = UNREADABLE[case]
    (here / name).write_bytes(content)
    refused(cumulant("new", "shop", "--from", name, "--target", "late"), 2, said)
    assert [path.name for path in here.iterdir()] == [name]
    assert (here / name).read_bytes() == content


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "ordrs.csv", "--target", "late"), ("no file matches ordrs.csv", 'did you mean "orders.csv"?')),
        (("--from", "none/*.csv", "--target", "late"), ("no file matches",)),
        (("--from", "orders.csv", "--target", "lat"), ('no column "lat"', 'did you mean "late"?')),
        (("--from", "orders.csv", "--target", "LATE"), ('did you mean "late"?',)),
        (("--from", "orders.csv", "--target", "late > 0 >"), ("invalid syntax",)),
        (("--from", "orders.csv", "--target", "id"), ("300 different values, too many for classes",)),
        (("--from", "orders.csv", "--target", "late", "--time", "when"), ('"when", which --time names', "id, amount, kind, late")),
        (("--from", "orders.csv", "--target", "late", "--time", "kind"), ("300 of 300 values cannot be read", "ISO 8601")),
        (("--from", "orders.csv", "--target", "late", "--key", "kind"), ("does not identify a row", "--key A --key B")),
        (("--from", "orders.csv"), ("which column", "--target")),
        (("--target", "late"), ("add --from FILE",)),
        (("--template", "flihgts"), ('did you mean "flights"?',)),
        (("--from", "gopher://x/y.csv", "--target", "late"), ("no driver for", "s3://")),
    ],
)  # fmt: skip
def test_what_new_is_asked_for_by_mistake(cumulant, here, words, said):
    (here / "orders.csv").write_text(table())
    refused(cumulant("new", "shop", *words), 2, *said)
    assert [path.name for path in here.iterdir()] == ["orders.csv"]


@pytest.mark.parametrize("name", ["../shop", "a/b", "", ".", "my shop", "größe", "a" * 80])
def test_names_that_no_project_can_have(cumulant, here, name):
    (here / "orders.csv").write_text(table())
    refused(cumulant("new", name, "--from", "orders.csv", "--target", "late"), 2, "cannot name a project")
    assert [path.name for path in here.iterdir()] == ["orders.csv"]


def test_a_folder_that_is_there_is_left_alone(cumulant, here):
    (here / "orders.csv").write_text(table())
    (here / "shop").mkdir()
    (here / "shop" / "mine.txt").write_text("precious")
    refused(
        cumulant("new", "shop", "--from", "orders.csv", "--target", "late"),
        2,
        "not an empty folder",
        "nothing was written",
    )
    assert [path.name for path in (here / "shop").iterdir()] == ["mine.txt"]


READABLE = {
    "Windows line ends": (table(end="\r\n").encode(), "late", ""),
    "a byte order mark": (b"\xef\xbb\xbf" + table().encode(), "late", ""),
    "UTF-16": (table().encode("utf-16"), "late", "read as utf-16"),
    "Latin-1": (table(changed(2, lambda n, v: "café" if n % 3 else v)).encode("latin-1"), "late", "read as latin-1"),
    "semicolons": (table(separator=";").encode(), "late", 'separated by ";"'),
    "semicolons and decimal commas": (
        table(changed(1, lambda _, v: str(v).replace(".", ",")), separator=";").encode(), "late", "numbers, written 1.234,5",
    ),
    "tabs": (table(separator="\t").encode(), "late", r'separated by "\t"'),
    "thousands": (table(changed(1, lambda _, v: f'"{v * 1000:,.2f}"')).encode(), "late", "amount is text that is read as numbers, written 1,234.5"),
    "day/month/year": (table(changed(1, lambda n, _: f"{1 + n % 28:02d}/01/2024")).encode(), "late", "dates that are not ISO 8601"),
    "yes and no": (table(changed(3, lambda _, v: "yes" if v else "no")).encode(), "late", "two values"),
    "True and False": (table(changed(3, lambda _, v: bool(v))).encode(), "late", "two values"),
    "blanks around values": (table(changed(2, lambda n, v: f" {v}" if n % 9 else " ?")).encode(), "late", '"?" is read as missing'),
    "numbers with blanks": (table(changed(1, lambda n, v: v if n % 9 else " ")).encode(), "late", "amount is read as a number"),
    "ids as text": (table(changed(0, lambda n, _: f"{n:05d}")).encode(), "late", "id identifies a row"),
    "an index without a name": (table(changed(0, lambda n, _: n), header=("", *HEADER[1:])).encode(), "late", "not used by the model"),
    "odd names": (table(header=("the id", '"a ""b"""', "<i>k</i>.x", "is late?")).encode(), "is late?", "is late? has two values"),
    "names with signs": (table(header=("id", "_a", "k-k", "income-per-year")).encode(), "income-per-year", "two values"),
    "blanks in a header": (table(header=("id", " amount ", "kind", " late")).encode(), " late", "two values"),
    "a column of nulls": (table(changed(2, lambda *_: "")).encode(), "late", "kind (empty in every row)"),
    "a column that tells the target": (table(changed(2, lambda n, _: orders()[n][3])).encode(), "late", "kind (alone tells the target"),
    "one that tells it otherwise": (table(changed(2, lambda n, _: "NY"[orders()[n][3]])).encode(), "late", "kind (alone tells"),
    "one that is the target twice": (table(changed(3, lambda n, _: 2 * orders()[n][1] + 1)).encode(), "late", "amount (alone tells"),
    "a row with too few fields": (table().replace("\n", "\nid9,1\n", 2).encode(), "late", "fewer fields than the header"),
    "blank lines": (table().replace("\n", "\n\n", 9).encode() + b"\n\n", "late", "300 rows and 4 columns were looked at"),
    "a nearly unique id": (table([*orders(), orders()[0]]).encode(), "late", "id (nearly identifies the row: 1 of 301 rows repeat a value; --key id"),
    "several wrong numbers": (table(changed(1, lambda n, v: "lots" if n < 7 else v)).encode(), "late", "amount holds numbers, but 7 of 300 values are none (the first in row 1); it stays text"),
    "a few repeated keys": (table([*orders(), orders()[0]]).encode(), "late", "no column identifies a row"),
}  # fmt: skip


@pytest.mark.parametrize("case", READABLE)
def test_tables_as_people_have_them_become_projects(cumulant, here, case):
    content, target, said = READABLE[case]
    (here / "my rows.csv").write_bytes(content)
    made = cumulant("new", "shop", "--from", "my rows.csv", "--target", target)
    assert made.code == 0, made.err
    assert said in made.out
    plan = cumulant("plan", "--project", "shop", "--json")
    assert plan.code == 0, plan.err
    assert plan.document["sources"][0]["rows"] in (300, 301)
    assert plan.document["features"]["features"]


@pytest.mark.parametrize(("content", "said", "why"), LEFT_OUT)
def test_a_table_without_anything_to_learn_from(cumulant, here, content, said, why):
    (here / "rows.csv").write_text(content)
    refused(cumulant("new", "shop", "--from", "rows.csv", "--target", "late"), 2, said, why)


# The project file ------------------------------------------------------------------------------------------------

PROJECT = """\
version: 1
data:
  rows:
    path: ../orders.csv
    key: id
    rules:
      amount: {min: 0}
training:
  target: late
  trials: 1
"""
FEATURES = """\
from cumulant.features import col, source

rows = source("rows")
columns = rows.columns("amount", "kind")
"""


@pytest.fixture
def project(here):
    """The orders as a project, `shop`."""
    (here / "orders.csv").write_text(table())
    (here / "shop").mkdir()
    (here / "shop" / "cumulant.yaml").write_text(PROJECT)
    (here / "shop" / "features.py").write_text(FEATURES)
    return here / "shop"


def write(project: Path, old: str, new: str, *, text: str = PROJECT) -> None:
    assert old in text
    (project / "cumulant.yaml").write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("training:", "trainning:", 8, 'unknown key "trainning"; did you mean "training"?'),
        ("    key: id", "    keey: id", 5, 'unknown key "keey" in data.rows; did you mean "key"?'),
        ("{min: 0}", "{minn: 0}", 7, 'unknown key "minn" in data.rows.rules.amount; did you mean "min"?'),
        ("  trials: 1", "  trial: 1", 10, 'did you mean "trials"?'),
        ("version: 1", "version: 1\ntrials: 3", 2, "it belongs under training"),
        ("trials: 1", "trials: many", 10, "training.trials must be a whole number"),
        ("trials: 1", "trials: [1]", 10, "training.trials must be a whole number, not a list"),
        ("trials: 1", "trials: -1", 10, "must be at least 1, not -1"),
        ("target: late", "target: 1", 9, "put it in quotes"),
        ("    key: id", "    format: cvs", 5, 'did you mean "csv"? allowed: auto, csv, jsonl, parquet'),
        ("  trials: 1", "  task: binry", 10, 'did you mean "binary"?'),
        ("  trials: 1", "  trainers: [naive, lightgmb]", 10, 'did you mean "lightgbm"?'),
        ("  trials: 1", "  source: rowz", 10, 'did you mean "rows"?'),
        ("  trials: 1", "  time: 2 fortnights", 10, "90s, 15m, 2h, 30d, 4w"),
        ("    key: id", "    quarantine: 150%", 5, "write 5% or a number from 0 to 1"),
        ("  trials: 1", "  trials: 1\nevaluation: {gate: {log_loss: {}}}", 11, "exactly one of min and max"),
        ("  trials: 1", "  trials: 1\n  trials: 2", 11, "is set twice; the first time in line 10"),
        ("  trials: 1", "\ttrials: 1", 10, "indent with spaces, not tabs"),
        ("{min: 0}", "{min: 0", 8, "not valid YAML"),
        ("version: 1\n", "", 1, '"version" is missing'),
        ("version: 1", "version: 2", 1, "allowed: 1"),
        ("../orders.csv", "'${secert:X}'", 4, "a secret is written ${secret:NAME}"),
        ("version: 1", "extends: base.yaml\nversion: 1", 1, "the file does not exist"),
    ],
)
def test_a_mistake_in_the_project_file_has_a_line_and_an_advice(cumulant, project, old, new, line, said):
    write(project, old, new)
    refused(cumulant("plan", "--project", project), 2, f"cumulant.yaml:{line}: ", said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty; a project file starts with `version: 1`"),
        (b"# nothing yet\n", "the file is empty"),
        (b"- 1\n", "must hold keys and values"),
        (b"version: 1 # caf\xe9\n", "not UTF-8"),
        (b"version: 1\0\n", "control character"),
    ],
)
def test_a_file_that_is_no_project_file(cumulant, project, content, said):
    (project / "cumulant.yaml").write_bytes(content)
    refused(cumulant("plan", "--project", project), 2, said)


def test_every_mistake_is_told_at_once(cumulant, project):
    write(project, "    key: id", "    keey: id", text=PROJECT.replace("trials: 1", "trials: many"))
    ended = cumulant("plan", "--project", project)
    refused(ended, 2, "2 problems", 'did you mean "key"?', "whole number")
    assert ended.err.count("keey") == 1
    document = cumulant("plan", "--project", project, "--json").document["error"]
    assert [(one["file"], one["line"]) for one in document["problems"]] == [("cumulant.yaml", 5), ("cumulant.yaml", 10)]


def test_outside_a_project(cumulant, here):
    for words in (("train",), ("plan",), ("data", "validate"), ("models", "list")):
        refused(cumulant(*words), 2, "there is no cumulant.yaml", "cumulant new NAME")
    refused(cumulant("plan", "--project", "nowhere"), 2, "there is no folder nowhere")
    (here / "cumulant.yml").write_text(PROJECT)
    refused(cumulant("plan"), 2, 'did you mean "cumulant.yml"?')


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plan", "--env", "prd"), 'did you mean "prod"?'),
        (("data", "validate", "rowz"), 'did you mean "rows"?'),
        (("data", "show", "rowz"), 'did you mean "rows"?'),
        (("data", "show", "rows"), "cumulant data validate rows"),
        (("data", "infer", "ordrs.csv"), 'did you mean "orders.csv"?'),
        (("trian",), 'did you mean "train"?'),
        (("train", "--quik"), 'did you mean "--quick"?'),
        (("train", "--trials", "0"), "is not in the range"),
        (("train", "--time", "soon"), "90s, 15m, 2h"),
        (("runs", "show", "x"), 'no run named "x"'),
        *((("train", "--as-of", text), "write 2013-04-01") for text in ("garbage", "", "2024-13-01", "01/02/2024")),
    ],
)
def test_words_on_the_command_line(cumulant, project, words, said):
    write(project, "training:", "environments: {prod: {}}\ntraining:")
    refused(cumulant(*words, *(() if words[0] == "trian" else ("--project", project))), 2, said)


# Sources ---------------------------------------------------------------------------------------------------------


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
        (table(changed(3, lambda n, v: "maybe" if n == 7 else v)).encode(), 1, "narrowed from int to str"),
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
    ("gone", "code", "said"),
    [
        ("kind", 1, 'column "kind" is gone in ../orders.csv; it is used by feature kind'),
        ("late", 1, 'column "late" is gone in ../orders.csv; it is used by the target'),
        ("note", 1, "it is used by evaluation.slices"),
        ("remark", 2, "the condition `remark <> 'x'` does not fit its columns"),
        ("id", 2, "declared as key"),
        ("amount", 2, "stands under rules"),
    ],
)
def test_a_column_that_something_uses_may_not_go(cumulant, project, gone, code, said):
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
    refused(cumulant("data", "validate", "--project", project), code, said)
    assert snapshot(cumulant, project) == before


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
    said = "the contract asks more than is checked: amount: sql is not checked"
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


# The user's own code ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (FEATURES + "x = 1 / 0\n", 4, ("features.py:5: the features file raised ZeroDivisionError",)),
        (FEATURES + "def (:\n", 2, ("features.py:5: this is not Python",)),
        (FEATURES + "import nosuchmodule\n", 4, ("No module named 'nosuchmodule'",)),
        (FEATURES + "raise SystemExit(0)\n", 4, ("SystemExit",)),
        (FEATURES.replace("import col", "import coll"), 4, ("features.py:1", "cannot import name 'coll'")),
        (FEATURES.replace("rows.columns", "rows.colums"), 4, ("features.py:4", 'did you mean "columns"?')),
        (FEATURES.replace("rows.columns", "row.columns"), 4, ("features.py:4", 'did you mean "rows"?')),
        (FEATURES.replace('"amount"', '"amuont"'), 2, ("features.py:4", 'did you mean "amount"?')),
        (FEATURES.replace('source("rows")', 'source("rowz")'), 2, ('did you mean "rows"?',)),
        (FEATURES + 'amount = col("amount") * 2\n', 2, ("features.py:5", "already defined at features.py:4")),
        (FEATURES + 'twice = col("kind") * 2\n', 2, ("features.py:5", "mul does not work on text")),
        (FEATURES + 'n = rows.by("kind").count(window="7d")\n', 2, ("features.py:5", "declare event_time")),
        (FEATURES + 'n = rows.by("kind").count(window="7 moons")\n', 2, ("features.py:5", "90s, 15m, 2h")),
    ],
)
def test_a_features_file_that_cannot_be_used(cumulant, project, text, code, said):
    (project / "features.py").write_text(text)
    refused(cumulant("plan", "--project", project), code, *said)


def test_a_features_file_that_is_not_there(cumulant, project):
    (project / "features.py").unlink()
    refused(cumulant("plan", "--project", project), 2, "no features file features.py")


@pytest.mark.parametrize("words", [("plan",), ("train", "--quick")])
@pytest.mark.parametrize(
    "text",
    [
        "",
        'from cumulant.features import source\n\nrows = source("rows")\n',
        FEATURES.replace("columns = ", "_columns = "),
    ],
)
def test_a_features_file_without_features(cumulant, project, words, text):
    (project / "features.py").write_text(text)
    refused(
        cumulant(*words, "--project", project), 2, "there is no feature to learn from", "define some in the features"
    )
    assert cumulant("data", "validate", "--project", project).code == 0


def test_an_input_that_is_not_known_at_the_prediction(cumulant, project):
    rows = [(*row, f"2024-03-{1 + number % 28:02d}T10:00:00Z") for number, row in enumerate(orders())]
    (project.parent / "orders.csv").write_text(table(rows, header=(*HEADER, "at")))
    write(project, "key: id", "key: id\n    event_time: at\n    known_time: {2d: amount}")
    ended = cumulant("plan", "--project", project)
    refused(ended, 2, "features.py:4", "amount", "known")
    assert cumulant("plan", "--project", project, "--json").document["error"]["code"] == "not-known-yet"


PREPARE = """\
import polars as pl

def boom(frame): raise KeyError("amuont")
def leave(frame): raise SystemExit(0)
def nothing(frame): return None
def grouped(frame: pl.DataFrame) -> pl.DataFrame: return frame.group_by("kind").len()
def centred(frame: pl.DataFrame) -> pl.DataFrame: return frame.with_columns(pl.col("amount") - pl.col("amount").mean())
def doubled(frame: pl.DataFrame) -> pl.DataFrame: return pl.concat([frame, frame])
def fine(frame: pl.DataFrame) -> pl.DataFrame: return frame.filter(pl.col("amount") > 10)
"""


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("clean.py:boom", 4, ("raised KeyError", "clean.py, line 3")),
        ("clean.py:leave", 4, ("raised SystemExit", "clean.py, line 4")),
        ("clean.py:nothing", 2, ("returned nothing", "`return`")),
        ("clean.py:grouped", 2, ("not row-wise",)),
        ("clean.py:centred", 2, ("not row-wise", "windows, lookups")),
        ("clean.py:doubled", 2, ("300 in, 600 out",)),
        ("clean.py:fin", 2, ('did you mean "fine"?',)),
        ("clear.py:fine", 2, ("there is no file clear.py",)),
    ],
)
def test_a_prepare_that_cannot_be_used(cumulant, project, name, code, said):
    (project / "clean.py").write_text(PREPARE)
    write(project, "    key: id", f"    key: id\n    prepare: {name}")
    refused(cumulant("data", "validate", "--project", project), code, *said)
    write(project, "    key: id", "    key: id\n    prepare: clean.py:fine")
    found = cumulant("data", "validate", "--project", project, "--json").document["sources"]["rows"]
    dropped = sum(row[1] <= 10 for row in orders())
    assert (found["rows_in"], found["rows_passed"], found["rows_dropped"]) == (300, 300 - dropped, dropped)


TRAINERS = """\
def boom(X, y): raise ValueError("no luck today")
def leave(X, y): raise SystemExit(3)
def nothing(X, y): return None
"""


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("own.py:boom", 4, ("raised ValueError at own.py, line 1: no luck today", "finished steps are reused")),
        ("own.py:leave", 4, ("raised SystemExit",)),
        ("own.py:nothing", 2, ("no estimator and no ONNX bytes",)),
        ("own.py:missing", 2, ("has no function missing",)),
        ("none.py:boom", 2, ("trainer none.py:boom: there is no file none.py",)),
        ("no.such:boom", 2, ("there is no module no.such",)),
    ],
)
def test_a_trainer_that_cannot_be_used(cumulant, project, name, code, said):
    (project / "own.py").write_text(TRAINERS)
    write(project, "  trials: 1", f"  trials: 1\n  trainers: ['{name}']")
    refused(cumulant("train", "--quick", "--project", project), code, *said)
    assert not cumulant("models", "list", "--project", project, "--json").document
    assert cumulant("runs", "list", "--project", project, "--json").document[0]["status"] == "failed"
    assert cumulant("events", "verify", "--project", project).code == 0


# Targets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "change", "said"),
    [
        (3, lambda *_: "", ("the target late is null in every row",)),
        (3, lambda *_: 1, ('is "1" in all of its 300 labelled rows', "only one class")),
        (3, lambda number, _: int(number < 3), ('class "1" of the target late has 3 rows', "at least 5")),
        (3, lambda number, value: value if number < 3 else "", ("has 3 labelled rows; at least 20",)),
        (1, lambda number, _: orders()[number][3], ("amount determines the target", "leakage", "allow: [amount]")),
        (1, lambda number, _: 5 - 3 * orders()[number][3], ("amount determines the target", "leakage")),
        (2, lambda number, _: "NY"[orders()[number][3]], ("kind determines the target", "leakage")),
    ],
)
def test_a_target_that_cannot_be_learned(cumulant, project, column, change, said):
    (project.parent / "orders.csv").write_text(table(changed(column, change)))
    refused(cumulant("train", "--quick", "--project", project), 2, *said)
    assert not cumulant("models", "list", "--project", project, "--json").document


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("target: late", "target: laet", 'did you mean "late"?'),
        ("target: late", "target: late >", "invalid syntax"),
        ("target: late", "target: absx(late) > 0", 'did you mean "abs"?'),
        ("target: late", "target: id", "too many for classes"),
        ("  trials: 1", "  predict_at: foo - 2h", 'there is no column "foo"'),
        ("  trials: 1", "  trials: 1\nevaluation: {gate: {log_los: {max: 1}}}", 'did you mean "log_loss"?'),
        ("  trials: 1", "  trials: 1\nevaluation: {slices: [kindd]}", 'did you mean "kind"?'),
        ("  trials: 1", "  cost: {false_negative: amuont}", 'did you mean "amount"?'),
        ("training:\n  target: late\n  trials: 1\n", "", "declares no target"),
    ],
)
def test_a_training_that_cannot_be_done_ends_before_the_search(cumulant, project, old, new, said):
    write(project, old, new)
    ended = cumulant("train", "--quick", "--project", project)
    refused(ended, 2, said)
    assert "trying" not in ended.err


def test_as_of_needs_a_time_and_rows_before_it(cumulant, project):
    refused(cumulant("train", "--quick", "--as-of", "2024-01-01", "--project", project), 2, "no event time")
    rows = [(*row, f"2024-03-{1 + number % 28:02d}T10:00:00Z") for number, row in enumerate(orders())]
    (project.parent / "orders.csv").write_text(table(rows, header=(*HEADER, "at")))
    write(project, "key: id", "key: id\n    event_time: at")
    refused(cumulant("train", "--quick", "--as-of", "2010-01-01", "--project", project), 2, "no row of rows is known")


# Odd, but right --------------------------------------------------------------------------------------------------


def test_odd_names_all_the_way_to_the_report(cumulant, here):
    header = ("the id", '"a ""b"""', "<img src=x>", "is late?")
    (here / "my rows.csv").write_text(table(header=header))
    assert cumulant("new", "shop", "--from", "my rows.csv", "--target", "is late?").code == 0
    trained = cumulant("train", "--quick", "--project", "shop", "--json")
    assert trained.code == 0, trained.err
    answers = cumulant("predict", "my rows.csv", "--project", "shop", "--json")
    assert answers.document["rows"] == 300
    assert cumulant("report", "shop", "--project", "shop", "--out", "a page.html").code == 0
    page = (here / "a page.html").read_text()
    assert "<img src=x>" not in page
    assert "&lt;img src=x&gt;" in page


def test_a_column_of_nulls_is_named_and_left_out(cumulant, project):
    (project.parent / "orders.csv").write_text(table(changed(1, lambda *_: "")))
    write(project, "{min: 0}", "{type: float}")
    trained = cumulant("train", "--quick", "--project", project)
    assert trained.code in (0, 1), trained.err
    assert "amount is null in every row and is not used" in trained.out


def test_two_thousand_columns(cumulant, here):
    dice = random.Random(3)
    header = (*(f"f{number}" for number in range(2000)), "late")
    rows = [(*(round(dice.random(), 2) for _ in range(2000)), number % 2) for number in range(200)]
    (here / "wide.csv").write_text(table(rows, header=header))
    assert cumulant("new", "wide", "--from", "wide.csv", "--target", "late").code == 0
    trained = cumulant("train", "--quick", "--project", "wide")
    assert trained.code in (0, 1), trained.err  # noise: the gate may well refuse it
    assert "models:/wide/1" in trained.out


def test_three_rows(cumulant, here):
    (here / "few.csv").write_text(table([("a", 1.0, "x", 0), ("b", 2.0, "x", 1), ("c", 3.0, "y", 1)]))
    assert cumulant("new", "few", "--from", "few.csv", "--target", "late").code == 0
    refused(cumulant("train", "--quick", "--project", "few"), 2, "3 labelled rows; at least 20", "more rows")


# Predictions and names of models ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained project on the orders; its tests change nothing in it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "orders.csv").write_text(table())
    (folder / "shop").mkdir()
    (folder / "shop" / "cumulant.yaml").write_text(PROJECT.replace("    rules:", '    missing: ["?"]\n    rules:'))
    (folder / "shop" / "features.py").write_text(FEATURES)
    assert run(["train", "--quick", "--project", str(folder / "shop")]) == 0
    return folder / "shop"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("new.csv", b"", "is empty (0 bytes)"),
        ("new.csv", b"amount,kind\n3,x\n4", "is cut off"),
        ("new.csv", b"amount,kind\n3,x\n4\n5,y\n", "1 row has fewer fields than the header (row 2)"),
        ("new.csv", b'amount,kind\n3,x\n4,"', "a quoted field that does not end"),
        ("new.csv", b"amuont,kind\n3,x\n", 'did you mean "amuont"?'),
        ("new.csv", b"weight,colour\n3,x\n", "the rows lack amount, kind"),
        ("new.csv", b"amount,kind\n3,x\nlots,y\n", '"amount" must be a number, and is not in row 2'),
        ("new.csv", b'amount,kind\n"1,234.5",x\n', '"amount" must be a number, and is not in row 1'),
        ("new.jsonl", b'{"amount": 3, "kind": "x"\n', "not JSON"),
        ("new.parquet", parquet(FRAME)[:900], "not a whole Parquet file"),
        ("new.doc", b"PK", "save it as CSV or Parquet"),
    ],
)
def test_rows_that_cannot_be_answered(cumulant, trained, here, name, content, said):
    (here / name).write_bytes(content)
    refused(cumulant("predict", name, "--project", trained, "--out", "answers.csv"), 2, said)
    assert [path.name for path in here.iterdir()] == [name]


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (b"amount,kind\n3,x\n90,z\n", 2),
        (b"late,kind,id,amount,more\n1,x,7,3,q\n", 1),
        (b"amount;kind\n3;x\n", 1),
        (b"\xef\xbb\xbfamount,kind\r\n3,x\r\n", 1),
        (b"amount,kind\n?,x\n", 1),
        (b"amount,kind\n,\n", 1),
        (b"amount,kind\n3,7\n", 1),
        (b"amount,kind\n1e308,never seen\n", 1),
        (b"amount\n3\n", 1),
        (b"amount,kind\n", 0),
    ],
)
def test_rows_that_can_be_answered_all_the_same(cumulant, trained, here, content, count):
    (here / "new.csv").write_bytes(content)
    ended = cumulant("predict", "new.csv", "--project", trained, "--json")
    assert ended.code == 0, ended.err
    assert len(ended.document["answers"]) == count


def test_a_field_that_is_left_out_is_named(cumulant, trained, here):
    (here / "new.csv").write_text("amount\n3\n")
    assert "taken as missing: kind" in cumulant("predict", "new.csv", "--project", trained).err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("predict", "orders.csv", "--model", "shopp"), 2, 'did you mean "shop"?'),
        (("predict", "orders.csv", "--model", "shop@candidat"), 2, 'did you mean "candidate"?'),
        (("predict", "orders.csv", "--model", "shop/99"), 2, "known: 1"),
        (("predict", "orders.csv", "--model", "@@"), 2, "NAME@ALIAS"),
        (("predict", "ordrs.csv"), 2, 'did you mean "orders.csv"?'),
        (("predict", "orders.csv", "--as-of", "garbage"), 2, "write 2013-04-01"),
        (("predict", "orders.csv", "--url", "banana"), 2, "http://127.0.0.1:8080"),
        (("predict", "orders.csv", "--url", "http://127.0.0.1:1"), 3, "cumulant serve"),
        (("predict", "orders.csv", "--out", "answers.xyz"), 2, ".csv, .parquet or .jsonl"),
        (("models", "show", "shop@nope"), 2, "known: candidate"),
        (("models", "tag", "shop/1", "novalue"), 2, "KEY=VALUE"),
        (("models", "compare", "shop/1", "shop/7"), 2, "known: 1"),
        (("models", "reproduce", "shop/7"), 2, "known: 1"),
        (("lineage", "shop/7"), 2, "known: 1"),
        (("evaluate", "shop@nope"), 2, "known: candidate"),
        (("serve", "shop@nope"), 2, "known: candidate"),
        (("serve", "--host", "0.0.0.0", "--port", "0"), 2, "--insecure"),
        (("serve", "--port", "80000"), 2, "is not in the range"),
        (("report", "nope"), 2, "known: shop"),
        (("report", "shop", "--out", "page.pdf"), 2, ".html, .md or .json"),
    ],
)
def test_names_that_do_not_exist(cumulant, trained, here, words, code, said):
    (here / "orders.csv").write_text(table())
    refused(cumulant(*words, "--project", trained), code, said)
    assert [path.name for path in here.iterdir()] == ["orders.csv"]


def test_before_the_first_training(cumulant, project):
    for words in (("predict", "orders.csv"), ("serve",), ("models", "show"), ("evaluate",), ("lineage",)):
        refused(cumulant(*words, "--project", project), 2, 'no registered model named "shop"', "cumulant train")


# Secrets ---------------------------------------------------------------------------------------------------------


def test_a_secret_is_missing_or_wrong_and_its_value_is_never_told(cumulant, project, monkeypatch):
    place = "environments:\n  prod:\n    tracking_uri: http://me:${secret:SHOP_PASSWORD}@127.0.0.1:1\n"
    (project / "cumulant.yaml").write_text(PROJECT + place)
    monkeypatch.delenv("SHOP_PASSWORD", raising=False)
    where = ("--project", project, "--env", "prod")
    refused(cumulant("models", "list", *where), 2, "no secret named SHOP_PASSWORD", "CUMULANT_SECRET_SHOP_PASSWORD")
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2s3cret")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    shown = [cumulant("plan", "--resolved", *where), cumulant("models", "list", *where)]
    refused(shown[1], 3, "MLflow does not answer", "the same command may work later")
    several = (
        ("train", "--quick"),
        ("train", "--quick", "--json"),
        ("events", "list", "--json"),
        ("runs", "list", "--json"),
    )
    shown += [cumulant(*words, *where) for words in several]
    assert not [ended for ended in shown if "hunter2" in ended.out + ended.err]
    debugged = subprocess.run(
        [sys.executable, "-m", "cumulant.cli", "models", "list", "--debug", *map(str, where)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert debugged.returncode == 3
    assert "Traceback" in debugged.stderr
    assert "hunter2" not in debugged.stdout + debugged.stderr
    kept = [path for path in project.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert kept == []


# A server, and interruptions -------------------------------------------------------------------------------------


#: a command of its own, which Ctrl-C reaches even where the tests run in the background
BY_HAND = """\
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from cumulant.cli.app import run
sys.exit(run(sys.argv[1:]))
"""


def started(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BY_HAND, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_port_in_use(cumulant, trained):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen(1)
        port = busy.getsockname()[1]
        refused(
            cumulant("serve", "--port", port, "--project", trained),
            3,
            f"127.0.0.1:{port} is already in use",
            "--port 0",
        )


BODIES = [
    (b"", "no valid JSON"),
    (b'{"rows": [{"amount": 3}', "no valid JSON"),
    (b"\xff\xfe{}", "no valid JSON"),
    (b"null", "expected an object"),
    (b'{"rows": {}}', "must be a list"),
    (b'{"rows": [1]}', "expected an object"),
    (b'{"rows": [{"amuont": 3}]}', 'did you mean \\"amount\\"?'),
    (b'{"rows": [{"amount": "3"}]}', "must be a finite number"),
    (b'{"rows": [{"amount": 1e999}]}', "out of range"),
    (b'{"rows": [{"kind": 7}]}', "must be text"),
    (b'{"rows": ' + b"[" * 100_000, "nested too deeply"),
]


def test_bad_requests_and_ctrl_c(trained):
    server = started("serve", "--port", "0", "--project", trained, "--json")
    try:
        lines: list[str] = []
        while not lines or lines[-1] != "}\n":
            lines.append(server.stdout.readline())
            assert lines[-1], server.stderr.read()
        url = json.loads("".join(lines))["url"]
        for body, said in BODIES:
            code, text = asked(f"{url}/v1/models/shop/predict", body)
            assert (code, said in text) == (400, True), text
        assert asked(f"{url}/v1/models/shopp/predict", b"{}")[0] == 404
        assert asked(f"{url}/v1/models/shop/predict", b'{"rows": [{"amount": 3, "kind": "x"}]}')[0] == 200
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0
    finally:
        if server.poll() is None:
            server.terminate()
        server.communicate()


def asked(url: str, body: bytes) -> tuple[int, str]:
    call = urllib.request.Request(url, data=body, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(call, timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_ctrl_c_and_the_same_command_again(cumulant, project):
    process = started("train", "--trials", "3", "--project", project)
    try:
        while "search" not in (line := process.stderr.readline()):
            assert line, "the training ended before its search"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    if process.returncode != 0:  # it may have been quicker
        assert process.returncode == 130
        assert "Traceback" not in out + err
        assert "goes on from the last finished step" in err
        assert cumulant("runs", "list", "--project", project, "--json").document[0]["status"] == "interrupted"
    again = cumulant("train", "--trials", "3", "--project", project, "--json")
    assert again.code == 0, again.err
    assert "features" in again.document["reused"]
    assert cumulant("events", "verify", "--project", project).code == 0
    assert not list(project.rglob("*.part"))


def test_the_reader_of_the_output_may_leave(cumulant, trained):
    done = subprocess.run(
        f"'{sys.executable}' -m cumulant.cli events list --json --project '{trained}' | head -1",
        shell=True, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0
    assert not done.stderr
