"""The servable of the serving benchmarks: 300 trees of 63 leaves on 30 floats, and the same weights for the peers."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np

from cumulant.core.servable import Batching, GraphServable, TensorSpec
from cumulant.packaging.graphs.graph import GraphBuilder
from cumulant.packaging.graphs.lightgbm_trees import add_boosters
from cumulant.servable.folder import new_folder, write_sealed

WIDTH = 30


def booster(trees: int = 300, leaves: int = 63) -> lightgbm.Booster:
    """A seeded binary classifier."""
    random = np.random.default_rng(7)
    rows = random.normal(size=(20_000, WIDTH))
    label = (rows[:, :5].sum(axis=1) + random.normal(size=len(rows)) > 0).astype(int)
    settings = {"objective": "binary", "num_leaves": leaves, "verbose": -1, "num_threads": 2, "seed": 7}
    return lightgbm.train(settings, lightgbm.Dataset(rows, label), num_boost_round=trees)


def write_servable(out: Path, trees: int = 300, leaves: int = 63) -> Path:
    """The booster as a servable's folder that reads one matrix."""
    model = booster(trees, leaves)
    write_graph(out, model.model_to_string(), model.feature_name())
    model.save_model(out.with_suffix(".txt"))
    return out


def write_graph(out: Path, text: str, columns: list[str], version: str = "1") -> None:
    """A LightGBM model's text as a servable's folder."""
    graph = GraphBuilder(WIDTH)
    result, outputs = add_boosters(graph, [text])
    servable = GraphServable(
        name="bench",
        version=version,
        inputs=(TensorSpec("input", "FP32", (-1, WIDTH)),),
        outputs=(TensorSpec("output", "FP64", (-1, outputs)),),
        columns=tuple(columns),
        batching=Batching(exact=True),
        example={"input": [0.5] * WIDTH},
    )
    with new_folder(out) as folder:
        (folder / "model.onnx").write_bytes(graph.finish(result, outputs).SerializeToString())
        write_sealed(folder, servable)


if __name__ == "__main__":
    import sys

    print(write_servable(Path(sys.argv[1])))
