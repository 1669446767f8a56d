"""The application: answers, metadata, and every way in which a request can be wrong."""

from __future__ import annotations

import asyncio
import json
import math

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_models import FIELDS, PLAIN, ROW, ask, call, model_of, servable

from cumulant.core.errors import NotFoundError, UsageError
from cumulant.servable.folder import with_version
from cumulant.servable.scorer import Scorer
from cumulant.serving.app import ServingApplication
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.models.row_model import late_warnings

PREDICT, INFER = "/v1/models/flight-late/predict", "/v2/models/flight-late/infer"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    return {task: servable(place / task, task) for task in ("binary", "multiclass", "regression")}


@pytest.fixture(scope="module")
def app(folders):
    return ServingApplication(ModelSet([open_model(folders["binary"])]), body_limit=100_000)


def application(folder):
    return ServingApplication(ModelSet([open_model(folder)]))


def tensors(rows):
    kinds = {str: "BYTES", float: "FP64", int: "INT64", bool: "BOOL"}
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return [
        {"name": name, "datatype": kinds[type(values[0])], "shape": [len(values)], "data": values}
        for name, values in columns.items()
    ]


def expected(folder, distance=500.0, hour=18, carrier="UA", charter=None):
    columns = {"distance": [distance], "hour": [hour], "carrier": [carrier], "charter": [charter]}
    return Scorer(folder).score(columns)[0]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PREDICT, []),
        (PREDICT, {"rows": []}),
        (PREDICT, {"rows": [], "reasons": 1}),
        (INFER, {"inputs": [{"name": "distance", "datatype": "FP64", "shape": [0], "data": []}]}),
        ("/invocations", {"dataframe_records": []}),
        ("/invocations", {"dataframe_split": {"columns": ["distance"], "data": []}}),
        ("/invocations", {"instances": []}),
        ("/invocations", {"inputs": []}),
        ("/invocations", {"inputs": {"distance": []}}),
    ],
)
def test_a_request_without_rows_is_refused(app, path, body):
    answer = call(app, "POST", path, body)
    assert (answer.status_code, "send one row or more" in answer.text) == (400, True), answer.text


def test_one_row(app, folders):
    answer = call(app, "POST", PREDICT, ROW, headers={"x-request-id": "abc-1"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    probability = expected(folders["binary"])
    assert answer.json() == {
        "prediction": bool(probability >= 0.45),
        "probability": probability,
        "model": "flight-late",
        "version": "1",
        "request_id": "abc-1",
    }


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"rows": rows}])
def test_several_rows_in_their_order(app, folders, wrap):
    rows = [ROW | {"distance": 100.0 * k} for k in range(5)]
    answer = call(app, "POST", PREDICT, wrap(rows)).json()
    assert answer["model"] == "flight-late"
    found = [one["probability"] for one in answer["predictions"]]
    assert found == [expected(folders["binary"], distance=100.0 * k) for k in range(5)]


def test_optional_fields_may_be_absent_or_null(app, folders):
    few = {"distance": 500, "sched_dep": "2013-04-01T22:00:00Z"}
    nulls = few | {"carrier": None, "tail": None, "seats": None, "charter": None, "day": None}
    first, second = (call(app, "POST", PREDICT, row).json()["probability"] for row in (few, nulls))
    assert first == second == expected(folders["binary"], carrier=None)


@pytest.mark.parametrize(
    "moment",
    [
        "2013-04-01T18:00:00",  # in the field's zone
        "2013-04-01T22:00:00Z",
        "2013-04-01T22:00:00.000+00:00",
        "2013-04-02T00:00:00+02:00",
        1364853600,
        1364853600.0,
    ],
)
def test_times_as_text_or_seconds(app, folders, moment):
    found = call(app, "POST", PREDICT, ROW | {"sched_dep": moment}).json()
    assert found["probability"] == expected(folders["binary"])


