"""Multilayer perceptrons as payloads: JSON texts of arrays, which hold no code."""

from __future__ import annotations

from typing import Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from cumulant.training.payloads.encoding import Matrix
from cumulant.training.payloads.payload import Averaged, Floats, LinearWeights, linked

#: points between which a normal score is linear, at most
_KNOTS = 100
#: rows that are answered at a time: each takes some 3 KiB meanwhile
_BLOCK = 8_192


class NormalScores(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers by their rank among the training rows, as quantiles of the normal distribution (van der Waerden).

    columns: the numeric ones of the matrix; categories: the others. knots, scores: of each numeric column, rising;
    linear between two knots and constant beyond the first and the last, as no row was seen there.
    """

    columns: tuple[int, ...]
    categories: tuple[int, ...]
    knots: tuple[tuple[float, ...], ...]
    scores: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, matrix: Matrix, *, columns: list[int], categories: list[int]) -> Self:
        pairs = [_knots(matrix[:, column]) for column in columns]
        return cls(
            columns=tuple(columns),
            categories=tuple(categories),
            knots=tuple(tuple(knots.tolist()) for knots, _ in pairs),
            scores=tuple(tuple(scores.tolist()) for _, scores in pairs),
        )

    def apply(self, matrix: Matrix) -> Floats:
        """[n, k] the scores of the numeric columns, NaN where missing, then the codes of the categories."""
        scores = np.empty((len(matrix), len(self.columns) + len(self.categories)))
        for place in range(len(self.columns)):
            scores[:, place] = self.column(matrix, place)
        scores[:, len(self.columns) :] = matrix[:, list(self.categories)]
        return scores

    def column(self, matrix: Matrix, place: int) -> Floats:
        """[n] the scores of one numeric column, at `place` of those that `apply` makes."""
        values = matrix[:, self.columns[place]].astype(np.float64)
        return _interpolated(values, np.array(self.knots[place]), np.array(self.scores[place]))


def _knots(values: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Rising values and their scores: equal values share the middle of their ranks."""
    from scipy.special import ndtri

    ordered = np.sort(values[np.isfinite(values)]).astype(np.float64)
    if not len(ordered):
        return np.zeros(1), np.zeros(1)
    places = np.linspace(0, len(ordered) - 1, _KNOTS).round().astype(np.int64)
    knots = np.unique(ordered[places])
    ranks = np.searchsorted(ordered, knots, "left") + np.searchsorted(ordered, knots, "right")
    return knots, np.asarray(ndtri(ranks / 2 / len(ordered)), dtype=np.float64)


def _interpolated(values: Floats, knots: Floats, scores: Floats) -> Floats:
    place = np.searchsorted(knots[1:-1], values, side="right")
    width, slope = segments(knots, scores)
    moved = np.minimum(np.maximum(values - knots[place], 0.0), width[place])
    return np.asarray(scores[place] + moved * slope[place], dtype=np.float64)


def segments(knots: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Width and slope from each knot to the next; of one knot alone 0."""
    if len(knots) == 1:
        return np.zeros(1), np.zeros(1)
    width = np.diff(knots)
    return width, np.diff(scores) / width


class DenseLayer(msgspec.Struct, frozen=True, kw_only=True):
    """weight [inputs, outputs] and bias [outputs]."""

    weight: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]


class Perceptron(msgspec.Struct, frozen=True, kw_only=True):
    """link(offset + scale x (layers of the first layer's answer)), each layer of what is above 0 of the one before it.

    first: over the columns that `numbers` makes.
    """

    numbers: NormalScores
    first: LinearWeights
    layers: tuple[DenseLayer, ...]
    scale: float
    offset: float
    link: Literal["identity", "sigmoid", "softmax"]

    def predict(self, matrix: Matrix) -> Floats:
        parts = (matrix[begin : begin + _BLOCK] for begin in range(0, max(len(matrix), 1), _BLOCK))
        return np.concatenate([self._answers(part) for part in parts])

    def _answers(self, matrix: Matrix) -> Floats:
        hidden = self.first.scores(self.numbers.apply(matrix))
        for layer in self.layers:
            hidden = np.maximum(hidden, 0.0) @ np.array(layer.weight) + np.array(layer.bias)
        return linked(self.offset + self.scale * hidden, self.link)

    @property
    def importance(self) -> Floats:
        """[k] of each column of the matrix: the sum over paths to the answer of the products of absolute weights."""
        following = [np.abs(np.array(layer.weight)) for layer in self.layers]
        paths = following[-1]
        for weight in reversed(following[:-1]):
            paths = weight @ paths
        reach, first = paths.sum(axis=1), self.first
        amounts = np.zeros(len(self.numbers.columns) + len(self.numbers.categories))
        for place, column in enumerate(self.numbers.columns):
            rows = [first.missing[place], *([first.weight[place]] if len(self.numbers.knots[place]) > 1 else [])]
            amounts[column] = np.abs(np.array(rows)).sum(axis=0) @ reach
        for place, column in enumerate(self.numbers.categories, start=len(self.numbers.columns)):
            amounts[column] = np.std(np.array(first.tables[place]), axis=0) @ reach
        return amounts


class Perceptrons(Averaged, frozen=True, dict=True):
    """Multilayer perceptrons, each as JSON of `Perceptron`."""

    kind = "mlp"
    stem = "mlp"

    @staticmethod
    def _read(text: str) -> Perceptron:
        return msgspec.json.decode(text, type=Perceptron)
