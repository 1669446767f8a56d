"""Tensors in and out: every datatype as JSON and as raw bytes, shapes, selection, and what does not fit."""

from __future__ import annotations

import json
import struct

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper
from serving_graphs import KINDS, echo, scale, tensor, write
from serving_models import call

from cumulant.core.errors import OutOfMemoryError
from cumulant.servable.engine import DTYPES
from cumulant.server.problem import problem_headers, problem_of
from cumulant.serving.app import ServingApplication
from cumulant.serving.grpc.errors import code_of
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.protocol.tensors import InputTensor, OutputTensor, raw_bytes, to_array

INFER = "/v2/models/graph/infer"


@pytest.fixture(scope="module")
def echoing(tmp_path_factory):
    return ServingApplication(ModelSet([open_model(echo(tmp_path_factory.mktemp("echo") / "graph"))]))


@pytest.fixture(scope="module")
def scaling(tmp_path_factory):
    folder = scale(tmp_path_factory.mktemp("scale") / "graph", columns=("a", "b", "c"))
    return ServingApplication(ModelSet([open_model(folder)]))


def some(datatype, shape=(2, 3)):
    """Values with the extremes of a datatype."""
    dtype = DTYPES[datatype]
    count = int(np.prod(shape))
    if datatype == "BYTES":
        found = np.empty(count, dtype=object)
        found[:] = ["", "a", "žluť", "x" * 300, '"\n', "0"][:count]
    elif datatype == "BOOL":
        found = np.arange(count) % 2 == 0
    elif dtype.kind == "f":
        found = np.array([0.0, -1.5, 1 / 3, float(np.finfo(dtype).max), float(np.finfo(dtype).tiny), 7][:count], dtype)
    else:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        found = np.array([low, high, 0, 1, 2, 3][:count], dtype)
    return found.reshape(shape)


def as_json(name, datatype, array):
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist()}


def binary_request(arrays, *, binary_output=True, **document):
    """A request whose tensors follow the JSON document."""
    parts, inputs = [], []
    for name, datatype, array in arrays:
        raw = raw_bytes(OutputTensor(name, datatype, array.shape, array))
        parts.append(raw)
        inputs.append(
            {
                "name": name,
                "datatype": datatype,
                "shape": list(array.shape),
                "parameters": {"binary_data_size": len(raw)},
            }
        )
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": binary_output}, **document}).encode()
    return head + b"".join(parts), {"Inference-Header-Content-Length": str(len(head))}


def read_binary(answer):
    """The outputs of an answer, raw or JSON, as arrays by name."""
    length = answer.headers.get("inference-header-content-length")
    document = json.loads(answer.content[: int(length)] if length else answer.content)
    rest, found = memoryview(answer.content)[int(length or 0) :], {}
    for one in document["outputs"]:
        size = one.get("parameters", {}).get("binary_data_size")
        content = one["data"] if size is None else rest[:size]
        rest = rest[size or 0 :]
        found[one["name"]] = to_array(InputTensor(one["name"], one["datatype"], one["shape"], content)).reshape(
            one["shape"]
        )
    assert len(rest) == 0 or not length
    return found


