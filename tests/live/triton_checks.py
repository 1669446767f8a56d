"""tritonclient against a server: `triton_checks.py HTTP GRPC TOKEN`, with its own Python. Says what held."""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from functools import partial

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException

X = np.arange(8, dtype=np.float32).reshape(2, 4)
WORDS = np.array(["grüße", "", "abc"], dtype=np.object_)
HALF = np.array([[0.5, -2], [1, 65504]], dtype=np.float16)


def tensors(kit, **how):
    found = []
    for name, datatype, value in (("x", "FP32", X), ("words", "BYTES", WORDS), ("half", "FP16", HALF)):
        tensor = kit.InferInput(name, list(value.shape), datatype)
        tensor.set_data_from_numpy(value, **how)
        found.append(tensor)
    return found


def check(result):
    np.testing.assert_array_equal(result.as_numpy("total"), X.sum(axis=1))
    np.testing.assert_array_equal(result.as_numpy("half_out"), HALF)
    words = result.as_numpy("words_out")
    assert [w.decode() if isinstance(w, bytes) else w for w in words.tolist()] == WORDS.tolist(), words
    assert result.as_numpy("half_out").dtype == np.float16


def fails(words, call):
    try:
        call()
    except InferenceServerException as error:
        said = str(error)
    else:
        said = "no refusal"
    assert words in said, said


def check_reasons(result):
    """Contributions are 0.7/6 an hour, 0.3/250 a mile, and -0.5 for the second carrier against the first."""
    first, second = (
        {one["feature"]: one["contribution"] for one in json.loads(text)} for text in result.as_numpy("reasons")
    )
    assert list(first) == ["hour", "carrier", "distance"], first
    np.testing.assert_allclose(list(first.values()), [1.05, -0.5, -0.36], rtol=1e-6)
    np.testing.assert_allclose([second["hour"], second["distance"]], [1.05, 0.12], rtol=1e-6)


def describe(client, **how):
    assert client.is_server_live(**how)
    assert client.is_server_ready(**how)
    assert client.is_model_ready("mixed", **how)
    assert client.is_model_ready("mixed", "1", **how)
    assert not client.is_model_ready("nope", **how)


def rows(kit):
    found = []
    for name, datatype, value in (
        ("distance", "FP64", np.array([500.0, 900.0])),
        ("carrier", "BYTES", np.array(["UA", "AA"], np.object_)),
        ("sched_dep", "BYTES", np.array(["2013-04-01T18:00:00"] * 2, np.object_)),
        ("tail", "BYTES", np.array(["N1", "N2"], np.object_)),
    ):
        tensor = kit.InferInput(name, list(value.shape), datatype)
        tensor.set_data_from_numpy(value)
        found.append(tensor)
    return found


def triton_over_grpc(http, grpc, headers):
    with triton_grpc.InferenceServerClient(grpc) as client:
        describe(client, headers=headers)
        assert client.get_server_metadata(headers=headers).name == "cumulant"
        meta = client.get_model_metadata("mixed", headers=headers, as_json=True)
        assert [one["name"] for one in meta["inputs"]] == ["x", "words", "half"], meta
        config = client.get_model_config("mixed", headers=headers, as_json=True)["config"]
        assert config["input"][1] == {"name": "words", "data_type": "TYPE_STRING", "dims": ["-1"]}, config
        check(client.infer("mixed", tensors(triton_grpc), headers=headers))
        found = client.infer(
            "mixed",
            tensors(triton_grpc),
            model_version="1",
            request_id="ü",
            priority=1,
            timeout=5_000_000,
            outputs=[triton_grpc.InferRequestedOutput("total")],
            sequence_id=7,
            sequence_start=True,
            parameters={"own": "kept"},
            headers=headers,
            compression_algorithm="gzip",
            client_timeout=20,
        )
        assert found.get_response().id == "ü"
        assert [one.name for one in found.get_response().outputs] == ["total"]
        answer = client.infer("flight-late", rows(triton_grpc), headers=headers)
        assert answer.as_numpy("probability").shape == (2,), answer.get_response()
        assert answer.as_numpy("reasons") is None
        check_reasons(client.infer("flight-late", rows(triton_grpc), parameters={"reasons": 3}, headers=headers))
        wanted = [triton_grpc.InferRequestedOutput("reasons")]
        check_reasons(client.infer("flight-late", rows(triton_grpc), outputs=wanted, headers=headers))
        fails(
            "from 0 to 4",
            lambda: client.infer("flight-late", rows(triton_grpc), parameters={"reasons": 9}, headers=headers),
        )
        fails("no model named", lambda: client.infer("nope", tensors(triton_grpc), headers=headers))
        fails("missing", lambda: client.infer("mixed", tensors(triton_grpc)[:1], headers=headers))
        fails("token", lambda: client.infer("mixed", tensors(triton_grpc)))
        check(client.infer("mixed", tensors(triton_grpc), headers=headers))
        stats = client.get_inference_statistics("mixed", headers=headers, as_json=True)["model_stats"][0]
        assert int(stats["inference_stats"]["success"]["count"]) >= 3, stats


