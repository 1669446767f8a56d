"""Predictions that were logged elsewhere: in the log once, and joined like any other."""

import json
from datetime import UTC, datetime

import pytest
from outcomes_support import NOW, SALT, opened, put, tell

from cumulant.core.errors import DataError, UsageError
from cumulant.core.masking import mask
from cumulant.core.plan import Field
from cumulant.outcomes.importing import Defaults, import_predictions
from cumulant.outcomes.join.prediction_losses import class_probabilities
from cumulant.outcomes.labels.label_files import read_numbered_batches
from cumulant.serving.prediction_log.storage.log_reader import find_gaps, find_predictions
from cumulant.serving.prediction_log.storage.scanning import scan
from cumulant.testing.log import folder_log

NAMES = {"id": "request", "time": "at", "score": "p", "prediction": "said", "event_time": "at"}
CSV = """request,at,p,said,card,number
x1,2026-10-01T10:00:00Z,0.75,true,4000,7
x2,2026-10-02T10:00:00Z,0.25,false,,8
,2026-10-02T10:00:00Z,0.25,false,4002,8
x4,never,0.25,false,4002,8
"""


FIELDS = {
    "card": Field("card", "str", personal=True),
    "amount": Field("amount", "float"),
    "count": Field("count", "int"),
    "new": Field("new", "bool"),
    "zip": Field("zip", "str"),
}


def bring(tmp_path, text=CSV, names=NAMES, **options):
    path = tmp_path / "old.csv"
    path.write_text(text)
    return import_predictions(
        folder_log(tmp_path / "log"),
        path,
        names,
        Defaults(model="m", version="7"),
        fields=FIELDS,
        salt=SALT,
        **options,
    )


def test_rows_come_into_the_log_once(tmp_path):
    found = bring(tmp_path)
    assert (found.rows, found.refused, found.again) == (2, 2, False)
    assert bring(tmp_path).again
    (one,) = find_predictions(folder_log(tmp_path / "log"), "x1")
    assert (one.model, one.version, json.loads(one.outputs)) == ("m", "7", {"prediction": True, "probability": 0.75})
    assert json.loads(one.request) == {"card": mask("4000", SALT), "number": "7"}
    assert find_gaps(folder_log(tmp_path / "log")) == []


def test_rows_that_were_answered_in_the_future_stay_out_of_the_log(tmp_path):
    until = datetime(2026, 10, 1, 12, tzinfo=UTC)
    found = bring(tmp_path, until=until)
    assert (found.rows, found.refused, found.future) == (1, 3, 1)
    assert find_predictions(folder_log(tmp_path / "log"), "x2") == []
    assert [one.name for one in (tmp_path / "log").iterdir() if "2026-10-02" in one.name] == []


def test_a_file_of_which_nothing_came_in_may_be_imported_with_other_names(tmp_path):
    text = CSV.replace("number", "answered").replace(",7", ",2026-09-30").replace(",8", ",2026-09-30")
    until = datetime(2026, 9, 30, 12, tzinfo=UTC)
    assert bring(tmp_path, text, until=until).rows == 0
    found = bring(tmp_path, text, NAMES | {"time": "answered"}, until=until)
    assert (found.rows, found.again) == (3, False)


def test_texts_of_a_csv_file_get_the_types_of_a_request(tmp_path):
    text = "request,at,p,amount,count,new,zip\n" + "".join(
        f"x{place},2026-10-01,0.5,{cells}\n"
        for place, cells in enumerate(["19.6,9007199254740993,true,01234", "7,,0,1", "much,1.5,yes,"])
    )
    bring(tmp_path, text, {"id": "request", "time": "at", "score": "p"})
    asked = [json.loads(find_predictions(folder_log(tmp_path / "log"), f"x{place}")[0].request) for place in range(3)]
    assert asked[0] == {"amount": 19.6, "count": 9007199254740993, "new": True, "zip": "01234"}
    assert (asked[1]["amount"], asked[1].get("count"), asked[1]["new"], asked[1]["zip"]) == (7.0, None, False, "1")
    # What is no value of the type stays as it was said, so that a look at the data can name it.
    assert (asked[2]["amount"], asked[2]["count"], asked[2]["new"]) == ("much", 1.5, "yes")