def test_infer_answers_as_predict(app):
    rows = [ROW, ROW | {"distance": 20.0}]
    plain = call(app, "POST", PREDICT, rows).json()["predictions"]
    answer = call(app, "POST", INFER, {"id": "q", "inputs": tensors(rows)}).json()
    assert answer == {
        "model_name": "flight-late",
        "model_version": "1",
        "id": "q",
        "outputs": [
            {"name": "prediction", "datatype": "BOOL", "shape": [2], "data": [one["prediction"] for one in plain]},
            {"name": "probability", "datatype": "FP64", "shape": [2], "data": [one["probability"] for one in plain]},
        ],
    }


def test_infer_takes_columns_of_width_one_nested_data_and_a_choice_of_outputs(app):
    inputs = tensors([ROW, ROW])
    for one in inputs:
        one["shape"], one["data"] = [2, 1], [[value] for value in one["data"]]
    answer = call(app, "POST", INFER, {"inputs": inputs, "outputs": [{"name": "probability"}]}).json()
    assert [one["name"] for one in answer["outputs"]] == ["probability"]
    assert "id" not in answer


def test_several_classes(folders):
    app = application(folders["multiclass"])
    answer = call(app, "POST", PREDICT, ROW).json()
    assert list(answer["probabilities"]) == ["early", "on time", "late"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert answer["probability"] == max(answer["probabilities"].values())
    (labels, table) = call(app, "POST", INFER, {"inputs": tensors([ROW, ROW])}).json()["outputs"]
    assert (labels["datatype"], table["shape"]) == ("BYTES", [2, 3])
    assert table["data"][:3] == list(answer["probabilities"].values())


def test_values(folders):
    app = application(folders["regression"])
    assert call(app, "POST", PREDICT, ROW).json()["prediction"] == expected(folders["regression"])
    (values,) = call(app, "POST", INFER, {"inputs": tensors([ROW])}).json()["outputs"]
    assert (values["name"], values["datatype"], values["shape"]) == ("prediction", "FP64", [1])


def test_health_server_and_model_metadata(app):
    assert call(app, "GET", "/v2/health/live").json() == {"live": True}
    assert call(app, "GET", "/v2/health/ready").json() == {"ready": True}
    assert call(app, "GET", "/v2").json()["name"] == "cumulant"
    index = call(app, "GET", "/").json()
    assert index["name"] == "cumulant"
    assert index["links"] == ["/v2", "/v1/models", "/metrics", "/openapi.json"]
    assert all(call(app, "GET", link).status_code == 200 for link in index["links"])
    assert call(app, "GET", "/v2/models/flight-late/ready").json() == {"name": "flight-late", "ready": True}
    found = call(app, "GET", "/v2/models/flight-late/versions/1").json()
    assert found["versions"] == ["1"]
    assert {one["name"]: one["datatype"] for one in found["inputs"]} == {
        "distance": "FP64",
        "sched_dep": "BYTES",
        "carrier": "BYTES",
        "tail": "BYTES",
        "seats": "INT64",
        "charter": "BOOL",
        "day": "BYTES",
    }
    assert [one["name"] for one in found["inputs"] if not one["parameters"]["optional"]] == ["distance", "sched_dep"]
    assert found["outputs"] == [
        {"name": "prediction", "datatype": "BOOL", "shape": [-1]},
        {"name": "probability", "datatype": "FP64", "shape": [-1]},
    ]
    (card,) = call(app, "GET", "/v1/models").json()["models"]
    assert card["example"] == ROW
    assert call(app, "POST", PREDICT, card["example"]).status_code == 200


def test_a_draining_server_is_not_ready(folders):
    app = application(folders["binary"])
    app.draining = True
    assert call(app, "GET", "/v2/health/ready").status_code == 503
    assert call(app, "GET", "/v2/health/live").status_code == 200
    assert call(app, "POST", PREDICT, ROW).status_code == 200


def test_versions(folders, tmp_path):
    for number in "12":
        with_version(servable(tmp_path / number), number)
    app = ServingApplication(ModelSet([open_model(tmp_path / "1"), open_model(tmp_path / "2")]))
    assert call(app, "GET", "/v2/models/flight-late").json()["versions"] == ["1", "2"]
    assert call(app, "POST", PREDICT, ROW).json()["version"] == "2"
    assert call(app, "POST", "/v1/models/flight-late/versions/1/predict", ROW).json()["version"] == "1"
    answer = call(app, "POST", "/v2/models/flight-late/versions/3/infer", {"inputs": []})
    assert (answer.status_code, answer.json()["error"]) == (
        404,
        'no version of flight-late named "3"; known: 1, 2',
    )
    with pytest.raises(UsageError, match="twice"):
        ModelSet([open_model(tmp_path / "1"), open_model(tmp_path / "1")])
    with pytest.raises(NotFoundError):
        open_model(tmp_path / "3")


def refused(answer, status, *words):
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    for word in words:
        assert word in answer.json()["error"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distence": 1.0}, ['no field "distence"', 'did you mean "distance"?']),
        ({"distance": None}, ["distance", "must not be null"]),
        ({"distance": "far"}, ["distance", "finite number", "'far'"]),
        ({"distance": True}, ["distance", "a boolean"]),
        ({"distance": 10**400}, ["distance", "finite number"]),
        ({"distance": [1]}, ["distance", "a list"]),
        ({"sched_dep": "yesterday"}, ["sched_dep", "a time such as"]),
        ({"sched_dep": None}, ["sched_dep", "must not be null"]),
        ({"sched_dep": "2013-03-10T02:30:00"}, ["sched_dep", "clocks of America/New_York skip this one"]),
        ({"sched_dep": 1e300}, ["sched_dep", "a time such as"]),
        ({"sched_dep": "9999-12-31T23:59:59-10:00"}, ["sched_dep", "a time such as"]),
        ({"carrier": 3}, ["carrier", "text"]),
        ({"carrier": {"a": 1}}, ["carrier", "an object"]),
        ({"seats": 1.5}, ["seats", "whole number"]),
        ({"seats": 2**63}, ["seats", "whole number"]),
        ({"charter": 1}, ["charter", "true or false"]),
        ({"day": "2013-13-01"}, ["day", "a date such as"]),
    ],
)
def test_a_field_that_does_not_fit(app, change, words):
    refused(call(app, "POST", PREDICT, ROW | change), 400, *words)
    refused(call(app, "POST", PREDICT, [ROW, ROW | change]), 400, "row 2: ", *words)
    assert call(app, "POST", PREDICT, ROW).status_code == 200


