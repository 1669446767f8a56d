"""Averages of multilayer perceptrons as parts of one ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cumulant.packaging.graphs.graph import GraphBuilder
from cumulant.packaging.graphs.linear_graph import add_scores

if TYPE_CHECKING:
    from cumulant.training.payloads.perceptron import NormalScores, Perceptron

#: element types of ONNX
_INT64 = 7


def add_perceptrons(graph: GraphBuilder, texts: Sequence[str]) -> tuple[str, int]:
    """Append the average of the models' answers; returns its name and number of outputs."""
    from cumulant.training.payloads.perceptron import Perceptrons

    models, answers = Perceptrons(tuple(texts)).models, []
    score_names: dict[NormalScores, str] = {}
    for model in models:
        if model.numbers not in score_names:
            score_names[model.numbers] = _normal_scores(graph, model.numbers)
        answers.append(_answer(graph, model, score_names[model.numbers]))
    return graph.mean(answers), len(models[0].layers[-1].bias)


def _answer(graph: GraphBuilder, model: Perceptron, scores: str) -> str:
    hidden, zero = add_scores(graph, model.first, scores), graph.number(0)
    for layer in model.layers:
        weight = graph.constant(np.array(layer.weight, np.float64))
        product = graph.add("MatMul", graph.add("Max", hidden, zero), weight)
        hidden = graph.add("Add", product, graph.constant(np.array(layer.bias, np.float64)))
    scaled = graph.add("Mul", graph.number(model.scale), hidden)
    return graph.link(model.link, graph.add("Add", graph.number(model.offset), scaled), len(model.layers[-1].bias))


def _normal_scores(graph: GraphBuilder, numbers: NormalScores) -> str:
    """As `NormalScores.apply`: [n, k] the scores of the numeric columns, then the codes of the categories."""
    codes = graph.add("Gather", graph.x, graph.constant(np.array(numbers.categories, np.int64)), axis=1)
    if not numbers.columns:
        return codes
    tables = _Tables(numbers)
    values = graph.add("Gather", graph.x, graph.constant(np.array(numbers.columns, np.int64)), axis=1)
    wide = graph.add("Unsqueeze", values, graph.constant(np.array([2], np.int64)))
    passed = graph.add("Cast", graph.add("GreaterOrEqual", wide, graph.constant(tables.inner)), to=_INT64)
    count = graph.add("ReduceSum", passed, graph.constant(np.array([2], np.int64)), keepdims=0)
    place = graph.add("Add", count, graph.constant(tables.first))
    knot, width, slope, score = (
        graph.add("Gather", graph.constant(table), place, axis=0)
        for table in (tables.knot, tables.width, tables.slope, tables.score)
    )
    moved = graph.add("Min", graph.add("Max", graph.add("Sub", values, knot), graph.number(0)), width)
    scores = graph.add("Add", score, graph.add("Mul", moved, slope))
    # whatever a missing value was compared with, it stays missing
    scores = graph.add("Where", graph.add("IsNaN", values), graph.number(math.nan), scores)
    return graph.add("Concat", scores, codes, axis=1) if numbers.categories else scores


class _Tables:
    """Segments of all columns in a row; per column the place of its `first` and its `inner` knots [columns, most]."""

    def __init__(self, numbers: NormalScores) -> None:
        from cumulant.training.payloads.perceptron import segments

        knots = [np.array(values) for values in numbers.knots]
        scores = [np.array(values) for values in numbers.scores]
        pairs = [segments(*pair) for pair in zip(knots, scores, strict=True)]
        sizes = [len(width) for width, _ in pairs]
        self.first = np.cumsum([0, *sizes[:-1]])
        self.width, self.slope = (np.concatenate([pair[place] for pair in pairs]) for place in (0, 1))
        self.knot = np.concatenate([values[:size] for values, size in zip(knots, sizes, strict=True)])
        self.score = np.concatenate([values[:size] for values, size in zip(scores, sizes, strict=True)])
        self.inner: NDArray[np.float64] = np.full((len(knots), max(1, max(sizes) - 1)), np.nan)
        for place, values in enumerate(knots):
            self.inner[place, : max(0, len(values) - 2)] = values[1:-1]