def test_a_run_that_lacks_memory_is_no_fault_of_the_caller(tmp_path):
    nodes = [helper.make_node("ConstantOfShape", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "zeros", [tensor("x", "INT64", [1])], [tensor("y", "FP32", ["n"])])
    app = ServingApplication(ModelSet([open_model(write(tmp_path / "graph", graph))]))
    assert call(app, "POST", INFER, {"inputs": [as_json("x", "INT64", np.array([2]))]}).status_code == 200
    answered = call(app, "POST", INFER, {"inputs": [as_json("x", "INT64", np.array([2**44]))]})
    assert answered.status_code == 500, "the gateway ejects a server by 502 to 504"
    assert "retry-after" not in answered.headers
    assert "too little memory: ConstantOfShape: it needs" in answered.json()["error"]
    error = OutOfMemoryError("a run", hint="send fewer rows")
    assert code_of(error) is grpc.StatusCode.INTERNAL, "which Envoy counts as 500; UNAVAILABLE it counts as 503"
    problem = problem_of(error)
    assert problem_headers(error) == {"retry-after": "1"}
    assert (problem.status, problem.code, problem.retryable) == (503, "out-of-memory", True)


ALL = [(f"in_{one}", one, some(one)) for one in KINDS]


def assert_echoed(found):
    assert list(found) == [f"out_{one}" for one in KINDS]
    for datatype in KINDS:
        expected = some(datatype)
        assert found[f"out_{datatype}"].tolist() == expected.tolist()
        assert found[f"out_{datatype}"].dtype == expected.dtype


def test_every_datatype_as_json(echoing):
    answer = call(echoing, "POST", INFER, {"inputs": [as_json(*one) for one in ALL]})
    assert answer.status_code == 200, answer.text
    assert_echoed(read_binary(answer))


@pytest.mark.parametrize("binary_output", [True, False])
def test_every_datatype_as_raw_bytes(echoing, binary_output):
    body, headers = binary_request(ALL, binary_output=binary_output)
    answer = call(echoing, "POST", INFER, body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert ("inference-header-content-length" in answer.headers) == binary_output
    assert_echoed(read_binary(answer))


def test_raw_and_json_may_be_mixed_and_outputs_chosen_one_by_one(echoing):
    outputs = [
        {"name": "out_FP32", "parameters": {"binary_data": True}},
        {"name": "out_INT8"},
        {"name": "out_BYTES", "parameters": {"binary_data": False}},
    ]
    body, headers = binary_request(ALL[:6], binary_output=False, outputs=outputs)
    head = json.loads(body[: int(headers["Inference-Header-Content-Length"])])
    rest = body[int(headers["Inference-Header-Content-Length"]) :]
    head["inputs"] += [as_json(*one) for one in ALL[6:]]
    document = json.dumps(head).encode()
    answer = call(
        echoing, "POST", INFER, document + rest, headers={"Inference-Header-Content-Length": str(len(document))}
    )
    found = read_binary(answer)
    assert list(found) == ["out_FP32", "out_INT8", "out_BYTES"]
    assert found["out_FP32"].tolist() == some("FP32").tolist()


def test_narrower_floats_are_widened(tmp_path):
    app = ServingApplication(ModelSet([open_model(echo(tmp_path / "graph", ("FP64",)))]))
    for datatype in ("FP64", "FP32", "FP16"):
        one = as_json("in_FP64", datatype, some(datatype))
        found = read_binary(call(app, "POST", INFER, {"inputs": [one]}))["out_FP64"]
        assert found.dtype == np.float64
        assert found.tolist() == some(datatype).astype(np.float64).tolist()
    assert call(app, "POST", INFER, {"inputs": [as_json("in_FP64", "INT64", some("INT64"))]}).status_code == 400


def test_shapes_are_dynamic_and_may_be_empty(echoing):
    for shape in ((1, 1), (3, 0), (0, 4), (0, 0), (5, 1)):
        arrays = [(name, one, np.resize(some(one), shape)) for name, one, _ in ALL]
        answer = call(echoing, "POST", INFER, {"inputs": [as_json(*one) for one in arrays]})
        assert answer.status_code == 200, answer.text
        assert {found.shape for found in read_binary(answer).values()} == {shape}


def test_nested_data_are_taken_in_row_major_order(scaling):
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [[1, 2.5, 3], [4, 5, 6]]}]}
    answer = call(scaling, "POST", INFER, body).json()
    assert answer["outputs"][0] == {
        "name": "scaled",
        "datatype": "FP32",
        "shape": [2, 3],
        "data": [2.0, 5.0, 6.0, 8.0, 10.0, 12.0],
    }
    assert answer["outputs"][1]["data"] == [13.0, 30.0]


def test_plain_rows_of_a_matrix_s_columns(scaling):
    found = call(scaling, "POST", "/v1/models/graph/predict", {"a": 1, "c": True, "b": 0.5}).json()
    assert (found["scaled"], found["total"], found["model"]) == ([2.0, 1.0, 2.0], 5.0, "graph")
    found = call(scaling, "POST", "/v1/models/graph/predict", [{"a": 1, "b": 2, "c": 3}, {"a": 0, "b": 0}]).json()
    assert [one["total"] for one in found["predictions"]] == [12.0, None]  # a missing value is NaN, which JSON has not
    for row, word in (({"d": 1}, '"d"'), ({"a": "x"}, "number"), ({"a": 10**400}, "large"), ({"a": 1e300}, "large")):
        answer = call(scaling, "POST", "/v1/models/graph/predict", row)
        assert answer.status_code == 400
        assert word in answer.json()["error"]


