"""The models of the figures, made once and kept in the working folder."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

import lightgbm
import model as bench_model
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from payloads import WIDTH

from cumulant.core.servable import Batching, GraphServable, TensorSpec
from cumulant.servable.folder import new_folder, write_sealed

HEAVY_SECONDS = 1.15e-3
"""What a row of the heavy servable is made to cost."""


class Models:
    """`light` and `other`: two versions of one model. `heavy`: the same answers at 1 ms a row. `text`: for the peer."""

    def __init__(self, work: Path) -> None:
        self.light, self.other, self.heavy, self.text = (
            work / "light",
            work / "other",
            work / "heavy",
            work / "model.txt",
        )
        if not self.text.exists():
            bench_model.booster().save_model(work / "draft.txt")
            (work / "draft.txt").rename(self.text)
        whole = lightgbm.Booster(model_file=self.text)
        for out, version, trees in ((self.light, "1", 300), (self.other, "2", 290)):
            if not out.exists():
                bench_model.write_graph(
                    out, whole.model_to_string(num_iteration=trees), whole.feature_name(), version=version
                )

    def made_heavy(self) -> Path:
        shutil.rmtree(self.heavy, ignore_errors=True)
        each = row_seconds(self.light / "model.onnx")
        write_heavy(self.light / "model.onnx", self.heavy, math.ceil(HEAVY_SECONDS / each))
        return self.heavy


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def row_seconds(path: Path, rows: int = 8, seconds: float = 0.5) -> float:
    """The engine's time a row in a run of `rows`; the least of many, since others use the machine."""
    engine, least, end = session(path), math.inf, time.perf_counter() + seconds
    values = np.random.default_rng(3).normal(size=(rows, WIDTH)).astype(np.float32)
    while time.perf_counter() < end:
        started = time.perf_counter()
        engine.run(None, {"input": values})
        least = min(least, time.perf_counter() - started)
    return least / rows


def answers(path: Path, matrices: list[np.ndarray]) -> np.ndarray:
    """The model's answers to one-row matrices."""
    engine = session(path)
    return np.array([engine.run(None, {"input": matrix})[0].ravel()[0] for matrix in matrices])


def write_heavy(light: Path, out: Path, times: int) -> None:
    """The light graph run `times` times over in one request: its answers, a heavier model's cost, a small file."""
    graph = onnx.load(light)
    made, body = graph.graph, graph.graph.node
    last = body[-1]  # it names the graph's output, and that name goes to the whole
    name, last.output[0] = last.output[0], "inner"
    inside = helper.make_graph(
        [*body, helper.make_node("Identity", ["going"], ["go_on"])],
        "again",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.DOUBLE, ["n", 1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("inner", TensorProto.DOUBLE, ["n", 1]),
        ],
    )
    constants = [
        helper.make_tensor("times", TensorProto.INT64, [], [times]),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
        helper.make_tensor("start", TensorProto.DOUBLE, [1, 1], [0.0]),
    ]
    loop = helper.make_node("Loop", ["times", "yes", "start"], ["all"], body=inside)
    named = helper.make_node("Identity", ["all"], [name])
    whole = helper.make_graph(
        [loop, named], "heavy", list(made.input), list(made.output), [*made.initializer, *constants]
    )
    found = helper.make_model(whole, opset_imports=list(graph.opset_import), ir_version=graph.ir_version)
    servable = GraphServable(
        name="bench",
        version="1",
        inputs=(TensorSpec("input", "FP32", (-1, WIDTH)),),
        outputs=(TensorSpec(name, "FP64", (-1, 1)),),
        columns=tuple(f"Column_{n}" for n in range(WIDTH)),
        batching=Batching(exact=True),
        example={"input": [0.5] * WIDTH},
    )
    with new_folder(out) as folder:
        (folder / "model.onnx").write_bytes(found.SerializeToString())
        write_sealed(folder, servable)
