"""The protocol over gRPC, by a plain client that sends and reads the bytes of messages."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import struct
import subprocess
import sys
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from serving_models import call as http
from serving_models import servable
from tensor_models import ELEMENTS, write_double, write_echo, write_mixed

from cumulant.core.errors import EngineUnavailableError, OverloadedError, PortInUseError
from cumulant.serving import Application, ModelSet, open_model
from cumulant.serving.control import Control, Staff
from cumulant.serving.fleet import Alone
from cumulant.serving.grpc import start
from cumulant.serving.grpc.messages import HEALTH, INFERENCE, REFLECTION
from cumulant.serving.repository import Repository
from cumulant.serving.scheduling import Scheduling

SERVICE = "/inference.GRPCInferenceService/"
Code = grpc.StatusCode
FIELDS = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
NUMPY = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
EDGES = {
    "BOOL": [True, False], "UINT8": [0, 255], "UINT16": [0, 65535], "UINT32": [0, 2**32 - 1], "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127], "INT16": [-(2**15), 2**15 - 1], "INT32": [-(2**31), 2**31 - 1], "INT64": [-(2**63), 2**63 - 1],
    "FP16": [0.5, -65504.0], "FP32": [0.5, -3.0e38], "FP64": [0.1, -1.0e308], "BYTES": ["grüße", ""],
}  # fmt: skip


def message(name, /, **fields):
    return INFERENCE.message(name)(**fields)


def packed(datatype, values):
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(v.encode())) + v.encode() for v in values)
    return np.array(values, dtype=NUMPY[datatype]).tobytes()


def unpacked(datatype, raw):
    if datatype != "BYTES":
        return np.frombuffer(raw, dtype=NUMPY[datatype]).tolist()
    found = []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        found.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return found


def doubled(values=(1.0, 2.0, 3.0), model="double", **fields):
    asked = message("ModelInferRequest", model_name=model, **fields)
    asked.inputs.add(name="x", datatype="FP32", shape=[len(values) // 3, 3])
    asked.raw_input_contents.append(packed("FP32", values))
    return asked


def echoed(datatypes=tuple(ELEMENTS), *, typed=False):
    """Every datatype once, but `typed` those that can be."""
    asked = message("ModelInferRequest", model_name="echo", id="grüße")
    for datatype in datatypes:
        tensor = asked.inputs.add(name=datatype, datatype=datatype, shape=[2, 1])
        if typed and datatype in FIELDS:
            values = [v.encode() for v in EDGES[datatype]] if datatype == "BYTES" else EDGES[datatype]
            getattr(tensor.contents, FIELDS[datatype]).extend(values)
        else:
            asked.raw_input_contents.append(packed(datatype, EDGES[datatype]))
    return asked


class Client:
    def __init__(self, channel, port):
        self.channel, self.port = channel, port

    async def raw(self, method, body, **options):
        return await self.channel.unary_unary(method)(body, **options)

    async def ask(self, name, request=None, **options):
        request = message(f"{name}Request") if request is None else request
        body = await self.raw(SERVICE + name, request.SerializeToString(), **options)
        return INFERENCE.message(f"{name}Response").FromString(body)

    async def infer(self, request, **options):
        return await self.ask("ModelInfer", request, **options)

    async def refused(self, code, words, name, request, **options):
        body = request if isinstance(request, bytes) else request.SerializeToString()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.raw(SERVICE + name, body, **options)
        assert (caught.value.code(), words in caught.value.details()) == (code, True), caught.value
        return dict(caught.value.trailing_metadata())

    async def stream(self, method, messages):
        found = self.channel.stream_stream(method)(iter(messages))
        return [one async for one in found]


@asynccontextmanager
async def served(app, **options):
    server = await start(app, "127.0.0.1", 0)
    channel = grpc.aio.insecure_channel(
        f"127.0.0.1:{server.port}", options=[("grpc.use_local_subchannel_pool", 1), *options.items()]
    )
    try:
        async with channel:
            yield Client(channel, server.port)
    finally:
        await server.stop(1)


def over(app, talk, **options):
    async def run():
        async with served(app, **options) as client:
            return await talk(client)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("grpc")
    return {
        "echo": write_echo(root / "echo"),
        "mixed": write_mixed(root / "mixed"),
        "double": write_double(root / "double", version="3"),
        "flight-late": servable(root / "flight-late"),
    }


@pytest.fixture(scope="module")
def app(folders):
    models = [open_model(folder) for folder in folders.values()]
    yield Application(ModelSet(models))
    for model in models:
        model.close()


@pytest.fixture
def slow(folders):
    """Nothing runs on the event loop: requests wait for their turn."""
    model = open_model(folders["double"], scheduling=Scheduling(inline=0.0))
    yield Application(ModelSet([model]))
    model.close()


# --- the server and its models


def test_the_server_and_its_models_tell_of_themselves(app):
    async def talk(client):
        assert (await client.ask("ServerLive")).live
        assert (await client.ask("ServerReady")).ready
        server = await client.ask("ServerMetadata")
        assert (server.name, "statistics" in server.extensions) == ("cumulant", True)
        named = {"name": "double", "version": "3"}
        assert (await client.ask("ModelReady", message("ModelReadyRequest", **named))).ready
        assert not (await client.ask("ModelReady", message("ModelReadyRequest", name="double", version="4"))).ready
        assert not (await client.ask("ModelReady", message("ModelReadyRequest", name="nope"))).ready
        meta = await client.ask("ModelMetadata", message("ModelMetadataRequest", name="mixed"))
        assert (meta.name, list(meta.versions)) == ("mixed", ["1"])
        told = [(one.name, one.datatype, list(one.shape)) for one in meta.inputs]
        assert told == [("x", "FP32", [-1, -1]), ("words", "BYTES", [-1]), ("half", "FP16", [-1, 2])]
        assert [one.name for one in meta.outputs] == ["total", "words_out", "half_out"]
        config = (await client.ask("ModelConfig", message("ModelConfigRequest", **named))).config
        assert list(config.version_policy.specific.versions) == [3]
        assert (config.input[0].data_type, list(config.output[0].dims)) == (11, [-1, 3])

    over(app, talk)


def test_statistics_count_what_was_answered_over_grpc(folders):
    model = open_model(folders["double"])

    async def talk(client):
        for _ in range(3):
            await client.infer(doubled())
        await client.refused(
            Code.INVALID_ARGUMENT, "missing", "ModelInfer", message("ModelInferRequest", model_name="double")
        )
        return await client.ask("ModelStatistics", message("ModelStatisticsRequest", name="double"))

    app = Application(ModelSet([model]))
    (found,) = over(app, talk).model_stats
    assert (found.inference_count, found.inference_stats.success.count, found.inference_stats.fail.count) == (3, 3, 1)
    assert found.inference_stats.success.ns > 0
    assert {one.labels[2] for one in app.series() if one.family == "cumulant_requests_total"} == {"grpc"}
    model.close()


@pytest.mark.parametrize("name", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_what_is_not_there_is_not_found(app, name):
    async def talk(client):
        for asked in ({"name": "doubel"}, {"name": "double", "version": "9"}):
            await client.refused(Code.NOT_FOUND, "no ", name, message(f"{name}Request", **asked))
        await client.refused(Code.NOT_FOUND, "doubel", "ModelInfer", doubled(model="doubel"))
        await client.refused(Code.NOT_FOUND, "9", "ModelInfer", doubled(model_version="9"))

    over(app, talk)


# --- inference


@pytest.mark.parametrize("typed", [False, True])
def test_every_datatype_both_ways(app, typed):
    found = over(app, lambda client: client.infer(echoed(typed=typed)))
    assert (found.model_name, found.model_version, found.id) == ("echo", "1", "grüße")
    assert [one.name for one in found.outputs] == [f"{datatype}_out" for datatype in ELEMENTS]
    for output, raw in zip(found.outputs, found.raw_output_contents, strict=True):
        assert list(output.shape) == [2, 1]
        expected = np.float32(EDGES["FP32"]).tolist() if output.datatype == "FP32" else EDGES[output.datatype]
        assert unpacked(output.datatype, raw) == expected


def test_typed_values_are_answered_with_typed_values(app):
    asked = message("ModelInferRequest", model_name="double")
    asked.inputs.add(name="x", datatype="FP32", shape=[1, 3]).contents.fp32_contents.extend([1, 2, 3])
    found = over(app, lambda client: client.infer(asked))
    assert not found.raw_output_contents
    assert list(found.outputs[0].contents.fp32_contents) == [2, 4, 6]


def test_outputs_are_selected_and_parameters_that_mean_nothing_here_are_ignored(app):
    asked = echoed()
    asked.outputs.add(name="INT8_out")
    asked.outputs.add(name="BYTES_out").parameters["binary_data"].bool_param = True
    asked.parameters["sequence_id"].int64_param = 7
    asked.parameters["sequence_start"].bool_param = True
    asked.parameters["priority"].uint64_param = 1
    asked.parameters["timeout"].int64_param = 5_000_000
    asked.parameters["own"].string_param = "x"
    found = over(app, lambda client: client.infer(asked))
    assert [one.name for one in found.outputs] == ["INT8_out", "BYTES_out"]
    assert unpacked("INT8", found.raw_output_contents[0]) == EDGES["INT8"]


@pytest.mark.parametrize("rows", [0, 1, 400, 40_000])
def test_tensors_of_any_size(app, rows):
    values = np.arange(3 * rows, dtype=np.float32)
    asked = doubled(values.tolist(), id="a" * 256)
    found = over(app, lambda client: client.infer(asked), **{"grpc.max_receive_message_length": -1})
    assert list(found.outputs[0].shape) == [rows, 3]
    np.testing.assert_array_equal(np.frombuffer(found.raw_output_contents[0], np.float32), values * 2)
    assert found.id == "a" * 256


def test_large_messages_whose_raw_tensors_do_not_come_last(app):
    """Fields may come in any order; here the tensors come first."""
    values = np.arange(30_000, dtype=np.float32)
    asked = doubled(values.tolist())
    raw = asked.raw_input_contents[0]
    asked.ClearField("raw_input_contents")
    head = message("ModelInferRequest", raw_input_contents=[raw]).SerializeToString()

    async def talk(client):
        return await client.raw(SERVICE + "ModelInfer", head + asked.SerializeToString())

    found = INFERENCE.message("ModelInferResponse").FromString(over(app, talk))
    np.testing.assert_array_equal(np.frombuffer(found.raw_output_contents[0], np.float32), values * 2)


def test_rows_as_tensors_answer_as_over_http(app):
    asked = message("ModelInferRequest", model_name="flight-late")
    row = {
        "distance": ("FP64", 500.0),
        "sched_dep": ("BYTES", "2013-04-01T18:00:00"),
        "carrier": ("BYTES", "UA"),
        "tail": ("BYTES", "N1"),
    }
    document = {"inputs": []}
    for name, (datatype, value) in row.items():
        asked.inputs.add(name=name, datatype=datatype, shape=[1])
        asked.raw_input_contents.append(packed(datatype, [value]))
        document["inputs"].append({"name": name, "datatype": datatype, "shape": [1], "data": [value]})
    found = over(app, lambda client: client.infer(asked))
    plain = http(app, "POST", "/v2/models/flight-late/infer", document).json()
    for output, raw, other in zip(found.outputs, found.raw_output_contents, plain["outputs"], strict=True):
        assert (output.name, unpacked(output.datatype, raw)) == (other["name"], other["data"])
    typed = message("ModelInferRequest", model_name="flight-late")
    for name, (datatype, value) in row.items():
        tensor = typed.inputs.add(name=name, datatype=datatype, shape=[1])
        getattr(tensor.contents, FIELDS[datatype]).append(value.encode() if datatype == "BYTES" else value)
    again = over(app, lambda client: client.infer(typed))
    for output, other in zip(again.outputs, plain["outputs"], strict=True):
        values = getattr(output.contents, FIELDS[output.datatype])
        assert [v.decode() if isinstance(v, bytes) else v for v in values] == other["data"]


def test_parallel_calls_each_get_their_own_answer(app):
    async def talk(client):
        async def one(k):
            found = await client.infer(doubled([k, k, k], id=str(k)))
            assert (found.id, unpacked("FP32", found.raw_output_contents[0])) == (str(k), [2 * k] * 3)

        await asyncio.gather(*map(one, range(300)))

    over(app, talk)


def test_a_stream_goes_on_after_a_request_that_is_refused(app):
    asked = [doubled([k, k, k], id=str(k)) for k in range(4)]
    asked[1].inputs[0].shape[:] = [7, 7]
    asked[3].parameters["triton_enable_empty_final_response"].bool_param = True
    bodies = [one.SerializeToString() for one in asked]
    bodies.insert(2, b"\xff\xff")
    found = over(app, lambda client: client.stream(SERVICE + "ModelStreamInfer", bodies))
    found = [INFERENCE.message("ModelStreamInferResponse").FromString(one) for one in found]
    assert [bool(one.error_message) for one in found] == [False, True, True, False, False]
    assert [one.infer_response.id for one in found] == ["0", "1", "", "2", "3"]
    assert unpacked("FP32", found[3].infer_response.raw_output_contents[0]) == [4.0] * 3
    assert found[4].infer_response.parameters["triton_final_response"].bool_param


# --- wrong input


def _wrong(change):
    asked = doubled()
    change(asked)
    return asked


def _typed(field, values, datatype="FP32"):
    asked = message("ModelInferRequest", model_name="double")
    tensor = asked.inputs.add(name="x", datatype=datatype, shape=[1, 3])
    getattr(tensor.contents, field).extend(values)
    return asked


WRONG = {
    "bytes missing": (lambda a: a.raw_input_contents.__setitem__(0, b"\0" * 11), "11 bytes"),
    "bytes too many": (lambda a: a.raw_input_contents.__setitem__(0, b"\0" * 13), "13 bytes"),
    "no bytes": (lambda a: a.raw_input_contents.__setitem__(0, b""), "0 bytes"),
    "a part too many": (lambda a: a.raw_input_contents.append(b""), "2 parts"),
    "no part": (lambda a: a.raw_input_contents.pop(), "0 values"),
    "contents and a part": (lambda a: a.inputs[0].contents.fp32_contents.extend([1, 2, 3]), "1 parts"),
    "datatype unknown": (lambda a: setattr(a.inputs[0], "datatype", "FP31"), "FP31"),
    "datatype of another": (lambda a: setattr(a.inputs[0], "datatype", "INT32"), "INT32"),
    "datatype empty": (lambda a: setattr(a.inputs[0], "datatype", ""), "datatype"),
    "shape of another rank": (lambda a: a.inputs[0].shape.append(1), "shape"),
    "shape negative": (lambda a: a.inputs[0].shape.__setitem__(0, -1), "shape"),
    "shape huge": (lambda a: a.inputs[0].shape.__setitem__(0, 2**62), "shape"),
    "shape of a thousand": (lambda a: a.inputs[0].shape.extend([1] * 1000), "shape"),
    "input unknown": (lambda a: setattr(a.inputs[0], "name", "z"), "z"),
    "input twice": (lambda a: (a.inputs.append(a.inputs[0]), a.raw_input_contents.append(b"\0" * 12)), "x"),
    "output unknown": (lambda a: a.outputs.add(name="z"), "z"),
    "classification": (lambda a: a.outputs.add(name="y").parameters["classification"].__setattr__("int64_param", 0), "classification"),
    "shared memory": (lambda a: a.inputs[0].parameters["shared_memory_region"].__setattr__("string_param", "r"), "shared_memory"),
    "timeout negative": (lambda a: a.parameters["timeout"].__setattr__("int64_param", -1), "timeout"),
    "timeout a text": (lambda a: a.parameters["timeout"].__setattr__("string_param", "1"), "timeout"),
    "priority a fraction": (lambda a: a.parameters["priority"].__setattr__("double_param", 0.5), "priority"),
    "timeout nothing": (lambda a: a.parameters["timeout"].Clear(), "timeout"),
    "id too long": (lambda a: setattr(a, "id", "x" * 257), "256"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_an_invalid_argument(app, case):
    change, words = WRONG[case]

    async def talk(client):
        await client.refused(Code.INVALID_ARGUMENT, words, "ModelInfer", _wrong(change))
        assert len((await client.infer(doubled())).outputs) == 1

    over(app, talk)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (_typed("fp32_contents", [1, 2]), "2 values"),
        (_typed("fp32_contents", [1, 2, 3, 4]), "4 values"),
        (_typed("fp64_contents", [1, 2, 3]), "fp32_contents"),
        (_typed("int_contents", [300, 0, 0], "INT8"), "INT8"),
        (_typed("bytes_contents", [b"\0\0"], "FP16"), "raw_input_contents only"),
        (_typed("bytes_contents", [b"\xff", b"", b""], "BYTES"), "UTF-8"),
    ],
)  # fmt: skip
def test_wrong_typed_values_are_an_invalid_argument(app, asked, words):
    over(app, lambda client: client.refused(Code.INVALID_ARGUMENT, words, "ModelInfer", asked))


@pytest.mark.parametrize("field", ["int_contents", "uint_contents"])
def test_values_that_their_datatype_cannot_hold(app, field):
    asked = echoed(typed=True)
    tensor = next(one for one in asked.inputs if one.name == ("INT8" if field == "int_contents" else "UINT8"))
    getattr(tensor.contents, field)[0] = 300
    over(app, lambda client: client.refused(Code.INVALID_ARGUMENT, "no ", "ModelInfer", asked))


@pytest.mark.parametrize("raw", [b"\x05\0\0\0ab", b"\x01\0", b"\xff\xff\xff\xff", b"\x01\0\0\0\xff\0\0\0\0", b""])
def test_wrong_raw_texts(app, raw):
    asked = echoed()
    asked.raw_input_contents[-1] = raw
    over(app, lambda client: client.refused(Code.INVALID_ARGUMENT, "BYTES", "ModelInfer", asked))


def test_random_bytes_never_are_an_internal_error(app):
    """Of every method: each call is answered or refused as the caller's fault, and the server lives."""
    dice = random.Random(5)
    whole = [
        doubled().SerializeToString(),
        doubled([1.0] * 30_000).SerializeToString(),
        echoed(typed=True).SerializeToString(),
    ]
    names = ["ModelInfer", "ModelMetadata", "ModelStatistics", "RepositoryIndex", "ServerLive"]
    allowed = {Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.UNAVAILABLE}

    async def one(client, name, body):
        try:
            await client.raw(SERVICE + name, body)
            code = Code.OK
        except grpc.aio.AioRpcError as error:
            code = error.code()
        assert code in allowed, (name, body[:80])

    async def talk(client):
        for k in range(300):
            body = bytearray(dice.choice(whole))
            if k % 3 == 0:
                body = bytearray(dice.randbytes(dice.randrange(200)))
            else:
                for _ in range(dice.randrange(1, 5)):
                    body[dice.randrange(min(len(body), 120))] = dice.randrange(256)
                del body[dice.randrange(1, len(body)) if k % 3 == 1 else len(body) :]
            await one(client, dice.choice(names), bytes(body))
        assert len((await client.infer(doubled())).outputs) == 1

    over(app, talk)


