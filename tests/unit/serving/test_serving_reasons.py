"""Reasons of answers, against what an oracle finds that replaces one feature at a time and scores row by row."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import struct

import lightgbm
import msgspec
import numpy as np
import pytest
from serving_models import INPUTS, PLAIN, ROW, call, model_of, servable

from cumulant.core.errors import IntegrityError, OverloadedError
from cumulant.core.servable import Reasons
from cumulant.servable.folder import load_servable, write_description
from cumulant.servable.scorer import Scorer
from cumulant.serving.app import ServingApplication
from cumulant.serving.cache.answer_cache import Caching
from cumulant.serving.endpoints.scoring import read_inference
from cumulant.serving.grpc.codec import read_call, write_answer
from cumulant.serving.grpc.messages import message_class
from cumulant.serving.models.fallback import Fallback
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.reasons.occlusion import Occlusion
from cumulant.serving.scheduling.runner import Scheduling
from cumulant.serving.settings import FallbackConfig
from cumulant.training.model import FittedModel, ModelCard
from cumulant.training.payloads.payload import Boosters

PREDICT, INFER = "/v1/models/flight-late/predict", "/v2/models/flight-late/infer"
INVOKE = "/v1/models/flight-late/invocations"
REFERENCE = {"distance": 800.0, "hour": 9.0, "carrier": "AA", "charter": False}
FEATURES = tuple(one.feature for one in INPUTS)
ASKED = Reasons(count=2, reference=REFERENCE, codes={"distance": "It is a long way"})
CELL = {"distance": 500.0, "hour": 18, "carrier": "UA", "charter": None}


def explained(out, task="binary", reasons=ASKED, **more):
    return servable(out, task, reasons=reasons, **more)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("reasons")
    return {task: explained(place / task, task) for task in ("binary", "multiclass", "regression")}


@pytest.fixture(scope="module")
def app(folders):
    return ServingApplication(ModelSet([open_model(folders["binary"])]))


def application(folder, **settings):
    return ServingApplication(ModelSet([open_model(folder, **settings)]))


def score(scorer, cells, kind=None):
    """The score of one row: log-odds, of class `kind` where there are several; or the number."""
    found = scorer.score({name: [value] for name, value in cells.items()})[0]
    if scorer.servable.task == "regression":
        return float(found)
    p = float(found if kind is None else found[kind])
    return math.log(p / (1 - p))


def oracle(folder, cells=CELL, reference=REFERENCE):
    """Contribution by feature, the largest first: each feature alone put to its reference."""
    scorer = Scorer(folder)
    kind = None
    if scorer.servable.task == "multiclass":
        kind = int(np.argmax(scorer.score({name: [value] for name, value in cells.items()})[0]))
    base = score(scorer, cells, kind)
    parts = {name: base - score(scorer, cells | {name: reference[name]}, kind) for name in cells}
    return dict(sorted(((n, v) for n, v in parts.items() if v), key=lambda pair: -abs(pair[1])))


def told(reasons):
    return {one["feature"]: one["contribution"] for one in reasons}


def tensor(name, datatype, *values):
    return {"name": name, "datatype": datatype, "shape": [len(values)], "data": list(values)}


TENSORS = [
    tensor("distance", "FP64", 500.0, 800.0),
    tensor("sched_dep", "BYTES", "2013-04-01T18:00:00", "2013-04-01T09:00:00"),
    tensor("carrier", "BYTES", "UA", "AA"),
    tensor("charter", "BOOL", True, False),
]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_contributions_are_those_of_an_oracle(folders, task):
    answer = call(application(folders[task]), "POST", PREDICT + "?reasons=4", ROW).json()
    expected = oracle(folders[task])
    assert len(expected) >= 3
    assert told(answer["reasons"]) == pytest.approx(expected, rel=1e-9)
    assert list(told(answer["reasons"])) == list(expected)
    for one in answer["reasons"]:
        assert one["direction"] == ("raises" if one["contribution"] > 0 else "lowers")


def test_of_a_linear_model_they_are_the_weights_times_the_distances_from_the_reference(folders):
    """Weights 0.3/250, 0.7/6 and -0.2; the tables of carriers hold 0.1 and -0.4."""
    row = ROW | {"distance": 1050.0, "charter": True}
    reasons = call(application(folders["regression"]), "POST", PREDICT, {"rows": [row], "reasons": 4}).json()
    exact = {"distance": 0.3, "hour": 0.7 * 9 / 6, "carrier": -0.5, "charter": -0.2}
    assert told(reasons["predictions"][0]["reasons"]) == pytest.approx(exact, abs=1e-12)
    assert list(told(reasons["predictions"][0]["reasons"])) == ["hour", "carrier", "distance", "charter"]


def test_of_trees_too(tmp_path):
    random = np.random.default_rng(0)
    matrix = random.normal(size=(600, 4))
    booster = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_leaves": 7, "num_threads": 1, "min_data_in_leaf": 5},
        lightgbm.Dataset(matrix, (matrix[:, 0] * matrix[:, 1] + matrix[:, 2] > 0).astype(float)),
        num_boost_round=20,
    )
    card = ModelCard(
        kind="lightgbm", trainer="lightgbm", task="binary", classes=("false", "true"), inputs=INPUTS, threshold=0.5
    )
    model = FittedModel(card, Boosters((booster.model_to_string(),)))
    reference = REFERENCE | {"distance": 0.2, "hour": -1.0}
    folder = explained(tmp_path / "trees", model=model, reasons=Reasons(reference=reference))
    answer = call(application(folder), "POST", PREDICT + "?reasons=4", ROW | {"distance": -1.5}).json()
    expected = oracle(folder, CELL | {"distance": -1.5}, reference)
    assert len(expected) >= 2
    assert told(answer["reasons"]) == pytest.approx(expected, rel=1e-9)


def test_a_request_that_does_not_ask_gets_none_and_the_same_bits(app, folders):
    bare = ServingApplication(ModelSet([open_model(servable_without(folders["binary"]))]))
    for path, body in ((PREDICT, [ROW] * 3), (INFER, {"inputs": TENSORS}), (INVOKE, {"dataframe_records": [ROW]})):
        found, plain = (call(one, "POST", path, body).json() for one in (app, bare))
        assert found | {"request_id": ""} == plain | {"request_id": ""}
        assert "reasons" not in json.dumps(found)


def servable_without(folder):
    bare = folder.with_name(f"{folder.name}-bare")
    if not bare.exists():
        shutil.copytree(folder, bare)
        write_description(bare, msgspec.structs.replace(load_servable(bare), reasons=None))
    return bare


def test_the_runs_of_a_request_that_does_not_ask_have_its_own_rows_only(folders):
    model = open_model(folders["binary"])
    app, seen = ServingApplication(ModelSet([model])), []
    run = model.runner.run_now
    model.runner.run_now = lambda feeds, rows: seen.append(rows) or run(feeds, rows)
    call(app, "POST", PREDICT, [ROW] * 3)
    assert seen == [3]
    call(app, "POST", PREDICT, {"rows": [ROW] * 3, "reasons": 0})
    assert seen == [3, 3]
    call(app, "POST", PREDICT, {"rows": [ROW] * 3, "reasons": 1})
    assert seen == [3, 3, 3, 3 * 4]  # charter is missing where its reference is false: all four differ


def test_features_at_their_reference_cost_nothing_and_are_no_reason():
    method = Occlusion(np.array([1.0, np.nan, 3.0], np.float32))
    question = method.select_rows(np.array([[1.0, np.nan, 4.0], [1.0, 2.0, 3.0], [1.0, np.nan, 3.0]], np.float32))
    np.testing.assert_array_equal(question.rows, np.array([[1, np.nan, 3], [1, np.nan, 3]], np.float32))
    assert question.owner.tolist() == [0, 1]
    found = question.contributions(np.array([5.0, 7.0, 9.0]), np.array([4.0, 9.0]))
    assert found.tolist() == [[0, 0, 1], [0, -2, 0], [0, 0, 0]]


def test_the_usual_number_texts_and_the_order_of_rows(folders, app):
    rows = [ROW | {"distance": 100.0 * k} for k in range(1, 6)]
    body = {
        "inputs": [
            tensor("distance", "FP64", *(row["distance"] for row in rows)),
            tensor("sched_dep", "BYTES", *(row["sched_dep"] for row in rows)),
            tensor("carrier", "BYTES", *(row["carrier"] for row in rows)),
        ],
        "outputs": [{"name": "reasons"}, {"name": "probability"}],
    }
    answer = call(app, "POST", INFER, body).json()
    assert [one["name"] for one in answer["outputs"]] == ["reasons", "probability"]
    texts = answer["outputs"][0]
    assert (texts["datatype"], texts["shape"]) == ("BYTES", [5])
    for row, text in zip(rows, texts["data"], strict=True):
        expected = oracle(folders["binary"], CELL | {"distance": row["distance"]})
        found = json.loads(text)
        assert told(found) == pytest.approx(dict(list(expected.items())[:2]), rel=1e-9)
        codes = {one["feature"]: one.get("code") for one in found}
        assert codes.get("distance", "It is a long way") == "It is a long way"
        assert codes.get("hour") is None


def test_the_parameter_of_the_protocol(app):
    answer = call(app, "POST", INFER, {"inputs": TENSORS, "parameters": {"reasons": 1}}).json()
    assert [one["name"] for one in answer["outputs"]] == ["prediction", "probability", "reasons"]
    first, second = (json.loads(text) for text in answer["outputs"][2]["data"])
    assert [one["feature"] for one in first] == ["hour"]
    assert second == []  # it is the reference itself
    selected = {"inputs": TENSORS, "parameters": {"reasons": 1}, "outputs": [{"name": "probability"}]}
    assert [one["name"] for one in call(app, "POST", INFER, selected).json()["outputs"]] == ["probability", "reasons"]
    none = {"inputs": TENSORS, "parameters": {"reasons": 0}, "outputs": [{"name": "reasons"}]}
    assert call(app, "POST", INFER, none).json()["outputs"][0]["data"] == ["[]", "[]"]


def test_binary_tensors(app):
    body = {
        "inputs": TENSORS,
        "parameters": {"reasons": 1, "binary_data_output": True},
        "outputs": [{"name": "reasons"}],
    }
    answer = call(app, "POST", INFER, body)
    rest = answer.content[int(answer.headers["inference-header-content-length"]) :]
    (size,) = struct.unpack_from("<I", rest)
    assert json.loads(rest[4 : 4 + size])[0]["feature"] == "hour"


def test_mlflow_formats(app):
    for path, body in (
        (INVOKE, {"dataframe_records": [ROW], "params": {"reasons": 1}}),
        (INVOKE + "?reasons=1", {"dataframe_records": [ROW]}),
    ):
        (answer,) = call(app, "POST", path, body).json()["predictions"]
        assert [one["feature"] for one in answer["reasons"]] == ["hour"]
    refused = call(app, "POST", INVOKE, {"dataframe_records": [ROW], "params": {"temperature": 1}})
    assert (refused.status_code, "reasons" in refused.json()["error"]) == (400, True)


@pytest.mark.parametrize("asked", [5, -1, 1.5, "3", True, [], 10**30])
def test_numbers_out_of_range_are_refused(app, asked):
    for path, body in (
        (PREDICT, {"rows": [ROW], "reasons": asked}),
        (INFER, {"inputs": TENSORS, "parameters": {"reasons": asked}}),
        (INVOKE, {"dataframe_records": [ROW], "params": {"reasons": asked}}),
    ):
        refused = call(app, "POST", path, body)
        assert refused.status_code == 400
        assert '"reasons" must be a whole number from 0 to 4' in refused.json()["error"]


@pytest.mark.parametrize("query", ["reasons=", "reasons=5", "reasons=%31x", "reasons=-1", "reasons=" + "9" * 50])
def test_queries_out_of_range_are_refused(app, query):
    assert call(app, "POST", f"{PREDICT}?{query}", ROW).status_code == 400


@pytest.mark.parametrize("query", ["reasons=1&reasons=2", "reasons=1"])
def test_two_numbers_are_refused(app, query):
    body = {"rows": [ROW], **({} if "&" in query else {"reasons": 1})}
    refused = call(app, "POST", f"{PREDICT}?{query}", body)
    assert (refused.status_code, "given twice" in refused.json()["error"]) == (400, True)


def test_a_servable_without_reasons_says_so(folders):
    app = application(servable_without(folders["binary"]))
    for path, body in (
        (PREDICT + "?reasons=1", ROW),
        (INFER, {"inputs": TENSORS, "parameters": {"reasons": 1}}),
    ):
        refused = call(app, "POST", path, body)
        assert (refused.status_code, "gives no reasons" in refused.json()["error"]) == (400, True)
    assert call(app, "POST", INFER, {"inputs": TENSORS, "outputs": [{"name": "reasons"}]}).status_code == 400
    assert call(app, "POST", PREDICT, {"rows": [ROW], "reasons": 0}).status_code == 200


def test_too_many_rows_to_explain_are_refused_and_the_server_goes_on(app):
    refused = call(app, "POST", PREDICT, {"rows": [ROW] * 2501, "reasons": 1})
    assert (refused.status_code, "10000" in refused.json()["error"]) == (413, True)
    assert call(app, "POST", PREDICT, [ROW] * 2501).status_code == 200
    assert call(app, "POST", PREDICT, {"rows": [], "reasons": 1}).status_code == 400


def test_always_and_only_of_decisions(tmp_path):
    rows = [ROW | {"distance": float(d)} for d in (-4000, 100, 4000)]
    for when in ("always", "decision"):
        app = application(explained(tmp_path / when, reasons=msgspec.structs.replace(ASKED, when=when)))
        answers = call(app, "POST", PREDICT, rows).json()["predictions"]
        assert {one["prediction"] for one in answers} == {True, False}
        for one in answers:
            assert ("reasons" in one) is (when == "always" or one["prediction"])
        # What is asked for goes before what is usual.
        assert all(
            "reasons" in one for one in call(app, "POST", PREDICT, {"rows": rows, "reasons": 1}).json()["predictions"]
        )
        assert not any(
            "reasons" in one for one in call(app, "POST", PREDICT + "?reasons=0", rows).json()["predictions"]
        )
        outputs = call(app, "POST", INFER, {"inputs": TENSORS}).json()["outputs"]
        assert [one["name"] for one in outputs] == ["prediction", "probability", "reasons"]
        few = call(app, "POST", INFER, {"inputs": TENSORS, "outputs": [{"name": "probability"}]}).json()["outputs"]
        assert [one["name"] for one in few] == ["probability"]


def test_reasons_that_cannot_be_given_are_refused_when_the_servable_is_loaded(tmp_path):
    folder = explained(tmp_path / "one", "regression")
    good = load_servable(folder)
    for reasons, words in (
        (Reasons(method="magic"), "does not know"),
        (Reasons(when="decision"), "no binary model"),
        (Reasons(reference={"distance": "far"}), "reference values"),
    ):
        write_description(folder, msgspec.structs.replace(good, reasons=reasons))
        with pytest.raises(IntegrityError, match=words):
            open_model(folder)


def test_a_refused_second_run_is_the_requests_refusal_but_not_where_a_fallback_is_declared(folders):
    model = open_model(folders["binary"])
    app, run = ServingApplication(ModelSet([model])), model.runner.run_now

    async def full(*_):
        raise OverloadedError("the model has more to do than it can do in time", retry_after=1.0)

    model.runner.run_now = lambda feeds, rows: run(feeds, rows) if rows == 1 else None
    model.runner.run_later = full
    refused = call(app, "POST", PREDICT + "?reasons=2", ROW)
    assert (refused.status_code, "retry-after" in refused.headers) == (429, True)
    model.fallback = Fallback(model, FallbackConfig(constant={"prediction": False, "probability": 0.0}), None)
    answer = call(app, "POST", PREDICT + "?reasons=2", ROW).json()
    assert answer["probability"] == Scorer(folders["binary"]).score({k: [v] for k, v in CELL.items()})[0]
    assert "reasons" not in answer
    assert "left out" in answer["warnings"][0]
    model.runner.run_now = lambda feeds, rows: None
    degraded = call(app, "POST", PREDICT + "?reasons=2", ROW).json()
    assert (degraded["degraded"], degraded["probability"]) == ("constant", 0.0)
    assert "left out" in degraded["warnings"][0]


def test_rows_that_are_asked_of_the_engine_count_against_its_time(folders):
    """Real admission: while one long run is under way, what reasons would add to the line is refused."""
    tight = Scheduling(inline=0.0, queue=0.0, caching=Caching(mode="off"))
    model = open_model(folders["binary"], scheduling=tight)
    rows = model.from_rows([ROW] * 2000)
    rows.reasons = model.reasons.read(4)

    async def crowd():
        raw = await model.runner.run_later(rows.feeds, rows.rows)
        (matrix,) = rows.feeds.values()
        inquiry = model.reasons.plan(rows.reasons, matrix, model.answers(rows, raw), raw)
        assert inquiry.rows == 8000
        found = await asyncio.gather(
            *(model.runner.run_later(inquiry.feeds, inquiry.rows) for _ in range(8)), return_exceptions=True
        )
        return [isinstance(one, OverloadedError) for one in found]

    refused = asyncio.run(crowd())
    assert any(refused)
    assert not all(refused)


def test_grpc(folders):
    model = open_model(folders["binary"])
    asked = message_class("ModelInferRequest")(model_name="flight-late")
    for one in TENSORS:
        added = asked.inputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        field = {"FP64": "fp64_contents", "BYTES": "bytes_contents", "BOOL": "bool_contents"}[one["datatype"]]
        values = [v.encode() for v in one["data"]] if one["datatype"] == "BYTES" else one["data"]
        getattr(added.contents, field).extend(values)
    asked.parameters["reasons"].int64_param = 1
    call_ = read_call(asked, [], received=0.0, remaining=None, client="")
    scoring = read_inference(model, call_, write_answer)
    app = ServingApplication(ModelSet([model]))

    class Sent:
        received = 0.0

    async def scored():
        return await app.score(Sent(), lambda _m, _r: scoring, "grpc", model)  # type: ignore[return-value]

    answer = message_class("ModelInferResponse").FromString(asyncio.run(scored()))
    found = {one.name: one for one in answer.outputs}
    first = json.loads(found["reasons"].contents.bytes_contents[0])
    assert (found["reasons"].datatype, list(found["reasons"].shape)) == ("BYTES", [2])
    assert first[0]["feature"] == "hour"


def test_texts_among_the_parameters_of_a_grpc_answer():
    asked = message_class("ModelInferRequest")(model_name="m")
    call_ = read_call(asked, [], received=0.0, remaining=None, client="")
    found = message_class("ModelInferResponse").FromString(
        write_answer(call_, "m", "1", [], {"warnings": "a\nb", "state_age": 2.5})
    )
    assert found.parameters["warnings"].string_param == "a\nb"
    assert found.parameters["state_age"].double_param == 2.5


def test_metadata_the_card_and_the_document_say_what_may_be_asked(app):
    outputs = call(app, "GET", "/v2/models/flight-late").json()["outputs"]
    assert outputs[-1] == {"name": "reasons", "datatype": "BYTES", "shape": [-1], "parameters": {"optional": True}}
    card = call(app, "GET", "/v1/models/flight-late").json()
    assert card["reasons"] == {"method": "occlusion", "when": "requested", "usual": 2, "most": 4}
    document = call(app, "GET", "/openapi.json").json()
    operation = document["paths"][PREDICT]["post"]
    assert operation["parameters"][0]["schema"]["maximum"] == 4
    assert "reasons" in json.dumps(operation["responses"]["200"])


def test_saturated_answers_have_finite_reasons(tmp_path):
    folder = explained(tmp_path / "one")
    answer = call(application(folder), "POST", PREDICT + "?reasons=4", ROW | {"distance": 1e12})
    assert answer.status_code == 200
    assert all(math.isfinite(value) for value in told(answer.json()["reasons"]).values())


def test_the_names_here_are_those_of_the_plan():
    assert set(FEATURES) == set(PLAIN.names)
    assert model_of("binary").inputs == INPUTS


@pytest.mark.parametrize("asked", [{}, {"reasons": 1}])
def test_reasons_have_no_scores_to_rank(app, asked):
    wanted = [{"name": "reasons", "parameters": {"classification": 2}}]
    answer = call(app, "POST", INFER, {"inputs": TENSORS, "outputs": wanted, "parameters": asked})
    assert answer.status_code == 400
    assert 'output "reasons" is BYTES' in answer.json()["error"]
