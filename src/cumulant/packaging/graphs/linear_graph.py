"""Linear and constant models as small ONNX graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cumulant.packaging.graphs.graph import GraphBuilder

if TYPE_CHECKING:
    from cumulant.training.payloads.payload import LinearWeights


def add_linear(graph: GraphBuilder, weights: LinearWeights) -> tuple[str, int]:
    """Append the model of `weights`; returns the name of its answer and the number of outputs."""
    outputs = len(weights.bias)
    return graph.link(weights.link, add_scores(graph, weights, graph.x), outputs), outputs


def add_scores(graph: GraphBuilder, weights: LinearWeights, x: str) -> str:
    """Append what the link of `weights` is applied to, [n, outputs], of the matrix `x`."""
    score = graph.add("Add", _numbers(graph, weights, x), graph.constant(np.array(weights.bias, np.float64)))
    for column, table in sorted(weights.tables.items()):
        score = graph.add("Add", score, graph.lookup(x, column, np.array(table, np.float64)))
    return score


def _numbers(graph: GraphBuilder, weights: LinearWeights, x: str) -> str:
    """The part of the numeric columns, [n, outputs]; without any, zeros of that shape."""
    outputs = len(weights.bias)
    picked = graph.add("Gather", x, graph.constant(np.array(weights.columns, np.int64)), axis=1)
    unknown = graph.add("IsNaN", picked)
    filled = graph.add("Where", unknown, graph.constant(np.array(weights.fill, np.float64)), picked)
    centred = graph.add("Sub", filled, graph.constant(np.array(weights.mean, np.float64)))
    scaled = graph.add("Div", centred, graph.constant(np.array(weights.scale, np.float64)))
    shape = (len(weights.columns), outputs)
    score = graph.add("MatMul", scaled, graph.constant(np.array(weights.weight, np.float64).reshape(shape)))
    missing = np.array(weights.missing, np.float64).reshape(shape)
    if not missing.any():
        return score
    flags = graph.add("Cast", unknown, to=11)  # 11: double
    return graph.add("Add", score, graph.add("MatMul", flags, graph.constant(missing)))


def add_constant(graph: GraphBuilder, prior: Sequence[float]) -> tuple[str, int]:
    """Append the same answer for every row."""
    rows = graph.add("Shape", graph.x, start=0, end=1)
    shape = graph.add("Concat", rows, graph.constant(np.array([1], np.int64)), axis=0)
    row = graph.constant(np.array([prior], np.float64))
    return graph.add("Tile", row, shape), len(prior)