def test_a_message_beyond_the_limit(folders):
    model = open_model(folders["double"])
    app = Application(ModelSet([model]), body_limit=10_000)

    async def talk(client):
        zeros = doubled([0.0] * 300_000)
        await client.refused(Code.RESOURCE_EXHAUSTED, "", "ModelInfer", zeros)
        await client.refused(Code.RESOURCE_EXHAUSTED, "", "ModelInfer", zeros, compression=grpc.Compression.Gzip)
        assert len((await client.infer(doubled(), compression=grpc.Compression.Gzip)).outputs) == 1

    over(app, talk)
    model.close()


def test_a_method_that_there_is_not(app):
    over(app, lambda client: client.refused(Code.UNIMPLEMENTED, "", "TraceSetting", b""))


# --- time and load


def test_a_timeout_that_cannot_be_met_is_a_deadline_exceeded(slow):
    asked = doubled()
    asked.parameters["timeout"].int64_param = 1
    over(slow, lambda client: client.refused(Code.DEADLINE_EXCEEDED, "timeout", "ModelInfer", asked))


def test_the_deadline_of_the_call_counts_as_well(slow, monkeypatch):
    (model,) = slow.models
    seen = []
    later = model.runner.later

    async def spy(feeds, rows, demand):
        seen.append(demand)
        return await later(feeds, rows, demand)

    monkeypatch.setattr(model.runner, "later", spy)

    async def talk(client):
        patient, asked = doubled([1, 1, 1]), doubled([2, 2, 2])  # distinct: answers are remembered
        asked.parameters["timeout"].int64_param = 1_000_000
        patient.parameters["timeout"].int64_param = 60_000_000
        await client.infer(doubled([3, 3, 3]))
        await client.infer(doubled([4, 4, 4]), timeout=20)
        await client.infer(asked, timeout=20)
        await client.infer(patient, timeout=20)

    over(slow, talk)
    first, second, third, fourth = (one.deadline for one in seen)
    assert first is None
    assert third < second < third + 60
    assert abs(second - fourth) < 10
    assert {one.client for one in seen} == {"ipv4:127.0.0.1"}


