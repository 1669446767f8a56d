"""Rules of the data contract, for requests over every protocol."""

from __future__ import annotations

import asyncio
import json
import struct

import grpc
import httpx
import msgspec
import polars as pl
import pytest
from serving_models import ROW, call, servable
from test_serving_app import INFER, PREDICT, tensors
from test_serving_recording import serving

from cumulant.core.servable import FieldRule
from cumulant.flows.serving import server_client as http_client
from cumulant.packaging.input_warnings import complete_fields, nonnegative_fields
from cumulant.serving.app import ServingApplication
from cumulant.serving.grpc.messages import message_class
from cumulant.serving.grpc.server import start
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.prediction_log.storage.log_reader import find_predictions
from cumulant.serving.protocol.request_rules import RequestRules
from cumulant.testing.log import folder_log

RULES = {
    "distance": FieldRule(min=0, max=5000.0),
    "carrier": FieldRule(members=("AA", "UA", "BB")),
    "tail": FieldRule(pattern=r"(?a)^N\d+\Z", declared_pattern=r"^N\d+$"),
    "seats": FieldRule(required=True, min=1),
    "sched_dep": FieldRule(min="2013-01-01T00:00:00+00:00"),
    "day": FieldRule(max="2020-01-01"),
    "charter": FieldRule(members=(False,)),
}
GOOD = {**ROW, "seats": 150, "day": "2013-04-01", "charter": False}
BAD = [
    ({"distance": -5.0}, "distance:min", "be at least 0"),
    ({"distance": 5001.0}, "distance:max", "be at most 5000"),
    ({"carrier": "ZZ"}, "carrier:in", "be one of AA, UA, BB"),
    ({"tail": "N1\n"}, "tail:pattern", r"match ^N\d+$"),
    ({"seats": None}, "seats:nulls", "not be null"),
    ({"seats": 0}, "seats:min", "be at least 1"),
    ({"sched_dep": "2012-12-31T23:00:00Z"}, "sched_dep:min", "be at least 2013-01-01"),
    ({"day": "2020-01-02"}, "day:max", "be at most 2020-01-01"),
    ({"charter": True}, "charter:in", "be one of False"),
]
EDGES = [
    {"distance": 0},
    {"distance": 5000},
    {"distance": 0.0},
    {"sched_dep": "2013-01-01T00:00:00Z"},
    {"day": None},
    {"tail": None},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return servable(tmp_path_factory.mktemp("rules") / "model", rules=RULES, closed=("carrier",))


@pytest.fixture
def warning(folder):
    return ServingApplication(ModelSet([open_model(folder)]))


@pytest.fixture
def refusing(folder):
    return ServingApplication(ModelSet([open_model(folder, refuse_invalid=True)]))


@pytest.mark.parametrize("value", [None, "", "  "])
def test_blank_text_is_no_value_of_a_field_that_may_not_be_null(tmp_path, value):
    model = servable(tmp_path / "model", rules={"tail": FieldRule(required=True)})
    app = ServingApplication(ModelSet([open_model(model, refuse_invalid=True)]))
    refused = call(app, "POST", PREDICT, GOOD | {"tail": value})
    assert refused.status_code == 422
    assert "tail" in refused.text


def test_a_number_format_is_on_the_card_and_asks_nothing_of_a_request(tmp_path):
    rules = {"distance": FieldRule(number_format="1.234,5")}
    model = open_model(servable(tmp_path / "model", rules=rules), refuse_invalid=True)
    app = ServingApplication(ModelSet([model]))
    assert call(app, "POST", PREDICT, GOOD).status_code == 200
    (field,) = [one for one in model.card()["request"] if "number_format" in one]  # type: ignore[attr-defined]
    assert (field["name"], field["number_format"]) == ("distance", "1.234,5")
    card = msgspec.convert(msgspec.to_builtins(model.card()), http_client._Card)
    columns = [one["name"] for one in model.card()["request"]]  # type: ignore[attr-defined]
    values = {**{name: "" if GOOD[name] is None else GOOD[name] for name in columns}, "distance": "1.234"}
    pl.DataFrame([values]).write_csv(tmp_path / "rows.csv")
    assert http_client._rows(card, tmp_path / "rows.csv")["distance"].to_list() == [1234.0]


def test_a_field_that_training_never_lacked_is_warned_of_where_it_is_missing(tmp_path):
    rules = {"seats": FieldRule(required=True)}
    folder = servable(tmp_path / "model", rules=rules, complete=("carrier", "seats", "distance"))
    for refuse in (False, True):
        app = ServingApplication(ModelSet([open_model(folder, refuse_invalid=refuse)]))
        assert "warnings" not in call(app, "POST", PREDICT, GOOD | {"tail": None}).json()
        for sent in (GOOD | {"carrier": None}, {name: GOOD[name] for name in GOOD if name != "carrier"}):
            told = call(app, "POST", PREDICT, [GOOD, sent]).json()["warnings"]
            assert told == ["row 2: carrier is missing, which it was in no row of training"]
        assert counts(app) == {"carrier:missing": 2}
        assert call(app, "POST", PREDICT, GOOD | {"seats": None}).status_code == (422 if refuse else 200)


def test_a_number_that_was_never_negative_is_warned_of_where_it_is(tmp_path):
    rules = {"seats": FieldRule(min=1)}
    folder = servable(tmp_path / "model", rules=rules, nonnegative=("seats", "distance"))
    for refuse in (False, True):
        app = ServingApplication(ModelSet([open_model(folder, refuse_invalid=refuse)]))
        assert "warnings" not in call(app, "POST", PREDICT, [GOOD, GOOD | {"distance": None}]).json()
        told = call(app, "POST", PREDICT, [GOOD, GOOD | {"distance": -1.5}]).json()["warnings"]
        assert told == ["row 2: distance is negative, which it was in no row of training"]
        assert counts(app) == {"distance:negative": 1}
        negative = call(app, "POST", PREDICT, GOOD | {"seats": -1})
        assert negative.status_code == (422 if refuse else 200)
        assert "negative, which" not in str(negative.json())  # the contract says what it is


class Recorder:
    """Takes the rows that are to be stored for later ones."""

    skewed = False

    def __init__(self):
        self.rows = []

    def record_scored(self, model, rows):
        self.rows += rows


def test_a_row_that_breaks_a_rule_is_answered_and_not_stored_for_later_ones(warning):
    warning.score.recorder = recorder = Recorder()
    unusual = GOOD | {"tail": "N99999"}
    answered = call(warning, "POST", PREDICT, [GOOD, GOOD | {"distance": -5.0}, unusual, GOOD | {"tail": "N1\n"}])
    assert answered.status_code == 200
    assert [(row["distance"], row["tail"]) for row in recorder.rows] == [
        (GOOD["distance"], GOOD["tail"]),
        (GOOD["distance"], "N99999"),
    ]


def test_a_field_is_nonnegative_by_many_rows():
    lowest = {"a": 0, "b": -0.1, "c": None, "d": 3.5}
    assert nonnegative_fields(lowest, dict.fromkeys(lowest, 300)) == ("a", "d")
    assert nonnegative_fields(lowest, dict.fromkeys(lowest, 300) | {"a": 299}) == ("d",)


def test_a_field_is_complete_by_many_rows_without_a_null():
    nulls = {"a": 0, "b": 1}
    assert complete_fields(("a", "b", "c"), nulls, 300) == ("a",)
    assert complete_fields(("a",), nulls, 299) == ()


def counts(app):
    return {one.labels[2]: one.value for one in app.series() if one.family == "cumulant_invalid_rows_total"}


@pytest.mark.parametrize("edge", [{}, *EDGES])
def test_what_the_contract_allows_is_answered_without_a_warning(warning, refusing, edge):
    for app in (warning, refusing):
        found = call(app, "POST", PREDICT, GOOD | edge)
        assert (found.status_code, "warnings" in found.json()) == (200, False), found.text
        assert counts(app) == {}


@pytest.mark.parametrize(("change", "rule", "demand"), BAD)
def test_a_broken_rule_warns_or_refuses(warning, refusing, change, rule, demand):
    name = rule.partition(":")[0]
    found = call(warning, "POST", PREDICT, GOOD | change)
    assert found.status_code == 200
    (told,) = found.json()["warnings"]
    assert told.startswith(f"{name} breaks the data contract: it must {demand}")
    several = call(refusing, "POST", PREDICT, [GOOD, GOOD | change])
    assert several.status_code == 422
    assert several.json()["error"].startswith(f'row 2: field "{name}" must {demand}')
    assert f"(rule {rule})" in several.json()["error"]
    assert "leave the row out" in several.text
    assert counts(warning) == counts(refusing) == {rule: 1}
    assert "row out" not in call(refusing, "POST", PREDICT, GOOD | change).text


def test_the_value_is_repeated_unless_it_is_personal(refusing):
    assert "got -5.0" in call(refusing, "POST", PREDICT, GOOD | {"distance": -5}).json()["error"]
    refused = call(refusing, "POST", PREDICT, GOOD | {"tail": "secret-tail"})
    assert (refused.status_code, "secret" in refused.text) == (422, False)


def test_rows_are_named_and_counted(warning):
    rows = [GOOD, GOOD | {"distance": -1}, *[GOOD | {"distance": -2, "carrier": "ZZ"}] * 7]
    told = call(warning, "POST", PREDICT, rows).json()["warnings"]
    assert told[0].startswith("rows 2, 3, 4, 5, 6 and 3 more: distance breaks")
    assert told[1].startswith("rows 3, 4, 5, 6, 7 and 2 more: carrier breaks")
    assert counts(warning) == {"distance:min": 8, "carrier:in": 7}


def test_every_protocol_over_http(warning, refusing):
    bad = {"inputs": tensors([{**ROW, "seats": 1, "distance": -5.0}])}
    frame = {"dataframe_records": [GOOD | {"distance": -5}]}
    csv = "distance,carrier,seats,sched_dep\n-5,UA,1,2013-04-01T18:00:00\n"
    found = call(warning, "POST", INFER, bad).json()
    assert found["parameters"]["warnings"].startswith("distance breaks the data contract")
    assert call(warning, "POST", "/invocations", frame).json()["warnings"][0].startswith("distance breaks")
    assert call(refusing, "POST", INFER, bad).status_code == 422
    assert call(refusing, "POST", "/invocations", frame).status_code == 422
    for app, status in ((warning, 200), (refusing, 422)):
        found = call(app, "POST", "/invocations", csv.encode(), headers={b"content-type": b"text/csv"})
        assert found.status_code == status, found.text


def test_over_grpc(warning, refusing):
    request = message_class("ModelInferRequest")(model_name="flight-late")
    for one in tensors([{"distance": -5.0, "sched_dep": ROW["sched_dep"], "seats": 1}]):
        tensor = request.inputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        kind = {"BYTES": "bytes_contents", "FP64": "fp64_contents", "INT64": "int64_contents"}[one["datatype"]]
        values = [value.encode() if isinstance(value, str) else value for value in one["data"]]
        getattr(tensor.contents, kind).extend(values)

    async def talk(app):
        server = await start(app, "127.0.0.1", 0)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")  # type: ignore[call-arg]
                return message_class("ModelInferResponse").FromString(await infer(request.SerializeToString()))
        finally:
            await server.stop(1)

    told = asyncio.run(talk(warning)).parameters["warnings"].string_param
    assert told.startswith("distance breaks the data contract")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        asyncio.run(talk(refusing))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "rule distance:min" in caught.value.details()


def test_a_category_that_the_model_has_not_seen_warns_and_never_refuses(warning, refusing):
    for app in (warning, refusing):  # the contract allows it
        found = call(app, "POST", PREDICT, GOOD | {"carrier": "BB"})
        assert found.status_code == 200
        assert found.json()["warnings"] == [
            "carrier has a value that the model has not seen, which it takes for a missing one"
        ]
        assert counts(app) == {"carrier:unseen": 1}
    assert "warnings" not in call(warning, "POST", PREDICT, GOOD | {"carrier": None}).json()


def test_a_feature_whose_rare_values_are_the_rule_does_not_warn(tmp_path):
    app = ServingApplication(ModelSet([open_model(servable(tmp_path / "model"))]))
    assert "warnings" not in call(app, "POST", PREDICT, ROW | {"carrier": "ZZ"}).json()


@pytest.mark.parametrize("invalid", ["warn", "refuse"])
def test_the_program_obeys_and_the_log_says_which_rule(folder, tmp_path, invalid):
    log = tmp_path / "log"
    with serving(folder, "--log", log, "--invalid", invalid) as (_, url):
        found = httpx.post(url + PREDICT, json={"rows": [GOOD, GOOD | {"distance": -1, "carrier": "ZZ"}]})
        good = httpx.post(url + PREDICT, json=GOOD)
        metrics = httpx.get(f"{url}/metrics").text
    assert found.status_code == (200 if invalid == "warn" else 422)
    assert 'cumulant_invalid_rows_total{model="flight-late",version="1",rule="distance:min"} 1' in metrics
    assert find_predictions(folder_log(log), good.json()["request_id"])[0].invalid == ""
    if invalid == "warn":
        rows = find_predictions(folder_log(log), found.json()["request_id"])
        assert [one.invalid for one in rows] == ["", "distance:min,carrier:in"]


def test_rules_of_columns_that_no_request_carries_are_passed_over(folder):
    servable_ = open_model(folder).servable
    rules = RequestRules(servable_, {}, refuse=True)
    assert rules.broken([{"distance": -1.0}]) == {}


def test_a_long_text_is_not_matched(warning):
    assert "warnings" not in call(warning, "POST", PREDICT, GOOD | {"tail": "x" * 129}).json()


def test_a_pattern_of_ascii_texts_is_not_matched_with_others(warning):
    assert "warnings" not in call(warning, "POST", PREDICT, GOOD | {"tail": "N\u0663"}).json()
    assert "warnings" in call(warning, "POST", PREDICT, GOOD | {"tail": "Nx"}).json()


@pytest.mark.parametrize(("datatype", "letter"), [("FP16", "e"), ("FP32", "f"), ("FP64", "d")])
@pytest.mark.parametrize("rule", [FieldRule(max=0.1), FieldRule(min=0.1), FieldRule(members=(0.1, 0.3))])
def test_a_number_on_a_bound_passes_in_every_float_type(tmp_path, datatype, letter, rule):
    app = ServingApplication(
        ModelSet([open_model(servable(tmp_path / "m", rules={"distance": rule}), refuse_invalid=True)])
    )

    def status(value: float, *, binary: bool) -> int:
        inputs, raw = tensors([ROW | {"distance": value}]), b""
        tensor = next(one for one in inputs if one["name"] == "distance")
        tensor["datatype"] = datatype
        if binary:
            del tensor["data"]
            raw = struct.pack(f"<{letter}", value)
            tensor["parameters"] = {"binary_data_size": len(raw)}
        head = json.dumps({"inputs": inputs}).encode()
        headers = {b"inference-header-content-length": str(len(head)).encode()} if binary else {}
        return call(app, "POST", INFER, head + raw, headers=headers).status_code

    assert [status(0.1, binary=binary) for binary in (True, False)] == [200, 200]
    outside = 0.09 if rule.min is not None else 0.11
    assert [status(outside, binary=binary) for binary in (True, False)] == [422, 422]


def test_a_field_that_may_not_be_null_is_announced_as_required_where_that_refuses(warning, refusing):
    for app, required in ((warning, False), (refusing, True)):
        card = call(app, "GET", "/v1/models/flight-late").json()
        assert {one["name"]: one["required"] for one in card["request"]}["seats"] is required
        inputs = call(app, "GET", "/v2/models/flight-late").json()["inputs"]
        assert {one["name"]: one["parameters"]["optional"] for one in inputs}["seats"] is not required
        row = {name: value for name, value in GOOD.items() if name != "seats"}
        assert call(app, "POST", PREDICT, row).status_code == (422 if required else 200)
