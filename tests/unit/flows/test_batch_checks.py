"""Rows of a file are checked as the server checks requests: counted by rule, or refused."""

from __future__ import annotations

import errno
import math
import os
import sys
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from cumulant.core.errors import RequestError, StorageError
from cumulant.core.servable import FieldRule
from cumulant.data.spec import SourceSpec
from cumulant.flows.serving.batch import batch_model
from cumulant.flows.serving.batch.answer_parts import AnswerParts
from cumulant.flows.serving.batch.flow import BatchRequest, predict_file
from cumulant.serving.models.model import open_model

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
from serving_models import ROW, servable

RULES = {
    "distance": FieldRule(min=0, max=5000.0),
    "carrier": FieldRule(members=("AA", "UA", "BB")),
    "tail": FieldRule(pattern=r"^N\d+", declared_pattern=r"^N\d+"),
    "seats": FieldRule(required=True, min=1),
    "sched_dep": FieldRule(min="2013-01-01T00:00:00+00:00"),
    "charter": FieldRule(members=(False,)),
}
GOOD = {**ROW, "sched_dep": "2013-04-01T18:00:00Z", "seats": 150, "day": "2013-04-01", "charter": False}
#: every tenth row is broken in one way or more
BAD = [
    {"distance": -5.0},
    {"carrier": "ZZ"},
    {"carrier": "BB"},
    {"tail": "X1"},
    {"tail": None},
    {"seats": None},
    {"seats": 0, "distance": 6000.0},
    {"sched_dep": "2012-01-01T00:00:00Z"},
    {"charter": True, "carrier": None},
    {"day": None},
]
ROWS = [GOOD | (BAD[number // 10 % len(BAD)] if number % 10 == 9 else {}) for number in range(200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    complete = ("carrier", "tail", "day", "seats")
    return servable(tmp_path_factory.mktemp("checked") / "model", rules=RULES, closed=("carrier",), complete=complete)


def scored(folder, rows, out, *, refuse=False):
    given = out.with_name(f"in-{out.name}")
    if rows is not None:
        rows.write_parquet(given)
    model = batch_model._rows(folder, SourceSpec(), [], batch_model._History({}, {}), refuse_invalid=refuse)
    return predict_file(model, BatchRequest(input=str(given), output=out, part_rows=30, threads=1))


def frame(rows):
    return pl.DataFrame(rows, schema_overrides={"distance": pl.Float64}).with_columns(pl.col("day").str.to_date())


def counts(warnings):
    """The words of each warning to its rows, by a server that names them, or a file that counts them."""
    found = {}
    for text in warnings:
        rows, _, words = text.partition(": ")
        found[words] = int(rows.split()[0]) if " of " in rows else rows.count(",") + 1
    return found


def test_a_file_warns_of_what_the_server_warns_of_by_rows_and_answers_all(tmp_path, folder):
    found = scored(folder, frame(ROWS), tmp_path / "out.parquet")
    assert found.rows == len(ROWS)
    assert all(" of 200 rows: " in warning for warning in found.warnings)
    model, server = open_model(folder), {}
    for row in ROWS:
        for text in model.from_rows([row]).warnings:
            server[text] = server.get(text, 0) + 1
    model.close()
    assert counts(found.warnings) == server
    assert "2 of 200 rows: tail is missing, which it was in no row of training" in found.warnings
    unseen = "2 of 200 rows: carrier has a value that the model has not seen, which it takes for a missing one"
    assert unseen in found.warnings, "BB keeps the contract, ZZ breaks it"
    assert scored(folder, frame([GOOD] * 50), tmp_path / "good.parquet").warnings == ()


def test_a_file_warns_of_numbers_that_were_never_negative(tmp_path):
    folder = servable(tmp_path / "model", nonnegative=("distance", "seats"))
    rows = frame([GOOD, GOOD | {"distance": -3.0}, GOOD | {"distance": None}]).drop("seats")
    found = scored(folder, rows, tmp_path / "out.parquet")
    assert found.warnings == ("1 of 3 rows: distance is negative, which it was in no row of training",)


def test_a_number_that_features_take_for_missing_is_told_as_missing(tmp_path):
    folder = servable(tmp_path / "model", complete=("distance",))
    rows = frame([GOOD | {"distance": value} for value in (1.0, None, math.inf, -math.inf, math.nan)])
    found = scored(folder, rows, tmp_path / "out.parquet")
    assert found.warnings == ("4 of 5 rows: distance is missing, which it was in no row of training",)


def test_a_column_that_is_absent_is_missing_in_each_row(tmp_path, folder):
    found = scored(folder, frame([GOOD] * 40).drop("carrier", "seats"), tmp_path / "out.parquet")
    assert sorted(found.warnings) == [
        "40 of 40 rows: carrier is missing, which it was in no row of training",
        "40 of 40 rows: seats breaks the data contract: it must not be null, blank or infinite",
    ]


@pytest.mark.parametrize("blank", ["", " ", "\u00a0", "\u3000", "\x1f"])
def test_a_blank_text_is_missing_wherever_it_is_among_the_others_in_order(tmp_path, blank, capfd):
    folder = servable(tmp_path / "model", rules={"tail": FieldRule(required=True)})
    rows = [GOOD | {"tail": text} for text in ("\x01", "N1", blank, "\U0001f600", blank)]
    found = scored(folder, frame(rows), tmp_path / "out.parquet")
    assert found.warnings == ("2 of 5 rows: tail breaks the data contract: it must not be null, blank or infinite",)
    assert "Deprecation" not in capfd.readouterr().err, "Polars writes its warnings to the terminal by itself"
    model = open_model(folder)
    assert [bool(model.from_rows([row]).warnings) for row in rows] == [row["tail"] == blank for row in rows]
    model.close()


@pytest.mark.parametrize(
    ("row", "change", "says"),
    [
        (73, {"distance": -5.0}, 'field "distance" must be at least 0, got -5.0 (rule distance:min)'),
        (2, {"tail": "secret"}, r'field "tail" must match ^N\d+ (rule tail:pattern)'),
        (99, {"seats": None}, 'field "seats" must not be null, blank or infinite (rule seats:nulls)'),
    ],
)
def test_where_the_server_refuses_the_file_is_refused_at_its_first_row(tmp_path, folder, row, change, says):
    rows = [GOOD] * 120
    rows[row] = rows[row + 1] = GOOD | change
    with pytest.raises(RequestError) as caught:
        scored(folder, frame(rows), tmp_path / "out.parquet", refuse=True)
    assert caught.value.message == f"row {row + 1}: {says}"
    assert "leave the rows out" in caught.value.hint
    assert not (tmp_path / "out.parquet").exists()
    only_unusual = [GOOD, GOOD | {"carrier": "BB", "day": None}]
    assert len(scored(folder, frame(only_unusual), tmp_path / "unusual.parquet", refuse=True).warnings) == 2


def test_a_call_that_goes_on_counts_the_rows_of_the_parts_before_it(tmp_path, folder, monkeypatch):
    whole = scored(folder, frame(ROWS), tmp_path / "whole.parquet")
    write = AnswerParts.write

    def full(*_args, **_settings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def failing(self, file, number, *rest):
        if number == 4:
            monkeypatch.setattr(pq, "write_table", full)
        write(self, file, number, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(AnswerParts, "write", failing)
        with pytest.raises(StorageError):
            scored(folder, frame(ROWS), tmp_path / "out.parquet")
    monkeypatch.undo()
    again = scored(folder, None, tmp_path / "out.parquet")
    assert again.reused_parts == 4
    assert sorted(again.warnings) == sorted(whole.warnings)
