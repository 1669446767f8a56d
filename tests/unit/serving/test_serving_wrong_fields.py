"""A request with several values of a wrong type is refused with all of them, in rows and tensors, JSON and protobuf."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving_graphs import scale
from serving_models import FIELDS, PLAIN, ROW, servable

from cumulant.core.errors import RequestError
from cumulant.core.plan import FeaturePlan, Field
from cumulant.serving.grpc import codec
from cumulant.serving.grpc.messages import message_class
from cumulant.serving.models.model import open_model
from cumulant.serving.protocol.request_schema import RequestSchema
from cumulant.serving.protocol.tensors import InputTensor

WRONG = {
    "distance": "far",
    "sched_dep": "noon",
    "carrier": 5,
    "tail": [1],
    "seats": 1.5,
    "charter": "yes",
    "day": "1 April",
}
RIGHT = {**ROW, "seats": 100, "charter": True, "day": "2013-04-01"}
SCHEMA = RequestSchema(PLAIN)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows") / "model"
    servable(folder)
    return open_model(folder)


def refusal(model, rows=None, inputs=None):
    with pytest.raises(RequestError) as refused:
        model.from_rows(rows) if inputs is None else model.from_tensors(inputs)
    return refused.value


@given(st.sets(st.sampled_from(sorted(WRONG)), min_size=1), st.permutations(sorted(WRONG)))
def test_each_wrong_field_of_a_row_is_named_and_no_other(wrong, order):
    row = {name: WRONG[name] if name in wrong else RIGHT[name] for name in order}
    with pytest.raises(RequestError) as refused:
        SCHEMA.row(row, "row 3: ")
    error = refused.value
    named = [name for name in order if name in wrong]
    assert error.message.startswith(f'row 3: field "{named[0]}" must be ')
    assert error.subject == named[0]
    assert [part.split('"')[1] for part in error.message.split("; ")] == named
    alone = []
    for name in named:
        with pytest.raises(RequestError) as single:
            SCHEMA.row({**RIGHT, name: WRONG[name]})
        alone.append(single.value.message)
    assert error.message == f"row 3: {'; '.join(alone)}"


def test_at_most_ten_are_named():
    fields = tuple(Field(f"f{place}", "int") for place in range(30))
    schema = RequestSchema(FeaturePlan(PLAIN.entity, None, {}, (), fields))
    for count in (10, 11, 30):
        with pytest.raises(RequestError) as refused:
            schema.row({f"f{place}": "x" * 10_000 for place in range(count)})
        assert refused.value.message.count("must be") == 10
        assert refused.value.message.endswith("; and more") == (count > 10)
        assert len(refused.value.message) < 2_000


def test_tensors_of_another_datatype_are_all_named(model):
    inputs = [
        InputTensor("carrier", "BYTES", [1], ["UA"]),
        InputTensor("distance", "BYTES", [1], ["500"]),
        InputTensor("sched_dep", "BYTES", [1], ["2013-04-01T18:00:00"]),
        InputTensor("charter", "INT64", [1, 2], [1, 1]),
        InputTensor("seats", "FP64", [-1], [1.0]),
    ]
    assert refusal(model, inputs=inputs).message == (
        'input "distance" has datatype BYTES, expected FP64; input "charter" has datatype INT64, expected BOOL;'
        ' input "seats" has shape [-1], expected [n] or [n, 1]'
    )


def test_values_of_a_wrong_type_are_all_named_over_grpc(model):
    request = message_class("ModelInferRequest")(model_name=model.name)
    for name, value in {"sched_dep": "noon", "carrier": "UA", "day": "1 April"}.items():
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(value.encode())
    request.inputs.add(name="distance", datatype="FP64", shape=[1]).contents.fp64_contents.append(float("nan"))
    request.inputs.add(name="charter", datatype="BOOL", shape=[1]).contents.bool_contents.append(True)
    message, raws = codec.read_message(request.SerializeToString())
    call = codec.read_call(message, raws, received=0.0, remaining=None, client="")
    row = {"sched_dep": "noon", "carrier": "UA", "day": "1 April", "distance": float("nan"), "charter": True}
    over_json = refusal(model, rows=[row]).message
    assert over_json.count("must be") == 3
    assert refusal(model, inputs=call.inputs).message == over_json


def test_graphs_name_each_input_and_column_that_does_not_fit(tmp_path):
    graph = open_model(scale(tmp_path / "graph", columns=("a", "b", "c")))
    assert refusal(graph, rows=[{"a": 1, "b": 2, "c": 3}, {"a": "x", "b": 2, "c": [3]}]).message == (
        'row 2: "a" must be a number or null; "c" must be a number or null'
    )


def test_every_field_has_a_wrong_value_here():
    assert {field.name for field in FIELDS} == set(WRONG) == set(RIGHT)
