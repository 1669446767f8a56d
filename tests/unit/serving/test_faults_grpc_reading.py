"""Large messages beside small ones over gRPC: nobody waits for values to be made of a large one."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest
from grpc_support import SERVICE, message, packed, served
from serving_graphs import echo, scale
from test_faults_reading import MANY, Gate

from cumulant.core.errors import RequestError
from cumulant.serving.app import ServingApplication
from cumulant.serving.endpoints import request_bodies
from cumulant.serving.grpc.codec import is_large, read_message
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.protocol.tensors import PIECE, InputTensor, to_array


def asked(rows, *, typed=True):
    found = message("ModelInferRequest", model_name="graph")
    tensor = found.inputs.add(name="x", datatype="FP32", shape=[rows, 3])
    if typed:
        tensor.contents.fp32_contents.extend([1.0, 2.0, 3.0] * rows)
    else:
        found.raw_input_contents.append(packed("FP32", [1.0, 2.0, 3.0] * rows))
    found.outputs.add(name="total")
    return found


def totals(answer):
    return set(answer.outputs[0].contents.fp32_contents)


@pytest.fixture
def gated(tmp_path):
    model = open_model(scale(tmp_path / "graph", 2.0))
    return ServingApplication(ModelSet([model])), Gate(model)


def run(app, talk):
    async def act():
        async with served(app) as client:
            await talk(client)

    asyncio.run(act())


async def begun(client, gate, **options):
    """A large call whose reading is held up."""
    large = asyncio.ensure_future(client.infer(asked(MANY), **options))
    assert await asyncio.to_thread(gate.begun.wait, 20)
    return large


def test_others_are_answered_while_a_large_message_is_read(gated):
    app, gate = gated

    async def talk(client):
        large = await begun(client, gate)
        for _ in range(20):
            assert totals(await client.infer(asked(1))) == {12.0}
        assert not large.done()
        gate.opened.set()
        assert totals(await large) == {12.0}

    run(app, talk)


def test_streams_too(gated):
    app, gate = gated

    async def talk(client):
        bodies = [asked(MANY).SerializeToString(), asked(1).SerializeToString()]
        stream = asyncio.ensure_future(client.stream(f"{SERVICE}ModelStreamInfer", bodies))
        assert await asyncio.to_thread(gate.begun.wait, 20)
        assert totals(await client.infer(asked(1))) == {12.0}
        gate.opened.set()
        assert len(await stream) == 2

    run(app, talk)


@pytest.mark.parametrize("kept", [True, False])
def test_a_model_that_is_taken_away_while_a_message_is_read(gated, tmp_path, kept):
    app, gate = gated

    async def talk(client):
        large = await begun(client, gate)
        old = app.models.get("graph")
        app.models = ModelSet([open_model(scale(tmp_path / "new", 3.0))] if kept else [])
        old.close()
        gate.opened.set()
        if kept:
            assert totals(await large) == {18.0}
            return
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await large
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND

    run(app, talk)


def test_large_messages_that_wait_are_bounded(gated, monkeypatch):
    app, gate = gated
    monkeypatch.setattr(request_bodies, "_MOST", len(asked(MANY).SerializeToString()) + 1000)

    async def talk(client):
        large = await begun(client, gate)
        trailing = await client.refused(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "wait to be read", "ModelInfer", asked(MANY)
        )
        assert trailing["retry-after"] == "1"
        gate.opened.set()
        assert totals(await large) == {12.0}
        assert totals(await client.infer(asked(MANY))) == {12.0}

    run(app, talk)
    counted = {one.labels[-1]: one.value for one in app.series() if one.family == "cumulant_requests_total"}
    assert counted == {"200": 2, "429": 1}


def test_a_fault_of_a_large_message_is_told(gated):
    app, gate = gated
    gate.opened.set()
    wrong = asked(MANY)
    wrong.inputs[0].shape[0] = MANY + 1

    async def talk(client):
        await client.refused(grpc.StatusCode.INVALID_ARGUMENT, "values where its shape", "ModelInfer", wrong)

    run(app, talk)


def test_what_is_large():
    """Typed values and raw texts are made one by one, raw numbers are not."""

    def large(asked):
        size = asked.ByteSize()
        return is_large(asked, [memoryview(raw) for raw in asked.raw_input_contents], size)

    texts = message("ModelInferRequest", model_name="graph", raw_input_contents=[b"\0" * 400_000])
    texts.inputs.add(name="x", datatype="BYTES", shape=[100_000])
    assert [large(asked(MANY)), large(asked(MANY, typed=False)), large(texts), large(asked(5))] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("count", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5])
@pytest.mark.parametrize("datatype", ["FP32", "INT64", "BOOL", "BYTES"])
def test_values_that_are_gone_through_piece_by_piece_are_all_there(tmp_path, count, datatype):
    values = {
        "FP32": [k / 2 for k in range(count)],
        "INT64": list(range(count)),
        "BOOL": [k % 3 == 0 for k in range(count)],
        "BYTES": [f"é{k}" for k in range(count)],
    }[datatype]
    fields = {"FP32": "fp32_contents", "INT64": "int64_contents", "BOOL": "bool_contents", "BYTES": "bytes_contents"}
    assert to_array(InputTensor("x", datatype, [count], values)).tolist() == values
    app = ServingApplication(ModelSet([open_model(echo(tmp_path / "echo", (datatype,)))]))
    given = [value.encode() for value in values] if datatype == "BYTES" else values  # type: ignore[attr-defined]
    sent = message("ModelInferRequest", model_name="graph")
    tensor = sent.inputs.add(name=f"in_{datatype}", datatype=datatype, shape=[count, 1])
    getattr(tensor.contents, fields[datatype]).extend(given)

    async def talk(client):
        answer = await client.infer(sent)
        assert list(getattr(answer.outputs[0].contents, fields[datatype])) == given

    run(app, talk)


def test_a_value_that_does_not_fit_is_found_in_every_piece():
    values = [0] * (2 * PIECE)
    values[-1] = 2**40
    with pytest.raises(Exception, match="no INT32"):
        to_array(InputTensor("x", "INT32", [len(values)], values))
    assert np.array_equal(to_array(InputTensor("x", "INT64", [len(values)], values)), np.array(values))


@pytest.mark.parametrize("field", ["inputs", "outputs", "raw_input_contents", "parameters"])
@pytest.mark.parametrize("before", [b"", b"\x98\x06\x01", b"\x99\x06" + bytes(8), b"\x9d\x06" + bytes(4)])
def test_a_message_of_millions_of_empty_parts_is_refused_before_it_is_read(field, before):
    """Also behind a field that is not known."""
    tag = message("ModelInferRequest").DESCRIPTOR.fields_by_name[field].number << 3 | 2
    with pytest.raises(RequestError, match="more than 10000"):
        read_message(before + bytes([tag, 0]) * 4_000_000)
    assert read_message(before + asked(MANY).SerializeToString())[0].model_name == "graph"


def part(kind, name, content):
    """The field `name` of the message `kind`, with `content`."""
    given = message(kind)
    number = given.DESCRIPTOR.fields_by_name[name].number
    rest, size = bytearray(), len(content)
    while size >= 0x80:
        rest.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *rest, size]) + content


NESTED = [("inputs", "ModelInferRequest.InferInputTensor"), ("outputs", "ModelInferRequest.InferRequestedOutputTensor")]


@pytest.mark.parametrize(("field", "kind"), NESTED)
@pytest.mark.parametrize(("parts", "parameters"), [(1, 2_000_000), (1000, 20), (2, 6000)])
def test_a_part_of_millions_of_parameters_is_refused_before_it_is_read(field, kind, parts, parameters):
    one = part("ModelInferRequest", field, part(kind, "parameters", b"") * parameters)
    with pytest.raises(RequestError, match="more than 10000"):
        read_message(one * parts + asked(MANY).SerializeToString())


def test_many_inputs_with_all_of_their_fields_are_read():
    given = message("ModelInferRequest")
    for number in range(9000):
        tensor = given.inputs.add(name=f"x{number}", datatype="FP32", shape=[1])
        tensor.contents.fp32_contents.append(1.0)
    given.inputs[0].parameters["a"].bool_param = True
    assert len(read_message(given.SerializeToString())[0].inputs) == 9000


@pytest.mark.parametrize("content", [b"\x22", b"\x22\x05", b"\x23", b"\xff" * 20])
def test_a_broken_input_of_a_large_message_is_refused(content):
    with pytest.raises(RequestError, match="no message"):
        read_message(part("ModelInferRequest", "inputs", content) + asked(MANY).SerializeToString())


@pytest.mark.parametrize("end", [b"\x2a", b"\x2a\x05", b"\x2b", b"\x9c\x06", b"\xff" * 20, b"\x99\x06"])
def test_a_broken_end_of_a_large_message_is_refused(end):
    with pytest.raises(RequestError, match="no message"):
        read_message(asked(MANY).SerializeToString() + end)
