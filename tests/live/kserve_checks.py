"""kserve's clients against a server: `kserve_checks.py HTTP GRPC TOKEN`, with their own Python. Says what held.

A program of its own: tritonclient and kserve register the same messages and cannot be imported together.
"""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

X = np.arange(8, dtype=np.float32).reshape(2, 4)
WORDS = np.array(["grüße", "", "abc"], dtype=np.object_)
HALF = np.array([[0.5, -2], [1, 65504]], dtype=np.float16)


def check(result):
    np.testing.assert_array_equal(result.as_numpy("total"), X.sum(axis=1))
    np.testing.assert_array_equal(result.as_numpy("half_out"), HALF)
    words = result.as_numpy("words_out")
    assert [w.decode() if isinstance(w, bytes) else w for w in words.tolist()] == WORDS.tolist(), words
    assert result.as_numpy("half_out").dtype == np.float16


def kserve_request(binary):
    found = []
    for name, datatype, value in (("x", "FP32", X), ("words", "BYTES", WORDS), ("half", "FP16", HALF)):
        tensor = InferInput(name, list(value.shape), datatype)
        tensor.set_data_from_numpy(value, binary_data=binary or datatype == "FP16")
        found.append(tensor)
    return InferRequest("mixed", found, request_id="k")


def kserve_double(binary):
    tensor = InferInput("x", [2, 3], "FP32")
    tensor.set_data_from_numpy(X[:, :3], binary_data=binary)
    return InferRequest("double", [tensor])


def kserve_why():
    found = []
    for name, datatype, value in (
        ("distance", "FP64", np.array([500.0])),
        ("sched_dep", "BYTES", np.array(["2013-04-01T18:00:00"], np.object_)),
    ):
        tensor = InferInput(name, [1], datatype)
        tensor.set_data_from_numpy(value, binary_data=False)
        found.append(tensor)
    return InferRequest("flight-late", found, parameters={"reasons": 1})


def check_reasons(result):
    (text,) = result.as_numpy("reasons").tolist()
    (reason,) = json.loads(text)
    assert (reason["feature"], reason["direction"]) == ("hour", "raises"), reason


class Result:
    """A response of kserve as the checks read one."""

    def __init__(self, response):
        self._response = response

    def as_numpy(self, name):
        return self._response.get_output_by_name(name).as_numpy()


def kserve_over_grpc(http, grpc, headers):
    async def run():
        async with InferenceGRPCClient(grpc) as client:
            given = list(headers.items())
            assert await client.is_server_live(headers=given)
            assert await client.is_server_ready(headers=given)
            assert await client.is_model_ready("mixed", headers=given)
            for binary in (True, False):
                check(Result(await client.infer(kserve_request(binary), headers=given)))
                found = Result(await client.infer(kserve_double(binary), headers=given)).as_numpy("y")
                np.testing.assert_array_equal(found, 2 * X[:, :3])
            check_reasons(Result(await client.infer(kserve_why(), headers=given)))

    asyncio.run(run())


def kserve_over_http(http, grpc, headers):
    async def run():
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        url = f"http://{http}"
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, "mixed", headers=headers)
        assert not await client.is_model_ready(url, "nope", headers=headers)
        for binary in (True, False):
            check(Result(await client.infer(url, kserve_request(binary), model_name="mixed", headers=dict(headers))))
            found = await client.infer(url, kserve_double(binary), model_name="double", headers=dict(headers))
            np.testing.assert_array_equal(Result(found).as_numpy("y"), 2 * X[:, :3])
        why = await client.infer(url, kserve_why(), model_name="flight-late", headers=dict(headers))
        check_reasons(Result(why))
        await client.close()

    asyncio.run(run())


CHECKS = (kserve_over_grpc, kserve_over_http)

if __name__ == "__main__":
    http, grpc, token = sys.argv[1:]
    for run in CHECKS:
        run(http, grpc, {"authorization": f"Bearer {token}"})
        print(run.__name__, flush=True)