def test_personal_values_are_not_repeated(app):
    answer = call(app, "POST", PREDICT, ROW | {"tail": 123456789})
    refused(answer, 400, "tail", "must be text")
    assert "123456789" not in answer.text


def test_a_required_field_is_missing(app):
    refused(call(app, "POST", PREDICT, {"sched_dep": 0}), 400, 'field "distance" is required')


def test_all_missing_fields_are_named_at_once(app):
    refused(call(app, "POST", PREDICT, {}), 400, 'fields "distance", "sched_dep" are required')
    two = call(app, "POST", PREDICT, [ROW, {"distance": None}])
    refused(two, 400, 'row 2: field "sched_dep" is required; field "distance" must not be null')


def test_all_unknown_fields_are_named_at_once_and_few_of_many(app):
    two = call(app, "POST", PREDICT, ROW | {"distanc": 1, "zzz": 2})
    refused(two, 400, 'there are no fields "distanc", "zzz"; did you mean "distance" for "distanc"?')
    many = call(app, "POST", PREDICT, ROW | {f"zzz{number}": 1 for number in range(1000)})
    refused(many, 400, '"zzz9" and 990 more; known fields: ')
    assert len(many.text) < 1000


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ["the body is empty; send the fields of one row"]),
        (b" \n", ["the body is empty"]),
        (b"{", ["no valid JSON"]),
        (b"\xff\xfe", ["no valid JSON"]),
        (b'{"distance": NaN}', ["no valid JSON"]),
        (
            b'{"distance": 1e999}',
            ['the number of "distance" is beyond the range of a 64-bit float', "send a finite number"],
        ),
        (b"[" * 50_000, ["nested too deeply"]),
        (b'"text"', ["expected an object"]),
        (b"3", ["expected an object"]),
        (b"[1, 2]", ["row 1", "expected an object"]),
        (b'{"rows": 3}', ["rows"]),
        (b'{"rows": [[]]}', ["expected an object"]),
    ],
)
def test_a_body_that_is_no_row(app, body, words):
    refused(call(app, "POST", PREDICT, body), 400, *words)


