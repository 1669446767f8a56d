"""Features, `prepare` and trainers of a user that cannot be used, and targets that cannot be learned."""

from __future__ import annotations

import random

import pytest
from wrong_input_support import FEATURES, HEADER, changed, orders, refused, table, write

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (FEATURES + "x = 1 / 0\n", 4, ("features.py:5: the features file raised ZeroDivisionError",)),
        (FEATURES + "def (:\n", 2, ("features.py:5: this is not Python",)),
        (FEATURES + "import nosuchmodule\n", 4, ("No module named 'nosuchmodule'",)),
        (FEATURES + "raise SystemExit(0)\n", 4, ("SystemExit",)),
        (FEATURES.replace("import col", "import coll"), 4, ("features.py:1", "cannot import name 'coll'")),
        (FEATURES.replace("rows.columns", "rows.colums"), 4, ("features.py:4", 'did you mean "columns"?')),
        (FEATURES.replace("rows.columns", "row.columns"), 2, ("features.py:4", 'did you mean "rows"?')),
        (
            FEATURES.replace("import col", "import lit") + 'twice = col("amount") * 2\n',
            2,
            ("features.py:", "add `from cumulant.features import col"),
        ),
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
        ("own.py:nothing", 2, ("returns nothing",)),
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