def triton_async_and_streams(http, grpc, headers):
    with triton_grpc.InferenceServerClient(grpc) as client:
        done = queue.Queue()

        def put(result, error):
            done.put((result, error))

        for _ in range(20):
            client.async_infer("mixed", tensors(triton_grpc), put, headers=headers)
        for _ in range(20):
            result, error = done.get(timeout=20)
            assert error is None, error
            check(result)
        client.start_stream(put, headers=headers)
        for name in ("mixed", "nope", "mixed"):
            client.async_stream_infer(name, tensors(triton_grpc), request_id=name, enable_empty_final_response=True)
        said = [done.get(timeout=20) for _ in range(3)]
        client.stop_stream()
        assert "no model named" in str(said[1][1]), said
        check(said[0][0])
        check(said[2][0])
        assert said[0][0].get_response().parameters["triton_final_response"].bool_param


def triton_aio(http, grpc, headers):
    async def run():
        async with triton_grpc_aio.InferenceServerClient(grpc) as client:
            assert await client.is_model_ready("mixed", headers=headers)
            found = await asyncio.gather(
                *(client.infer("mixed", tensors(triton_grpc_aio), headers=headers) for _ in range(20))
            )
            list(map(check, found))

            async def asked():
                for _ in range(3):
                    yield {"model_name": "mixed", "inputs": tensors(triton_grpc_aio)}

            seen = 0
            async for result, error in client.stream_infer(asked(), headers=headers):
                assert error is None, error
                check(result)
                seen += 1
            assert seen == 3
        async with triton_http_aio.InferenceServerClient(http) as client:
            assert await client.is_model_ready("mixed", headers=headers)
            for compression in (None, "gzip", "deflate"):
                check(
                    await client.infer(
                        "mixed",
                        tensors(triton_http_aio),
                        headers=dict(headers),
                        request_compression_algorithm=compression,
                        response_compression_algorithm=compression,
                    )
                )

    asyncio.run(run())


def triton_control(http, grpc, headers):
    with triton_grpc.InferenceServerClient(grpc) as client, triton_http.InferenceServerClient(http) as other:
        client.unload_model("double", headers=headers)
        assert not client.is_model_ready("double", headers=headers)
        assert not other.is_model_ready("double", headers=headers)
        client.load_model("double", headers=headers)
        assert other.is_model_ready("double", headers=headers)
        other.unload_model("double", headers=headers)
        other.load_model("double", headers=headers)
        index = client.get_model_repository_index(headers=headers, as_json=True)["models"]
        assert {one["name"] for one in index} >= {"mixed", "double", "flight-late"}, index
        assert {one["name"] for one in other.get_model_repository_index(headers=headers)} >= {"mixed", "double"}
        fails("nope", lambda: client.load_model("nope", headers=headers))
        fails("nope", lambda: other.load_model("nope", headers=headers))