def one_input(**change):
    return {"name": "distance", "datatype": "FP64", "shape": [1], "data": [1.0]} | change


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ["the body is empty", "inputs"]),
        (
            b'{"inputs": [{"name": "distance", "datatype": "FP64", "shape": [1], "data": [1e400]}]}',
            ['the number of "distance" is beyond'],
        ),
        ({}, ["inputs"]),
        ({"inputs": []}, ["no inputs"]),
        ({"inputs": [one_input(name="distanc")]}, ['did you mean "distance"?']),
        ({"inputs": [one_input(), one_input()]}, ["twice"]),
        ({"inputs": [one_input(datatype="BYTES")]}, ["datatype BYTES, expected FP64"]),
        ({"inputs": [one_input(datatype="FP128")]}, ["datatype FP128"]),
        ({"inputs": [one_input(shape=[])]}, ["shape"]),
        ({"inputs": [one_input(shape=[1, 2])]}, ["shape [1, 2], expected [n] or [n, 1]"]),
        ({"inputs": [one_input(shape=[-1])]}, ["shape"]),
        ({"inputs": [one_input(shape=[2])]}, ["1 values where its shape [2] needs 2"]),
        ({"inputs": [one_input(shape=[10**30])]}, ["distance"]),
        ({"inputs": [one_input(shape=[1] * 1000)]}, ["shape"]),
        ({"inputs": [one_input(shape="1")]}, ["shape"]),
        ({"inputs": [one_input(data=[[1.0], 2.0])]}, ["nested"]),
        ({"inputs": [one_input(data="1.0")]}, ["data"]),
        ({"inputs": [one_input(data=["far"])]}, ["finite number"]),
        ({"inputs": [one_input(datatype="INT64", data=[1.5])]}, ["no INT64"]),
        (
            {"inputs": [{"name": "distance", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}}]},
            ["binary"],
        ),
        ({"inputs": [{"name": "distance", "datatype": "FP64", "shape": [1]}]}, ["no data"]),
        ({"inputs": [one_input()], "outputs": [{"name": "probabilty"}]}, ['did you mean "probability"?']),
        ({"inputs": [one_input()], "id": 7}, ["id"]),
        ({"inputs": [one_input()], "id": "i" * 1000}, ["id"]),
        ({"inputs": [one_input()]}, ["sched_dep", "is required"]),
        (
            {"inputs": [one_input(), one_input(name="seats", datatype="INT64", shape=[2], data=[1, 2])]},
            ["different numbers"],
        ),
    ],
)
def test_tensors_that_do_not_fit(app, body, words):
    refused(call(app, "POST", INFER, body), 400, *words)


def test_paths_methods_and_encodings(app):
    refused(call(app, "POST", "/v1/models/flight-lat/predict", ROW), 404, 'did you mean "flight-late"?')
    refused(call(app, "GET", "/v2/models/other/ready"), 404, "other")
    for path in ("/v3", "/v2/models", "/v2/models/flight-late/infers", "/v2/models/flight-late/versions/1/x/y"):
        refused(call(app, "GET", path), 404)
    for path in (PREDICT[:-1], "/v2/models/flight-late/infers", "/v1/models/flight-late/ready"):
        refused(call(app, "POST", path, ROW), 404, f"there is nothing at {path}")
    refused(call(app, "POST", "/v2/models/flight-late/ready", ROW), 405, "GET")
    refused(call(app, "GET", PREDICT), 405, "POST")
    refused(call(app, "DELETE", "/v2/health/live"), 405, "GET")
    refused(call(app, "POST", PREDICT, b"\x1f\x8b", headers={"content-encoding": "br"}), 415)
    refused(call(app, "POST", INFER, b"{}", headers={"inference-header-content-length": "3"}), 400, "length")


