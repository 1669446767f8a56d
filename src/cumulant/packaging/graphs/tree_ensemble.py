"""Decision trees as the attributes of one operator TreeEnsemble (ai.onnx.ml 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cumulant.packaging.graphs.graph import ML_DOMAIN, GraphBuilder, import_onnx

LEQ, LT, MEMBER = 0, 1, 6


@dataclass(frozen=True)
class TreeLeaf:
    value: float


@dataclass(frozen=True)
class TreeSplit:
    """`yes` where the value passes (`mode` against `threshold`, or is one of `members`), and for NaN with `missing`."""

    feature: int
    mode: int
    threshold: float
    missing: bool
    yes: Any
    no: Any
    members: tuple[float, ...] = ()


class TreeEnsemble:
    """Trees are added one by one; parents come before children, and trees are summed in the order of adding.

    `dtype` is that of the input, the thresholds, the leaves and the sums.
    """

    def __init__(self, outputs: int, dtype: type[np.floating[Any]] = np.float64) -> None:
        self.outputs = outputs
        self._dtype = dtype
        self._roots: list[int] = []
        self._features: list[int] = []
        self._thresholds: list[float] = []
        self._modes: list[int] = []
        self._missing: list[int] = []
        self._children: list[list[tuple[int, int]]] = []
        self._members: dict[int, tuple[float, ...]] = {}
        self._leaves: list[float] = []
        self._targets: list[int] = []

    def grow(self, top: Any, target: int, read: Callable[[Any], TreeLeaf | TreeSplit]) -> None:
        """Add the tree under `top`, whose leaves count for the output `target`; `read` gives a node."""
        first = read(top)
        if isinstance(first, TreeLeaf):  # a tree that never split: both branches of a dummy split give its value
            first = TreeSplit(0, LEQ, 0.0, missing=True, yes=top, no=top)
        self._roots.append(len(self._features))
        waiting: list[tuple[TreeLeaf | TreeSplit, list[tuple[int, int]] | None]] = [(first, None)]
        while waiting:
            node, parent = waiting.pop()
            place = self._leaf(node, target) if isinstance(node, TreeLeaf) else self._split(node)
            if parent is not None:
                parent.append(place)
            if isinstance(node, TreeSplit):
                # The stack gives the branch `yes` first, whose whole subtree precedes the branch `no`.
                children = self._children[place[0]]
                waiting += [(read(node.no), children), (read(node.yes), children)]

    def constant(self, value: float, target: int) -> None:
        """Add a tree that gives `value` to every row."""
        self.grow(TreeLeaf(value), target, lambda node: node)

    def _leaf(self, leaf: TreeLeaf, target: int) -> tuple[int, int]:
        self._leaves.append(leaf.value)
        self._targets.append(target)
        return len(self._leaves) - 1, 1

    def _split(self, split: TreeSplit) -> tuple[int, int]:
        place = len(self._features)
        self._features.append(split.feature)
        self._thresholds.append(split.threshold)
        self._modes.append(split.mode)
        self._missing.append(int(split.missing))
        self._children.append([])
        if split.mode == MEMBER:
            self._members[place] = split.members
        return place, 0

    def add_to(self, graph: GraphBuilder, x: str | None = None) -> str:
        """Append the operator, which reads `x` (default: the graph's); returns the name of its output, [n, outputs]."""
        members = [part for place in sorted(self._members) for part in (*self._members[place], np.nan)]
        attributes: dict[str, Any] = {
            "n_targets": self.outputs,
            "aggregate_function": 1,
            "post_transform": 0,
            "tree_roots": self._roots,
            "nodes_featureids": self._features,
            "nodes_splits": self._tensor(self._thresholds),
            "nodes_modes": import_onnx().numpy_helper.from_array(np.array(self._modes, np.uint8)),
            "nodes_missing_value_tracks_true": self._missing,
            "nodes_truenodeids": [yes for (yes, _), _ in self._children],
            "nodes_trueleafs": [leaf for (_, leaf), _ in self._children],
            "nodes_falsenodeids": [no for _, (no, _) in self._children],
            "nodes_falseleafs": [leaf for _, (_, leaf) in self._children],
            "leaf_weights": self._tensor(self._leaves),
            "leaf_targetids": self._targets,
        }
        if members:
            attributes["membership_values"] = self._tensor(members)
        return graph.add("TreeEnsemble", x or graph.x, domain=ML_DOMAIN, **attributes)

    def _tensor(self, values: list[float]) -> Any:
        array: NDArray[Any] = np.array(values, self._dtype)
        return import_onnx().numpy_helper.from_array(array)
