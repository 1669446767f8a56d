"""`ModelInfer` of one worker against a bare `grpc.aio` loop with the same messages and onnxruntime: `grpc_infer.py [SECONDS] [ROWS] [SERVABLE] [ROUNDS]`.

Both servers run at once and the clients, processes of their own, take turns between them, so that a busy machine slows
both alike. Prints requests/s of each and their ratio (goal: at least 0.7), and the CPU that each server spent a request.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from cumulant.serving.grpc.messages import message_class

CLIENTS, CALLS, ROUNDS = 3, 12, 6
METHOD = "/inference.GRPCInferenceService/ModelInfer"
HERE = Path(__file__)


def request(row: np.ndarray) -> bytes:
    tensor = {"name": "input", "datatype": "FP32", "shape": list(row.shape)}
    message = message_class("ModelInferRequest")(model_name="bench", inputs=[tensor])
    message.raw_input_contents.append(row.tobytes())
    return message.SerializeToString()


async def bare(path: str) -> None:
    """The loop with nothing around it."""
    import grpc
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    asked, answered = message_class("ModelInferRequest"), message_class("ModelInferResponse")

    async def infer(message: Any, context: Any) -> Any:
        tensor = message.inputs[0]
        values = np.frombuffer(message.raw_input_contents[0], dtype=np.float32).reshape(tensor.shape)
        (found,) = session.run(None, {"input": values})
        answer = answered(model_name="bench", model_version="1")
        answer.outputs.add(name="output", datatype="FP64", shape=found.shape)
        answer.raw_output_contents.append(found.tobytes())
        return answer

    handler = grpc.unary_unary_rpc_method_handler(
        infer, request_deserializer=asked.FromString, response_serializer=answered.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler})]
    )
    print(json.dumps({"grpc": f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"}), flush=True)
    await server.start()
    await server.wait_for_termination()


async def load(address: str, bodies: list[bytes], seconds: float) -> int:
    import grpc

    done = 0
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(METHOD)
        await call(bodies[0])
        end = time.perf_counter() + seconds

        async def ask(place: int) -> None:
            nonlocal done
            while time.perf_counter() < end:
                await call(bodies[place % len(bodies)])
                place += CALLS
                done += 1

        await asyncio.gather(*map(ask, range(CALLS)))
    return done


def client(address: str, rows: int, seed: int, seconds: float) -> int:
    random = np.random.default_rng(seed)
    bodies = [request(random.normal(size=(rows, 30)).astype(np.float32)) for _ in range(4000)]
    return asyncio.run(load(address, bodies, seconds))


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(*command: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["grpc"]


def main(seconds: float, rows: int, folder: Path | None, rounds: int) -> None:
    if folder is None:
        folder = Path(tempfile.mkdtemp()) / "bench"
        subprocess.run([sys.executable, HERE.with_name("model.py"), folder], check=True, stdout=subprocess.DEVNULL)
    ours = start(
        "-m",
        "cumulant.serving",
        str(folder),
        "--http",
        "127.0.0.1:0",
        "--grpc",
        "127.0.0.1:0",
        "--queue",
        "5s",
        "--cache",
        "off",
    )
    servers = {"bare": start(str(HERE), "bare", str(folder / "model.onnx")), "ours": ours}
    try:
        compare(servers, seconds, rows, rounds)
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.wait()


def compare(servers: dict[str, tuple[subprocess.Popen[str], str]], seconds: float, rows: int, rounds: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in servers}
    spent = dict.fromkeys(servers, 0.0)
    with get_context("spawn").Pool(CLIENTS) as pool:
        for turn in range(rounds):
            for name, (process, address) in servers.items():
                before = cpu(process.pid)
                jobs = [(address, rows, turn * CLIENTS + k, seconds) for k in range(CLIENTS)]
                done = sum(pool.starmap(client, jobs))
                rates[name].append(done / seconds)
                print(f"  {name} {done / seconds:.0f}/s", flush=True)
                spent[name] += (cpu(process.pid) - before) / done / rounds
    for name in servers:
        print(f"{name}: {statistics.median(rates[name]):.0f} requests/s, {spent[name] * 1e6:.0f} us of CPU a request")
    ratio = statistics.median(a / b for a, b in zip(rates["ours"], rates["bare"], strict=True))
    print(f"{rows} rows a request, {CLIENTS * CALLS} calls at once: ours / bare = {ratio:.2f} (goal 0.70)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["bare"]:
        asyncio.run(bare(sys.argv[2]))
    else:
        given = sys.argv[1:]
        main(
            float(given[0]) if given else 3.0,
            int(given[1]) if given[1:] else 1,
            Path(given[2]) if given[2:] else None,
            int(given[3]) if given[3:] else ROUNDS,
        )
