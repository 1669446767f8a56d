"""The bare loop: uvicorn, httptools, uvloop, msgspec and onnxruntime with nothing between them. `bare.py MODEL PORT`."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import uvicorn


class Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class Infer(msgspec.Struct):
    inputs: list[Tensor]


def application(path: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    decode, encode = msgspec.json.Decoder(Infer).decode, msgspec.json.encode

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        tensor = decode(body).inputs[0]
        (found,) = session.run(None, {"input": np.array(tensor.data, dtype=np.float32).reshape(tensor.shape)})
        output = {"name": "output", "datatype": "FP64", "shape": found.shape, "data": found.ravel().tolist()}
        answer = encode({"model_name": "bench", "model_version": "1", "outputs": [output]})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


if __name__ == "__main__":
    uvicorn.run(
        application(sys.argv[1]),
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
    )