def triton_over_http(http, grpc, headers):
    with triton_http.InferenceServerClient(http, concurrency=4) as client:
        describe(client, headers=headers)
        assert client.get_server_metadata(headers=headers)["name"] == "cumulant"
        assert client.get_model_metadata("mixed", headers=headers)["versions"] == ["1"]
        assert client.get_model_config("mixed", headers=headers)["name"] == "mixed"
        check(client.infer("mixed", tensors(triton_http), headers=headers))
        for compression in ("gzip", "deflate"):  # the client adds to the headers it is given
            check(
                client.infer(
                    "mixed",
                    tensors(triton_http),
                    headers=dict(headers),
                    request_compression_algorithm=compression,
                    response_compression_algorithm=compression,
                )
            )
        for found in [client.async_infer("mixed", tensors(triton_http), headers=headers) for _ in range(20)]:
            check(found.get_result(timeout=20))
        plain = tensors(triton_http)
        plain[0].set_data_from_numpy(X, binary_data=False)
        plain[1].set_data_from_numpy(WORDS, binary_data=False)
        wanted = [
            triton_http.InferRequestedOutput("total", binary_data=False),
            triton_http.InferRequestedOutput("words_out", binary_data=False),
            triton_http.InferRequestedOutput("half_out", binary_data=True),
        ]
        check(client.infer("mixed", plain, outputs=wanted, request_id="ü", timeout=5_000_000, headers=headers))
        found = client.infer("flight-late", rows(triton_http), priority=1, headers=headers)
        assert found.as_numpy("probability").shape == (2,), found.get_response()
        check_reasons(client.infer("flight-late", rows(triton_http), parameters={"reasons": 3}, headers=headers))
        for binary in (True, False):
            wanted = [triton_http.InferRequestedOutput("reasons", binary_data=binary)]
            check_reasons(client.infer("flight-late", rows(triton_http), outputs=wanted, headers=headers))
        fails("no model named", lambda: client.infer("nope", tensors(triton_http), headers=headers))
        fails("token", lambda: client.infer("mixed", tensors(triton_http)))
        assert client.get_inference_statistics("mixed", headers=headers)["model_stats"][0]["name"] == "mixed"


def one(kit, value):
    tensor = kit.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.array([[value, 1]], dtype=np.float32))
    return [tensor]


def triton_sequences(http, grpc, headers):
    """Sums over every client, interleaved, by connections of their own to whichever worker takes them.

    The HTTP client adds to the headers that it is given, which gRPC would not take then.
    """
    sums = {}

    def seen(who, value, result):
        sums[who] = sums.get(who, 0) + value
        assert result.as_numpy("total")[0, 0] == sums[who], (who, value, result.get_response())

    for turn in range(1, 13):
        for kit, address, who in (
            (triton_http, http, 11),
            (triton_http, http, "elf"),
            (triton_grpc, grpc, 12),
            (triton_grpc, grpc, "zwölf"),
        ):
            with kit.InferenceServerClient(address) as client:
                how = {"sequence_id": who, "sequence_start": turn == 1, "sequence_end": turn == 12}
                seen(who, turn, client.infer("sums", one(kit, turn), headers=dict(headers), **how))
    with triton_http.InferenceServerClient(http) as client:
        fails(
            "no such sequence", lambda: client.infer("sums", one(triton_http, 1), sequence_id=11, headers=dict(headers))
        )
        fails("sequence_id", lambda: client.infer("sums", one(triton_http, 1), headers=dict(headers)))
        client.infer("sums", one(triton_http, 3), sequence_id=13, sequence_start=True, headers=dict(headers))
        wanted = [triton_http.InferRequestedOutput("left")]
        found = client.infer("sums", one(triton_http, 4), sequence_id=13, outputs=wanted, headers=dict(headers))
        assert found.as_numpy("left").tolist() == [[7, 2]]
        assert found.as_numpy("total") is None
    with triton_grpc.InferenceServerClient(grpc) as client:
        fails(
            "no such sequence", lambda: client.infer("sums", one(triton_grpc, 1), sequence_id=12, headers=dict(headers))
        )
        config = client.get_model_config("sums", headers=dict(headers), as_json=True)["config"]["sequence_batching"]
        assert config["state"][0]["input_name"] == "kept", config
        done = queue.Queue()
        client.start_stream(lambda result, error: done.put((result, error)), headers=dict(headers))
        for n in range(1, 21):
            how = {"sequence_start": n == 1, "sequence_end": n == 20}
            client.async_stream_infer("sums", one(triton_grpc, n), sequence_id=14, **how)
        for n in range(1, 21):
            result, error = done.get(timeout=20)
            assert error is None, error
            seen(14, n, result)
        client.stop_stream()

    async def run():
        async with triton_grpc_aio.InferenceServerClient(grpc) as client:
            for n in range(1, 6):
                seen(
                    15,
                    n,
                    await client.infer(
                        "sums", one(triton_grpc_aio, n), sequence_id=15, sequence_start=n == 1, headers=dict(headers)
                    ),
                )

            async def asked():
                for n in range(6, 9):
                    yield {"model_name": "sums", "inputs": one(triton_grpc_aio, n), "sequence_id": 15}

            n = 6
            async for result, error in client.stream_infer(asked(), headers=dict(headers)):
                assert error is None, error
                seen(15, n, result)
                n += 1
        async with triton_http_aio.InferenceServerClient(http) as client:
            seen(
                15,
                9,
                await client.infer(
                    "sums", one(triton_http_aio, 9), sequence_id=15, sequence_end=True, headers=dict(headers)
                ),
            )

    asyncio.run(run())


