"""A plain client of the protocol over gRPC, that sends and reads the bytes of messages."""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
from tensor_models import ELEMENTS

from cumulant.serving.grpc.messages import message_class
from cumulant.serving.grpc.server import start

SERVICE = "/inference.GRPCInferenceService/"


Code = grpc.StatusCode


FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


NUMPY = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


EDGES = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 65535],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [0.5, -65504.0],
    "FP32": [0.5, -3.0e38],
    "FP64": [0.1, -1.0e308],
    "BYTES": ["grüße", ""],
}


def message(name, /, **fields):
    return message_class(name)(**fields)


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
            values = [v.encode() for v in EDGES[datatype]] if datatype == "BYTES" else EDGES[datatype]  # type: ignore[attr-defined]
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
        return message_class(f"{name}Response").FromString(body)

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