def test_a_body_that_is_too_large(app):
    row = json.dumps(ROW).encode()
    assert call(app, "POST", PREDICT, row + b" " * (100_000 - len(row))).status_code == 200
    refused(call(app, "POST", PREDICT, row + b" " * 100_001), 413, "100000 bytes")

    async def chunks():
        for _ in range(200):
            yield b" " * 1000

    refused(call_stream(app, chunks()), 413)


def call_stream(app, content):
    return asyncio.run(ask(app, "POST", PREDICT, content=content))


@pytest.mark.parametrize("name", ["x\u00e9", "a" * 1000, ""])
def test_a_request_id_that_is_no_short_plain_text_is_replaced(app, name):
    found = call(app, "POST", PREDICT, ROW, headers={b"x-request-id": name.encode()})
    assert len(found.json()["request_id"]) == 16
    assert "x-request-id" not in found.headers


def test_metrics_count_what_was_answered(folders):
    app = application(folders["binary"])
    call(app, "POST", PREDICT, [ROW] * 3)
    call(app, "POST", PREDICT, {})
    text = call(app, "GET", "/metrics").text
    labels = 'model="flight-late",version="1",arm="",endpoint="predict"'
    assert f'cumulant_requests_total{{{labels},status="200"}} 1' in text
    assert f'cumulant_requests_total{{{labels},status="400"}} 1' in text
    assert 'cumulant_rows_total{model="flight-late",version="1"} 3' in text
    assert f"cumulant_request_seconds_count{{{labels}}} 2" in text


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
row_like = st.dictionaries(st.sampled_from([*ROW, "seats", "charter", "day", "x"]), anything, max_size=6)
tensor_like = st.fixed_dictionaries(
    {
        "inputs": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from([*ROW, "x"]),
                    "datatype": st.sampled_from(["FP64", "INT64", "BYTES", "BOOL", "FP16", ""]),
                    "shape": st.lists(st.integers(-1, 3), max_size=3),
                    "data": st.lists(anything, max_size=3),
                }
            ),
            max_size=3,
        )
    }
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(body=anything | row_like | tensor_like | st.binary(max_size=50), path=st.sampled_from([PREDICT, INFER]))
def test_no_body_makes_a_fault_of_the_server(app, body, path):
    answer = call(app, "POST", path, body)
    assert answer.status_code in {200, 400}
    if answer.status_code == 400:
        assert list(answer.json()) == ["error"]
    else:
        assert not any(math.isnan(one) for one in answer.json().values() if isinstance(one, float))


def test_the_answer_is_that_of_the_trained_model(app):
    import polars as pl

    frame = pl.DataFrame({"distance": [500.0], "hour": [18], "carrier": ["UA"], "charter": [None]})
    found = call(app, "POST", PREDICT, ROW).json()["probability"]
    assert found == pytest.approx(model_of("binary").predict_frame(frame)[0], abs=1e-12)


UNREAD = {"arr_delay": "late", "late": "target", "gate": "unused"}


@pytest.fixture(scope="module")
def knowing(tmp_path_factory):
    """A model that knows which columns its training rows had besides the request's fields."""
    return application(servable(tmp_path_factory.mktemp("knowing") / "model", unread=UNREAD))


