"""The outputs of a packaged model, by plain names.

A model of two classes gives `probability` [n], that of the second class; one of more gives `probabilities`
[n, classes]; any other gives `prediction` [n] (or [n, m]). Where the labels of the classes are known, `label` [n]
comes first: text, or whole numbers where all labels are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cumulant.core.servable import Datatype
from cumulant.packaging.graphs.graph import Float, GraphBuilder
from cumulant.servable.engine import Array

if TYPE_CHECKING:
    from onnx import ModelProto

Outputs = dict[str, tuple[str, Datatype, tuple[int, ...]]]


class NamedAnswers:
    """How scores [n, m] become named outputs, in a graph and, for the comparison, in numpy."""

    def __init__(self, *, classes: int, labels: Sequence[Any] = (), datatype: Float = "FP64") -> None:
        self.classes = classes
        self.labels = np.array(labels) if len(labels) else None
        if self.labels is not None and self.labels.dtype.kind in "biu":
            self.labels = self.labels.astype(np.int64)
        elif self.labels is not None:
            self.labels = np.array([str(label) for label in labels], dtype=object)
        self._datatype = datatype

    @property
    def texts(self) -> tuple[str, ...]:
        return () if self.labels is None else tuple(str(label) for label in self.labels)

    def finish(self, graph: GraphBuilder, scores: str, outputs: int) -> ModelProto:
        """The graph whose answers are `scores` [n, outputs]: probabilities of classes, or predictions."""
        named: Outputs = {}
        if self.classes and self.labels is not None:
            kind: Datatype = "BYTES" if self.labels.dtype == object else "INT64"
            named["label"] = (self._label(graph, scores), kind, ())
        if outputs == 1:
            flat = graph.add("Reshape", scores, graph.constant(np.array([-1], np.int64)))
            named["probability" if self.classes else "prediction"] = (flat, self._datatype, ())
        else:
            named["probabilities" if self.classes else "prediction"] = (scores, self._datatype, (outputs,))
        return graph.finish_named(named)

    def _label(self, graph: GraphBuilder, scores: str) -> str:
        labels = graph.constant(np.asarray(self.labels))
        if self.classes == 2:
            half = graph.constant(np.array(0.5, np.float64 if self._datatype == "FP64" else np.float32))
            above = graph.add("Greater", scores, half)
            place = graph.add("Cast", above, to=7)  # INT64
            place = graph.add("Reshape", place, graph.constant(np.array([-1], np.int64)))
        else:
            place = graph.add("ArgMax", scores, axis=1, keepdims=0)
        return graph.add("Gather", labels, place, axis=0)

    def expected(self, scores: Array) -> dict[str, Array]:
        """The same outputs of the original's `scores`, [n] or [n, m]."""
        outputs: dict[str, Array] = {}
        flat = scores[:, 0] if scores.ndim == 2 and scores.shape[1] == 1 else scores
        if self.classes and self.labels is not None:
            place = (flat > 0.5).astype(int) if self.classes == 2 else flat.argmax(axis=1)
            outputs["label"] = self.labels[place]
        if flat.ndim == 1:
            outputs["probability" if self.classes else "prediction"] = flat
        else:
            outputs["probabilities" if self.classes else "prediction"] = flat
        return outputs