def test_metadata_configuration_and_statistics(scaling):
    about = call(scaling, "GET", "/v2/models/graph").json()
    assert about["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert [one["shape"] for one in about["outputs"]] == [[-1, 3], [-1]]
    assert call(scaling, "GET", "/v2/models/graph/config").json()["input"][0]["data_type"] == "TYPE_FP32"
    (stats,) = call(scaling, "GET", "/v2/models/graph/versions/1/stats").json()["model_stats"]
    assert stats["inference_count"] >= 2
    assert stats["inference_stats"]["success"]["count"] >= 1
    assert call(scaling, "GET", "/v2/models/stats").json()["model_stats"][0]["name"] == "graph"


def x(**change):
    return {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.0, 3.0]} | change


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([], ["missing"]),
        ([x(name="y")], ["y"]),
        ([x(), x()], ["twice"]),
        ([x(datatype="FP64")], ["FP64", "expected FP32"]),
        ([x(datatype="FP128")], ["FP128"]),
        ([x(shape=[3])], ["shape [3]", "expected [-1, 3]"]),
        ([x(shape=[1, 2, 3])], ["shape"]),
        ([x(shape=[1, 4], data=[1, 2, 3, 4])], ["shape [1, 4]", "expected [-1, 3]"]),
        ([x(shape=[2, 3])], ["3 values", "needs 6"]),
        ([x(shape=[-1, 3])], ["shape"]),
        ([x(shape=[10**18, 3])], ["needs"]),
        ([x(shape=[10**30, 3])], ["shape"]),
        ([x(data=[1.0, None, 3.0])], ["no FP32"]),
        ([x(data=["1", "2", "3"])], ["no FP32"]),
        ([x(data=[True, 2, 3])], ["no FP32"]),
        ([x(data=[1e300, 2, 3])], ["no FP32"]),
        ([x(data=[10**400, 2, 3])], ["x"]),
        ([x(data={"a": 1})], ["no list"]),
        ([x(data=[[1, 2], 3])], ["nested"]),
        ([x(data=None)], ["no list"]),
    ],
)
def test_tensors_that_do_not_fit(scaling, inputs, words):
    answer = call(scaling, "POST", INFER, {"inputs": inputs})
    assert answer.status_code == 400
    for word in words:
        assert word in answer.json()["error"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda body, length: (body[:-1], length), ["binary"]),
        (lambda body, length: (body + b"x", length), ["belong to no input"]),
        (lambda body, _: (body, 10**9), ["length"]),
        (lambda body, _: (body, "-1"), ["length"]),
        (lambda body, length: (body, length + 1), ["JSON"]),
        (lambda body, length: (body.replace(b'_size": 12', b'_size": 11'), length), ["belong to no input"]),
        (lambda body, length: (body.replace(b'_size": 12', b'_size": -1'), length), ["no size"]),
    ],
)
def test_raw_tensors_that_do_not_fit(scaling, change, words):
    body, headers = binary_request([("x", "FP32", np.ones((1, 3), np.float32))])
    body, length = change(body, int(headers["Inference-Header-Content-Length"]))
    answer = call(scaling, "POST", INFER, body, headers={"Inference-Header-Content-Length": str(length)})
    assert answer.status_code == 400
    for word in words:
        assert word in answer.json()["error"]


@pytest.mark.parametrize(
    "raw",
    [struct.pack("<I", 10) + b"abc", b"\x01\x00", struct.pack("<I", 2) + b"\xff\xfe", struct.pack("<I", 2**32 - 1)],
)
def test_broken_texts_are_refused(echoing, raw):
    body, headers = binary_request(ALL[:-1])
    length = int(headers["Inference-Header-Content-Length"])
    head = json.loads(body[:length])
    head["inputs"].append(
        {"name": "in_BYTES", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(raw)}}
    )
    document = json.dumps(head).encode()
    answer = call(
        echoing,
        "POST",
        INFER,
        document + body[length:] + raw,
        headers={"Inference-Header-Content-Length": str(len(document))},
    )
    assert answer.status_code == 400
    assert "in_BYTES" in answer.json()["error"]


@pytest.mark.parametrize("parameters", [{"timeout": -1}, {"priority": "high"}, {"timeout": 1.5}, {"priority": True}])
def test_parameters_that_do_not_fit(scaling, parameters):
    answer = call(scaling, "POST", INFER, {"inputs": [x()], "parameters": parameters})
    assert answer.status_code == 400
    assert (
        call(scaling, "POST", INFER, {"inputs": [x()], "parameters": {"timeout": 10**7, "priority": 1}}).status_code
        == 200
    )