def test_columns_of_the_training_rows_are_ignored_with_a_warning(knowing):
    plain = call(knowing, "POST", PREDICT, ROW).json()
    assert "warnings" not in plain
    found = call(knowing, "POST", PREDICT, ROW | {"gate": "B2", "arr_delay": 12, "late": True}).json()
    assert found["probability"] == plain["probability"]
    assert found["warnings"] == [
        "arr_delay is not known at the moment of prediction and was ignored; leave it out",
        "late is what the model predicts and was ignored; leave it out",
        "gate is not read by the model and was ignored; leave it out",
    ]
    several = call(knowing, "POST", PREDICT, [ROW, ROW | {"gate": None}]).json()
    assert [one["probability"] for one in several["predictions"]] == [plain["probability"]] * 2
    assert several["warnings"] == found["warnings"][2:]
    assert "warnings" not in call(knowing, "POST", PREDICT, [ROW, ROW]).json()


def test_tensors_of_such_columns_are_ignored_with_a_warning(knowing):
    more = {"name": "arr_delay", "datatype": "FP64", "shape": [1], "data": [12.0]}
    plain = call(knowing, "POST", INFER, {"inputs": tensors([ROW])}).json()
    found = call(knowing, "POST", INFER, {"inputs": [more, *tensors([ROW])]}).json()
    assert found["outputs"] == plain["outputs"]
    assert "parameters" not in plain
    assert found["parameters"]["warnings"].startswith("arr_delay is not known at the moment of prediction")


def test_a_misspelt_field_is_refused_all_the_same(knowing):
    refused(call(knowing, "POST", PREDICT, ROW | {"arr_dellay": 1}), 400, 'no field "arr_dellay"')
    refused(call(knowing, "POST", PREDICT, ROW | {"distence": 1}), 400, 'did you mean "distance"?')


@pytest.mark.parametrize("row", [{}, {"arr_delay": 12}])
def test_a_row_without_any_field_is_refused(tmp_path, row):
    free = msgspec.structs.replace(
        PLAIN, predict_at=None, request=tuple(msgspec.structs.replace(field, nullable=True) for field in FIELDS)
    )
    app = application(servable(tmp_path / "model", plan=free, unread=UNREAD))
    expected_fields = "expected fields: distance, sched_dep, carrier"
    refused(call(app, "POST", PREDICT, row), 400, "none of the model's fields", expected_fields)
    refused(call(app, "POST", PREDICT, [ROW, row]), 400, "row 2: ", expected_fields)
    assert call(app, "POST", PREDICT, {"carrier": None}).status_code == 200
    assert call(app, "POST", PREDICT, {"carrier": "UA"}).status_code == 200


@pytest.mark.parametrize(("task", "classes"), [("binary", ("0", "1")), ("multiclass", ("-1", "0", "2"))])
def test_classes_that_are_whole_numbers_are_answered_as_numbers(tmp_path, task, classes):
    model = model_of(task)
    model.card = msgspec.structs.replace(model.card, classes=classes)
    app = application(servable(tmp_path / "model", task, model=model, whole=True))
    found = [call(app, "POST", PREDICT, ROW | {"distance": value}).json() for value in (0.0, 900.0, 5000.0)]
    assert {type(one["prediction"]) for one in found} == {int}
    assert {one["prediction"] for one in found} <= set(map(int, classes))
    if task == "multiclass":
        assert list(found[0]["probabilities"]) == list(classes)
    (labels, _) = call(app, "POST", INFER, {"inputs": tensors([ROW])}).json()["outputs"]
    assert labels["datatype"] == "INT64"
    assert type(labels["data"][0]) is int
    announced = call(app, "GET", "/v2/models/flight-late").json()["outputs"][0]
    assert announced == {"name": "prediction", "datatype": "INT64", "shape": [-1]}
    texts = application(servable(tmp_path / "texts", task, model=model))
    assert call(texts, "POST", PREDICT, ROW).json()["prediction"] in classes


def test_warnings_count_rows_from_1():
    assert late_warnings([None, 0, 5])[0].startswith("rows 2, 3: the prediction is for a moment before 1970-01-01")