@pytest.mark.parametrize(
    ("error", "code", "after"),
    [
        (OverloadedError("too much to do", retry_after=1.2), Code.RESOURCE_EXHAUSTED, "2"),
        (EngineUnavailableError("too far away"), Code.UNAVAILABLE, "1"),
    ],
)
def test_refusals_say_when_to_try_again(slow, monkeypatch, error, code, after):
    (model,) = slow.models

    async def later(*_):
        raise error

    monkeypatch.setattr(model.runner, "later", later)
    trailing = over(slow, lambda client: client.refused(code, "too ", "ModelInfer", doubled()))
    assert trailing["retry-after"] == after


def test_a_fault_of_the_server_is_told_without_its_inside(slow, monkeypatch, capfd):
    (model,) = slow.models

    def now(*_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(model.runner, "now", now)
    over(slow, lambda client: client.refused(Code.INTERNAL, "internal error", "ModelInfer", doubled()))
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_cancelled_calls_do_not_harm_the_others(slow):
    async def talk(client):
        async def one(k):
            call = client.channel.unary_unary(SERVICE + "ModelInfer")(doubled([k, k, k]).SerializeToString())
            if k % 2:
                await asyncio.sleep(0)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                return
            found = INFERENCE.message("ModelInferResponse").FromString(await call)
            assert unpacked("FP32", found.raw_output_contents[0]) == [2 * k] * 3

        await asyncio.gather(*map(one, range(40)))
        await client.infer(doubled())

    over(slow, talk)


# --- token, control, health, reflection


def test_a_token_is_needed_but_for_health(folders):
    model = open_model(folders["double"])
    app = Application(ModelSet([model]), token="sesame")

    async def talk(client):
        for metadata in ((), (("authorization", "Bearer sesam"),), (("authorization", "sesame"),)):
            for name in ("ModelInfer", "ServerMetadata", "RepositoryIndex"):
                await client.refused(Code.UNAUTHENTICATED, "token", name, b"", metadata=metadata)
        right = (("authorization", "Bearer sesame"),)
        assert len((await client.infer(doubled(), metadata=right)).outputs) == 1
        assert (await client.ask("ServerReady")).ready
        await client.raw("/grpc.health.v1.Health/Check", b"")
        for method in (SERVICE + "ModelStreamInfer", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"):
            call = client.channel.stream_stream(method)()  # nothing is sent: a write after the refusal would hide it
            assert await call.code() == Code.UNAUTHENTICATED

    over(app, talk)
    model.close()


def test_models_are_loaded_and_unloaded_where_control_is_on(folders):
    repository = Repository([str(folders["double"])])
    model = open_model(folders["double"])
    app = Application(ModelSet([model]))
    named = {"model_name": "double"}

    async def talk(client):
        await client.refused(Code.UNAVAILABLE, "starting", "RepositoryIndex", b"")

        async def put(models):
            app.models = models

        async def told():
            return app.series()

        staff = Staff(app.models, repository, open_model, put=put, told=told)
        fleet = Alone(staff)
        app.join(fleet, Control(fleet, repository), False)
        for name in ("Load", "Unload"):
            asked = message(f"RepositoryModel{name}Request", **named)
            await client.refused(Code.PERMISSION_DENIED, "by request", f"RepositoryModel{name}", asked)
        app.join(fleet, Control(fleet, repository), True)
        await client.ask("RepositoryModelUnload", message("RepositoryModelUnloadRequest", **named))
        await client.refused(Code.NOT_FOUND, "double", "ModelInfer", doubled())
        (one,) = (await client.ask("RepositoryIndex")).models
        assert (one.name, one.version, one.state) == ("double", "3", "UNAVAILABLE")
        assert not (await client.ask("RepositoryIndex", message("RepositoryIndexRequest", ready=True))).models
        asked = message("RepositoryModelLoadRequest", **named)
        await client.ask("RepositoryModelLoad", asked)
        assert len((await client.infer(doubled())).outputs) == 1
        asked.parameters["config"].string_param = "{}"
        await client.refused(Code.INVALID_ARGUMENT, "parameters", "RepositoryModelLoad", asked)
        nope = message("RepositoryModelLoadRequest", model_name="nope")
        await client.refused(Code.NOT_FOUND, "nope", "RepositoryModelLoad", nope)

    over(app, talk)
    for one in app.models:
        one.close()


def test_health(app):
    check, watch = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
    asked, answer = HEALTH.message("HealthCheckRequest"), HEALTH.message("HealthCheckResponse")

    def status(body):
        return answer.FromString(body).status

    async def talk():
        server = await start(app, "127.0.0.1", 0)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            for service in ("", "inference.GRPCInferenceService"):
                assert status(await channel.unary_unary(check)(asked(service=service).SerializeToString())) == 1
            for body, code in (
                (asked(service="x").SerializeToString(), Code.NOT_FOUND),
                (b"\xff", Code.INVALID_ARGUMENT),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(check)(body)
                assert caught.value.code() == code
            watching = channel.unary_stream(watch)(b"")
            unknown = channel.unary_stream(watch)(asked(service="x").SerializeToString())
            assert (status(await watching.read()), status(await unknown.read())) == (1, 3)
            idle = channel.stream_stream(SERVICE + "ModelStreamInfer")()
            await idle.write(doubled().SerializeToString())
            await idle.read()
            app.draining = True
            try:
                assert status(await channel.unary_unary(check)(b"")) == 2
                # Neither a watch nor an idle stream holds up the end.
                await asyncio.wait_for(server.stop(30), 5)
                assert status(await watching.read()) == 2
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await idle.read()
                assert caught.value.code() == Code.UNAVAILABLE
            finally:
                app.draining = False

    asyncio.run(talk())


@pytest.mark.parametrize("package", REFLECTION, ids=lambda package: package.name)
def test_reflection(app, package):
    asked = package.message("ServerReflectionRequest")
    questions = [
        asked(list_services=""),
        asked(file_containing_symbol="inference.GRPCInferenceService"),
        asked(file_containing_symbol="inference.GRPCInferenceService.ModelInfer"),
        asked(file_by_filename="grpc/health/v1/health.proto"),
        asked(all_extension_numbers_of_type="inference.ModelInferRequest"),
        asked(file_containing_symbol="nope"),
        asked(file_containing_extension={"containing_type": "inference.ModelInferRequest", "extension_number": 1}),
        asked(),
    ]
    method = f"/{package.services()[0]}/ServerReflectionInfo"
    bodies = [one.SerializeToString() for one in questions]
    said = over(app, lambda client: client.stream(method, bodies))
    found = [package.message("ServerReflectionResponse").FromString(one) for one in said]
    services = {one.name for one in found[0].list_services_response.service}
    assert services >= {"inference.GRPCInferenceService", "grpc.health.v1.Health", package.services()[0]}
    for answer, name in zip(found[1:4], ("inference", "inference", "grpc.health.v1"), strict=True):
        (described,) = answer.file_descriptor_response.file_descriptor_proto
        assert FileDescriptorProto.FromString(described).package == name
    assert found[4].all_extension_numbers_response.base_type_name == "inference.ModelInferRequest"
    assert [one.error_response.error_code for one in found[5:]] == [5, 5, 3]
    assert found[5].original_request.file_containing_symbol == "nope"


# --- the program


def test_a_port_that_is_taken(app):
    async def run():
        server = await start(app, "127.0.0.1", 0)
        try:
            with pytest.raises(PortInUseError):
                await start(app, "127.0.0.1", server.port)
        finally:
            await server.stop(0)

    asyncio.run(run())


@pytest.mark.parametrize("workers", [1, 2])
def test_the_program_answers_over_grpc_and_says_where(folders, workers):
    command = [sys.executable, "-m", "cumulant.serving", str(folders["double"]), "--http", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--grpc", "127.0.0.1:0", "--workers", str(workers)], stdout=subprocess.PIPE, text=True
    ) as process:
        address = json.loads(process.stdout.readline())["grpc"]

        async def talk():
            for _ in range(6):
                options = [("grpc.use_local_subchannel_pool", 1)]
                async with grpc.aio.insecure_channel(address, options=options) as channel:
                    await channel.unary_unary(SERVICE + "ModelInfer")(doubled().SerializeToString())

        asyncio.run(talk())
        taken = subprocess.run([*command, "--grpc", address], capture_output=True, text=True, timeout=60, check=False)
        assert (taken.returncode, "already in use" in taken.stderr, "--grpc" in taken.stderr) == (3, True, True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_what_an_answer_says_besides_its_outputs_keeps_its_type():
    from cumulant.serving.grpc.codec import Asked, write_answer
    from cumulant.serving.scheduling import Demand

    call = Asked("a", [], [], Demand(), {})
    body = write_answer(call, "double", "3", [], {"state_age": 1.5, "degraded": "cached", "warnings": "one\ntwo"})
    found = message("ModelInferResponse").FromString(body).parameters
    assert (found["state_age"].double_param, found["degraded"].string_param) == (1.5, "cached")
    assert found["warnings"].string_param == "one\ntwo"