numbers = st.sampled_from([one for one in KINDS if one != "BYTES"])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), datatype=numbers)
def test_values_survive_every_way_of_travelling(data, datatype):
    dtype = DTYPES[datatype]
    kinds = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    array = data.draw(
        hnp.arrays(dtype, hnp.array_shapes(max_dims=3, max_side=4), elements=hnp.from_dtype(dtype, **kinds))
    )
    sent = memoryview(raw_bytes(OutputTensor("x", datatype, array.shape, array)))
    for content in (sent, array.ravel().tolist()):
        found = to_array(InputTensor("x", datatype, array.shape, content))
        assert found.dtype == dtype
        assert found.tobytes() == array.ravel().tobytes()


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(max_size=20), max_size=10))
def test_texts_survive_every_way_of_travelling(texts):
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    sent = memoryview(raw_bytes(OutputTensor("x", "BYTES", array.shape, array)))
    assert to_array(InputTensor("x", "BYTES", [len(texts)], sent)).tolist() == texts


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=80), length=st.integers(-2, 90))
def test_no_bytes_make_a_fault_of_the_server(scaling, body, length):
    answer = call(scaling, "POST", INFER, body, headers={"Inference-Header-Content-Length": str(length)})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"a": 1}, 'row 1: field "b" is required'),
        ({"a": 1, "b": None}, 'row 1: field "b" must not be null'),
        ({"c": 1}, 'row 1: fields "a", "b" are required'),
        ({}, "row 1: the row has none of the model's fields; expected fields: a, b, c"),
    ],
)
def test_a_row_carries_what_the_model_cannot_do_without(tmp_path, row, said):
    app = ServingApplication(
        ModelSet([open_model(scale(tmp_path / "m", columns=("a", "b", "c"), required=("a", "b")))])
    )
    for path, body in [("/v1/models/graph/predict", row), ("/invocations", {"dataframe_records": [row]})]:
        answer = call(app, "POST", path, body)
        assert (answer.status_code, answer.json()) == (400, {"error": said})
    card = call(app, "GET", "/v1/models/graph").json()
    assert [one["required"] for one in card["request"]] == [True, True, False]
    whole = call(app, "POST", "/v1/models/graph/predict", {"a": 1, "b": 2})
    assert whole.json()["scaled"] == [2, 4, None]


def test_a_row_without_any_field_is_refused_where_all_may_be_missing(scaling):
    answer = call(scaling, "POST", "/v1/models/graph/predict", [{"a": 1}, {}])
    assert (answer.status_code, "row 2: the row has none" in answer.text) == (400, True)


@pytest.fixture
def weighted(tmp_path):
    """A matrix [n, 2] times a single value."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "weighted",
        [tensor("x", "FP32", ["n", 2]), tensor("factor", "FP32", [])],
        [tensor("y", "FP32", ["n", 2])],
    )
    return ServingApplication(ModelSet([open_model(write(tmp_path / "weighted", graph, exact=False))]))


def test_a_single_value_is_taken_as_a_tensor_and_in_rows(weighted):
    matrix = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}
    factor = {"name": "factor", "datatype": "FP32", "shape": [], "data": [3]}
    (output,) = call(weighted, "POST", "/v2/models/graph/infer", {"inputs": [matrix, factor]}).json()["outputs"]
    assert (output["shape"], output["data"]) == ([2, 2], [3, 6, 9, 12])
    several = call(weighted, "POST", "/v2/models/graph/infer", {"inputs": [matrix, factor | {"shape": [1]}]})
    assert several.status_code == 400
    rows = [{"x": [1, 2], "factor": 3}, {"x": [3, 4], "factor": 3}]
    found = call(weighted, "POST", "/v1/models/graph/predict", {"rows": rows}).json()["predictions"]
    assert [one["y"] for one in found] == [[3, 6], [9, 12]]
    refused = call(weighted, "POST", "/v1/models/graph/predict", {"rows": [rows[0], rows[1] | {"factor": 4}]})
    assert (refused.status_code, "the rows have several" in refused.text) == (400, True)
    empty = call(weighted, "POST", "/v1/models/graph/predict", {"rows": []})
    assert (empty.status_code, "there are no rows" in empty.text) == (400, True)
