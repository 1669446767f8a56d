"""Wrong messages over gRPC are the caller's fault and harm nobody."""

from __future__ import annotations

import random

import grpc
import pytest
from grpc_support import SERVICE, Code, doubled, echoed, message, over
from serving_models import servable

from cumulant.serving.app import ServingApplication
from cumulant.serving.models.model import ModelSet, open_model


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
    "classification": (
        lambda a: a.outputs.add(name="y").parameters["classification"].__setattr__("int64_param", 0),
        "classification",
    ),
    "shared memory": (
        lambda a: a.inputs[0].parameters["shared_memory_region"].__setattr__("string_param", "r"),
        "shared_memory",
    ),
    "timeout negative": (lambda a: a.parameters["timeout"].__setattr__("int64_param", -1), "timeout"),
    "timeout a text": (lambda a: a.parameters["timeout"].__setattr__("string_param", "1"), "timeout"),
    "priority a fraction": (lambda a: a.parameters["priority"].__setattr__("double_param", 0.5), "priority"),
    "timeout nothing": (lambda a: a.parameters["timeout"].Clear(), "timeout"),
    "id too long": (lambda a: setattr(a, "id", "x" * 257), "256"),
}


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
)
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


def test_a_request_without_rows_is_an_invalid_argument(tmp_path):
    asked = message("ModelInferRequest", model_name="flight-late")
    asked.inputs.add(name="distance", datatype="FP64", shape=[0])

    async def talk(client):
        await client.refused(Code.INVALID_ARGUMENT, "no rows to score", "ModelInfer", asked)

    over(ServingApplication(ModelSet([open_model(servable(tmp_path / "m"))])), talk)


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
    app = ServingApplication(ModelSet([model]), body_limit=10_000)

    async def talk(client):
        zeros = doubled([0.0] * 300_000)
        await client.refused(Code.RESOURCE_EXHAUSTED, "", "ModelInfer", zeros)
        await client.refused(Code.RESOURCE_EXHAUSTED, "", "ModelInfer", zeros, compression=grpc.Compression.Gzip)
        assert len((await client.infer(doubled(), compression=grpc.Compression.Gzip)).outputs) == 1

    over(app, talk)
    model.close()


def test_a_method_that_there_is_not(app):
    over(app, lambda client: client.refused(Code.UNIMPLEMENTED, "", "TraceSetting", b""))
