"""The classification extension: the highest scores of an output with their places and labels, over HTTP and gRPC."""

from __future__ import annotations

import json

import grpc
import numpy as np
import pytest
from grpc_support import message, over, packed, unpacked
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from serving_models import ROW, call, servable
from tensor_models import write_scores

from cumulant.serving.app import ServingApplication
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.protocol.classification import classify
from cumulant.serving.protocol.tensors import OutputTensor

INFER = "/v2/models/scores/infer"
X = [0.1, 0.7, 0.2, 3.0, 3.0, -1.0]
TOP_2 = ["0.7:1:dog", "0.2:2:eel", "3.0:0:cat", "3.0:1:dog"]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    return ServingApplication(ModelSet([open_model(write_scores(tmp_path_factory.mktemp("scores") / "one"))]))


def asked(*outputs, **more):
    inputs = [
        {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": X},
        {"name": "whole", "datatype": "INT8", "shape": [4], "data": [-128, 5, 127, 5]},
        {"name": "words", "datatype": "BYTES", "shape": [1], "data": ["a"]},
    ]
    return {"inputs": inputs, "outputs": list(outputs), **more}


def top(name, k, **parameters):
    return {"name": name, "parameters": {"classification": k, **parameters}}


def test_json_answers_the_highest_scores_of_each_row(app):
    (found,) = call(app, "POST", INFER, asked(top("scores", 2))).json()["outputs"]
    assert found == {"name": "scores", "datatype": "BYTES", "shape": [2, 2], "data": TOP_2}


def test_a_tensor_without_rows_is_ranked_as_a_whole_and_has_no_labels_of_another_number(app):
    found = call(app, "POST", INFER, asked(top("ranks", 3), {"name": "scores"})).json()["outputs"]
    assert found[0] == {"name": "ranks", "datatype": "BYTES", "shape": [3], "data": ["127:2", "5:1", "5:3"]}
    assert found[1]["data"] == pytest.approx(X)


def test_more_than_there_are_gives_all_as_triton_does(app):
    (found,) = call(app, "POST", INFER, asked(top("scores", 99))).json()["outputs"]
    assert (found["shape"], found["data"][2]) == ([2, 3], "0.1:0:cat")


def test_binary_answers_are_texts_with_their_lengths(app):
    answer = call(app, "POST", INFER, asked(top("scores", 2, binary_data=True)))
    length = int(answer.headers["inference-header-content-length"])
    (found,) = json.loads(answer.content[:length])["outputs"]
    assert (found["datatype"], found["shape"]) == ("BYTES", [2, 2])
    assert unpacked("BYTES", answer.content[length:]) == TOP_2


@pytest.mark.parametrize("k", [0, -1, 1.0, True, None, "2", [], 2**63, 10**30])
def test_a_wrong_number_is_refused(app, k):
    answer = call(app, "POST", INFER, asked(top("scores", k)))
    assert (answer.status_code, "classification" in answer.json()["error"]) == (400, True)


def test_texts_have_no_scores(app):
    answer = call(app, "POST", INFER, asked(top("words_out", 1)))
    assert (answer.status_code, "words_out" in answer.json()["error"]) == (400, True)


def test_probabilities_of_a_project_s_model_carry_their_classes(tmp_path):
    app = ServingApplication(ModelSet([open_model(servable(tmp_path / "one", task="multiclass"))]))
    name = app.models.names()[0]
    inputs = [
        {"name": "distance", "datatype": "FP64", "shape": [1], "data": [ROW["distance"]]},
        {"name": "sched_dep", "datatype": "BYTES", "shape": [1], "data": [ROW["sched_dep"]]},
    ]
    plain = call(app, "POST", f"/v2/models/{name}/infer", {"inputs": inputs}).json()["outputs"]
    shares = next(one["data"] for one in plain if one["name"] == "probabilities")
    body = {"inputs": inputs, "outputs": [top("probabilities", 1)]}
    (found,) = call(app, "POST", f"/v2/models/{name}/infer", body).json()["outputs"]
    best = int(np.argmax(shares))
    assert found["data"] == [f"{shares[best]}:{best}:{app.models.get(name).servable.classes[best]}"]


def grpc_request(k, field="int64_param"):
    found = message("ModelInferRequest", model_name="scores")
    for name, datatype, shape, values in (
        ("x", "FP32", [2, 3], X),
        ("whole", "INT8", [4], [1, 2, 3, 4]),
        ("words", "BYTES", [1], ["a"]),
    ):
        found.inputs.add(name=name, datatype=datatype, shape=shape)
        found.raw_input_contents.append(packed(datatype, values))
    setattr(found.outputs.add(name="scores").parameters["classification"], field, k)
    return found


def test_grpc_answers_the_same(app):
    async def talk(client):
        found = await client.infer(grpc_request(2))
        assert (found.outputs[0].datatype, list(found.outputs[0].shape)) == ("BYTES", [2, 2])
        assert unpacked("BYTES", found.raw_output_contents[0]) == TOP_2
        for k, field in ((0, "int64_param"), ("2", "string_param"), (True, "bool_param"), (2.0, "double_param")):
            await client.refused(
                grpc.StatusCode.INVALID_ARGUMENT, "classification", "ModelInfer", grpc_request(k, field)
            )

    over(app, talk)


KINDS = {
    "FP32": np.float32,
    "FP64": np.float64,
    "FP16": np.float16,
    "INT8": np.int8,
    "UINT64": np.uint64,
    "INT64": np.int64,
}


@given(st.data(), st.sampled_from(sorted(KINDS)), st.integers(1, 6))
def test_any_tensor_is_ranked_as_a_plain_loop_does(data, datatype, k):
    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
    array = data.draw(arrays.arrays(KINDS[datatype], shape))
    declared = [-1, *shape[1:]] if data.draw(st.booleans()) else list(shape)
    found = classify(OutputTensor("y", datatype, shape, array), k, declared, ())
    rows = [array[i].ravel() for i in range(shape[0])] if declared[0] == -1 else [array.ravel()]
    expected = []
    for row in rows:
        places = sorted(range(len(row)), key=lambda i: (row[i] != row[i], 0 if row[i] != row[i] else -row[i].item(), i))
        expected += [f"{row[i]!s}:{i}" for i in places[:k]]
    assert found.values.ravel().tolist() == expected
    assert int(np.prod(found.shape)) == len(expected)
