"""Models and inference over gRPC: every datatype, any size, streams."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from grpc_support import EDGES, FIELDS, SERVICE, Code, doubled, echoed, message, over, packed, unpacked
from serving_models import call as http
from tensor_models import ELEMENTS

from cumulant.serving.app import ServingApplication
from cumulant.serving.grpc.messages import message_class
from cumulant.serving.models.model import ModelSet, open_model


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

    app = ServingApplication(ModelSet([model]))
    (found,) = over(app, talk).model_stats
    assert (found.inference_count, found.inference_stats.success.count, found.inference_stats.fail.count) == (3, 3, 1)
    assert found.inference_stats.success.ns > 0
    assert {one.labels[3] for one in app.series() if one.family == "cumulant_requests_total"} == {"grpc"}
    model.close()


@pytest.mark.parametrize("name", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_what_is_not_there_is_not_found(app, name):
    async def talk(client):
        for asked in ({"name": "doubel"}, {"name": "double", "version": "9"}):
            await client.refused(Code.NOT_FOUND, "no ", name, message(f"{name}Request", **asked))
        await client.refused(Code.NOT_FOUND, "doubel", "ModelInfer", doubled(model="doubel"))
        await client.refused(Code.NOT_FOUND, "9", "ModelInfer", doubled(model_version="9"))

    over(app, talk)


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

    found = message_class("ModelInferResponse").FromString(over(app, talk))
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
        getattr(tensor.contents, FIELDS[datatype]).append(value.encode() if datatype == "BYTES" else value)  # type: ignore[attr-defined]
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
    found = [message_class("ModelStreamInferResponse").FromString(one) for one in found]
    assert [bool(one.error_message) for one in found] == [False, True, True, False, False]
    assert [one.infer_response.id for one in found] == ["0", "1", "", "2", "3"]
    assert unpacked("FP32", found[3].infer_response.raw_output_contents[0]) == [4.0] * 3
    assert found[4].infer_response.parameters["triton_final_response"].bool_param


def test_what_an_answer_says_besides_its_outputs_keeps_its_type():
    from cumulant.serving.grpc.codec import GrpcCall, write_answer
    from cumulant.serving.scheduling.job_queue import Demand

    call = GrpcCall("a", [], [], Demand(), {})
    body = write_answer(call, "double", "3", [], {"state_age": 1.5, "degraded": "cached", "warnings": "one\ntwo"})
    found = message("ModelInferResponse").FromString(body).parameters
    assert (found["state_age"].double_param, found["degraded"].string_param) == (1.5, "cached")
    assert found["warnings"].string_param == "one\ntwo"
