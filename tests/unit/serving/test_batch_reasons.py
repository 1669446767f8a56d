"""Reasons beside the answers of a file: those that a server gives, bit for bit, in every format."""

from __future__ import annotations

import json

import polars as pl
import pytest
from serving_graphs import scale
from serving_models import call, servable

from cumulant.core.errors import RequestError
from cumulant.core.servable import Reasons
from cumulant.flows.serving.batch.batch_model import load_folder
from cumulant.flows.serving.batch.flow import BatchRequest, predict_file
from cumulant.serving.app import ServingApplication
from cumulant.serving.models.model import ModelSet, open_model

REFERENCE = {"distance": 800.0, "hour": 9.0, "carrier": "AA", "charter": False}
CODED = Reasons(count=2, reference=REFERENCE, codes={"distance": "It is a long way"})
TASKS = ("binary", "multiclass", "regression")
ROWS = [
    {
        "distance": 100.0 + 7 * k,
        "sched_dep": f"2013-04-01T{k % 24:02}:00:00",
        "carrier": ("AA", "UA", None)[k % 3],
        "charter": (True, False, None)[k % 3],
    }
    for k in range(40)
] + [{"distance": 800.0, "sched_dep": "2013-04-01T09:00:00", "carrier": "AA", "charter": False}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("explained")
    return {task: servable(place / task, task, reasons=CODED) for task in TASKS}


def answered(model, out, reasons, *, part_rows=9):
    given = out.parent / "rows.jsonl"
    given.write_text("\n".join(map(json.dumps, ROWS)))
    request = BatchRequest(input=str(given), output=out, part_rows=part_rows, threads=2)
    return predict_file(load_folder(model, [], reasons), request)


def served(folder, count):
    app = ServingApplication(ModelSet([open_model(folder)]))
    body = {"rows": ROWS, "reasons": count}
    return [one["reasons"] for one in call(app, "POST", "/v1/models/flight-late/predict", body).json()["predictions"]]


@pytest.mark.parametrize("task", TASKS)
def test_they_are_those_of_a_server(tmp_path, folders, task):
    answered(folders[task], tmp_path / "out.parquet", 3)
    found = pl.read_parquet(tmp_path / "out.parquet")["reasons"].to_list()
    told = [[{name: value for name, value in one.items() if value is not None} for one in row] for row in found]
    assert told == served(folders[task], 3)
    assert len(told[0]) == 3
    assert told[-1] == []


def test_a_model_with_many_features_is_asked_in_pieces(tmp_path, folders, monkeypatch):
    answered(folders["binary"], tmp_path / "whole.parquet", 4)
    monkeypatch.setattr("cumulant.serving.reasons.reasoning.MOST_ROWS", 10)
    answered(folders["binary"], tmp_path / "pieces.parquet", 4)
    assert pl.read_parquet(tmp_path / "pieces.parquet").equals(pl.read_parquet(tmp_path / "whole.parquet"))


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_in_text_they_are_json(tmp_path, folders, suffix):
    answered(folders["binary"], tmp_path / "out.parquet", 2)
    answered(folders["binary"], out := tmp_path / f"out.{suffix}", 2)
    expected = pl.read_parquet(tmp_path / "out.parquet")["reasons"].to_list()
    if suffix == "csv":
        assert [json.loads(one) for one in pl.read_csv(out)["reasons"]] == expected
    else:
        assert [json.loads(line)["reasons"] for line in out.read_text().splitlines()] == expected


def test_no_column_for_texts_that_there_are_not(tmp_path):
    plain = servable(tmp_path / "model", reasons=Reasons(reference=REFERENCE))
    answered(plain, tmp_path / "out.parquet", 1)
    fields = [field.name for field in pl.read_parquet_schema(tmp_path / "out.parquet")["reasons"].inner.fields]  # type: ignore[attr-defined]
    assert fields == ["feature", "contribution", "direction"]


def test_answers_are_the_same_with_and_without_and_another_number_starts_over(tmp_path, folders):
    answered(folders["binary"], tmp_path / "without.parquet", None)
    answered(folders["binary"], tmp_path / "with.parquet", 1)
    without = pl.read_parquet(tmp_path / "without.parquet")
    assert pl.read_parquet(tmp_path / "with.parquet").drop("reasons").equals(without)
    one, two = (load_folder(folders["binary"], [], count).identity for count in (1, 2))
    assert one != two


@pytest.mark.parametrize("count", [5, -1])
def test_more_than_there_are_features(folders, count):
    with pytest.raises(RequestError, match="whole number from 0 to 4"):
        load_folder(folders["binary"], [], count)


def test_models_without_reasons(tmp_path, folders):
    for folder in (servable(tmp_path / "plain"), scale(tmp_path / "graph")):
        with pytest.raises(RequestError, match="gives no reasons") as caught:
            load_folder(folder, [], 1)
        assert "packaged from elsewhere" in caught.value.hint


def test_a_field_that_the_model_reads_may_be_kept(tmp_path, folders):
    given = tmp_path / "rows.jsonl"
    given.write_text("\n".join(map(json.dumps, ROWS)))
    predict_file(
        load_folder(folders["binary"], ["distance"]), BatchRequest(input=str(given), output=tmp_path / "o.csv")
    )
    assert pl.read_csv(tmp_path / "o.csv").columns == ["sched_dep", "distance", "prediction", "probability"]