def scores(kit):
    found = []
    for name, datatype, value in (
        ("x", "FP32", np.array([[0.25, 0.5, 0.125]], np.float32)),
        ("whole", "INT8", np.array([1, 9, 3, 9], np.int8)),
        ("words", "BYTES", WORDS),
    ):
        tensor = kit.InferInput(name, list(value.shape), datatype)
        tensor.set_data_from_numpy(value)
        found.append(tensor)
    return found


def triton_classes(http, grpc, headers):
    expected = {"scores": [["0.5:1:dog", "0.25:0:cat"]], "ranks": ["9:1", "9:3"]}
    ways = (
        (triton_http, http, {"binary_data": True}),
        (triton_http, http, {"binary_data": False}),
        (triton_grpc, grpc, {}),
    )
    for kit, address, how in ways:
        with kit.InferenceServerClient(address) as client:
            wanted = [kit.InferRequestedOutput(name, class_count=2, **how) for name in expected]
            found = client.infer("scores", scores(kit), outputs=wanted, headers=dict(headers))
            for name, texts in expected.items():
                flat = [one.decode() if isinstance(one, bytes) else one for one in found.as_numpy(name).ravel()]
                assert flat == np.array(texts).ravel().tolist(), flat
                assert list(found.as_numpy(name).shape) == list(np.array(texts).shape)
            asked = {"inputs": scores(kit), "outputs": [kit.InferRequestedOutput("scores", class_count=-1, **how)]}
            fails("classification", partial(client.infer, "scores", headers=dict(headers), **asked))


def triton_shared_memory(http, grpc, headers):
    for kit, address in ((triton_http, http), (triton_grpc, grpc)):
        with kit.InferenceServerClient(address) as client:
            fails("shared memory", lambda: client.get_system_shared_memory_status(headers=dict(headers)))
            fails("shared memory", lambda: client.register_system_shared_memory("r", "/r", 64, headers=dict(headers)))
            fails("shared memory", lambda: client.unregister_cuda_shared_memory("r", headers=dict(headers)))
            tensor = kit.InferInput("x", [1, 3], "FP32")
            tensor.set_shared_memory("r", 12)
            fails("shared_memory_region", partial(client.infer, "double", [tensor], headers=dict(headers)))


CHECKS = (
    triton_over_grpc,
    triton_async_and_streams,
    triton_aio,
    triton_over_http,
    triton_control,
    triton_sequences,
    triton_classes,
    triton_shared_memory,
)

if __name__ == "__main__":
    http, grpc, token = sys.argv[1:]
    for run in CHECKS:
        run(http, grpc, {"authorization": f"Bearer {token}"})
        print(run.__name__, flush=True)