def test_probabilities_of_several_classes_are_kept_by_their_names(tmp_path):
    names = {"id": "request", "time": "at", "prediction": "said", "probabilities": "each"}
    text = """request,at,said,each
x0,2026-10-01,low,"{""low"": 0.7, ""high"": 0.3}"
x1,2026-10-01,high,"{""low"": ""0.4"", ""high"": 0.6, ""odd"": null}"
x2,2026-10-01,high,0.6
x3,2026-10-01,low,not JSON
"""
    assert bring(tmp_path, text, names).rows == 4
    said = [json.loads(find_predictions(folder_log(tmp_path / "log"), f"x{place}")[0].outputs) for place in range(4)]
    assert said[0] == {"prediction": "low", "probability": 0.7, "probabilities": {"low": 0.7, "high": 0.3}}
    assert said[1] == {"prediction": "high", "probability": 0.6, "probabilities": {"low": 0.4, "high": 0.6}}
    assert said[2:] == [{"prediction": "high"}, {"prediction": "low"}]
    assert [class_probabilities(one, ("high", "low", "odd")) for one in said[1:3]] == [
        pytest.approx([0.6, 0.4, float("nan")], nan_ok=True),
        None,
    ]


def test_a_key_stays_in_the_request_also_where_it_is_the_id(tmp_path):
    names = {"id": "request", "time": "at", "score": "p"}
    bring(tmp_path, "request,at,p,card\nx1,2026-10-01,0.5,4000\n", names, key=("request",))
    assert json.loads(find_predictions(folder_log(tmp_path / "log"), "x1")[0].request) == {
        "request": "x1",
        "card": mask("4000", SALT),
    }


def test_cut_off_after_some_files_it_is_the_same_in_the_end(tmp_path):
    bring(tmp_path)
    for path in (tmp_path / "log" / "imports").iterdir():
        path.unlink()
    assert bring(tmp_path).rows == 2
    assert scan(folder_log(tmp_path / "log")).dataset.count_rows() == 2


def test_imported_predictions_are_joined(tmp_path):
    bring(tmp_path)
    put(tmp_path / "log", {"id": "x9"})
    tell(tmp_path / "outcomes", {"id": "x1", "label": True, "known_time": "2026-10-09"}, {"id": "x9", "label": 0})
    outcomes = opened(tmp_path)
    assert outcomes.advance().labelled == 2
    assert sorted(outcomes.labelled()[0].select("id", "version", "score").rows()) == [
        ("x1", "7", 0.75),
        ("x9", "1", 0.25),
    ]
    assert NOW is not None


def test_what_cannot_be_imported(tmp_path):
    with pytest.raises(UsageError, match="are not named"):
        bring(tmp_path, names={"id": "request", "time": "at"})
    with pytest.raises(UsageError, match="is no part"):
        bring(tmp_path, names={**NAMES, "skore": "p"})
    with pytest.raises(DataError, match="has no column q"):
        bring(tmp_path, names={**NAMES, "score": "q"})
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("name", ["old.csv", "old.jsonl"])
def test_batches_end_by_bytes_too(tmp_path, monkeypatch, name):
    monkeypatch.setattr("cumulant.outcomes.labels.label_files._BATCH", 30)
    rows = ["x" * 20] * 5 if name == "old.csv" else [json.dumps("x" * 20)] * 5
    (tmp_path / name).write_text("\n".join(["a", *rows] if name == "old.csv" else rows))
    batches = list(read_numbered_batches(tmp_path / name))
    assert [len(batch.rows) for batch in batches] == [2, 2, 1]
    assert [line - (name == "old.csv") for batch in batches for line in batch.lines] == [1, 2, 3, 4, 5]
