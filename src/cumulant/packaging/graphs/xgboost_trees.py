"""The trees of an XGBoost model as part of an ONNX graph: of float32, summed in XGBoost's order.

`x < threshold` goes left; NaN takes the split's default direction; of a categorical split the categories that are
named go right. The sums start at the base score, so that they round as XGBoost's do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cumulant.core.errors import DataError, DefinitionError
from cumulant.packaging.graphs.graph import GraphBuilder
from cumulant.packaging.graphs.tree_ensemble import LT, MEMBER, TreeEnsemble, TreeLeaf, TreeSplit

SAVE_AGAIN = "save the model again with save_model('model.ubj')"
_OTHER = "bring the model as ONNX"
#: how a score becomes an answer, and how the base score was made from one
_LINKS = {
    "binary:logistic": "sigmoid",
    "binary:logitraw": "identity",
    "reg:logistic": "sigmoid",
    "multi:softprob": "softmax",
    "multi:softmax": "softmax",
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:absoluteerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:quantileerror": "identity",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    "survival:cox": "exp",
    "survival:aft": "exp",
    "rank:pairwise": "identity",
    "rank:ndcg": "identity",
    "rank:map": "identity",
}
_MOST_FEATURES = 1_000_000
_LEAST_BASE = np.float32(1e-6)
_LONGEST_NAME = 1000


class XgboostTrees:
    """The parts of an XGBoost model that answers depend on, checked.

    Raises:
        DataError: a part is missing, or a tree names a node or feature that is not there.
        DefinitionError: a booster or objective without an exact ONNX form.
    """

    def __init__(self, document: Any) -> None:
        try:
            learner = document["learner"]
            booster, parameters = learner["gradient_booster"], learner["learner_model_param"]
            self.objective = str(learner["objective"]["name"])
            self.features = int(parameters["num_feature"])
            self.outputs = max(1, int(parameters["num_class"]), int(parameters.get("num_target", 1)))
            self.names = tuple(str(feature) for feature in learner.get("feature_names", ()))
            self._best = learner.get("attributes", {}).get("best_iteration")
            self._base = parameters["base_score"]
            self._read(booster)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise DataError(
                f"the XGBoost model lacks a part or holds a wrong one: {error!r}", hint=SAVE_AGAIN
            ) from None
        if self.objective not in _LINKS:
            raise DefinitionError(f'XGBoost objective "{self.objective}" has no ONNX form here', hint=_OTHER)
        try:
            wrong = any(math.isnan(margin) or margin == math.inf for margin in self.margins())
        except ValueError:
            wrong = True
        if wrong:
            raise DataError(f"the XGBoost model's base score {str(self._base)[:40]!a} is no number", hint=SAVE_AGAIN)

    def _read(self, booster: Any) -> None:
        kind = booster["name"]
        if kind not in ("gbtree", "dart"):
            raise DefinitionError(f'XGBoost booster "{kind}" has no ONNX form here', hint=_OTHER)
        model = booster["gbtree"]["model"] if kind == "dart" else booster["model"]
        self.trees, self.targets = list(model["trees"]), [int(value) for value in model["tree_info"]]
        self.weights = [float(value) for value in booster["weight_drop"]] if kind == "dart" else [1.0] * len(self.trees)
        self.total = len(self.trees)
        # Each output has a tree of its own in each iteration.
        if not 0 < self.features <= _MOST_FEATURES or self.outputs > max(1, self.total):
            raise ValueError("number of features or outputs")
        if self._best is not None:
            bounds = model.get("iteration_indptr") or range(0, self.total + 1, self.outputs)
            self.trees = self.trees[: int(bounds[int(self._best) + 1])]
        if any(len(name) > _LONGEST_NAME for name in self.names):
            raise ValueError(f"a feature's name of more than {_LONGEST_NAME:,} letters")
        if len(self.targets) != self.total or len(self.weights) != self.total:
            raise ValueError("number of trees")
        for number, tree in enumerate(self.trees):
            _check_tree(tree, self.features, number)
            if not 0 <= self.targets[number] < self.outputs:
                raise ValueError(f"output of tree {number}")

    @property
    def link(self) -> str:
        return _LINKS[self.objective]

    @property
    def rounds(self) -> int | None:
        """Iterations that count, where early stopping found the rest to do harm."""
        return None if self._best is None or len(self.trees) == self.total else int(self._best) + 1

    def margins(self) -> list[float]:
        """The base score of each output, before the link."""
        text = str(self._base).strip("[]")
        values = [float(part) for part in text.split(",")]
        margins = [_margin(np.float32(value), self.link) for value in values]
        return margins if len(margins) == self.outputs else [margins[0]] * self.outputs

    def add_to(self, graph: GraphBuilder, x: str | None = None) -> str:
        """Append the trees, which read the float32 `x`; returns the name of the scores, float32 [n, outputs]."""
        ensemble = TreeEnsemble(self.outputs, np.float32)
        for target, margin in enumerate(self.margins()):
            ensemble.constant(margin, target)
        for tree, target, weight in zip(self.trees, self.targets, self.weights, strict=False):
            ensemble.grow(0, target, _Tree(tree, weight).read)
        return ensemble.add_to(graph, x)

    def answers(self, graph: GraphBuilder, scores: str) -> str:
        """`scores` after the link, rounded to float32 as XGBoost's are."""
        if self.link == "identity":
            return scores
        # XGBoost's float32 exp is that of the C library; onnxruntime's own is coarser. float64 rounds to it.
        return graph.cast(graph.link(self.link, graph.cast(scores, "FP64"), self.outputs), "FP32")


def _margin(base: np.float32, link: str) -> float:
    """Of a target that was always 0 or 1 XGBoost stores these, and limits a probability before its logit."""
    match link:
        case "sigmoid":
            limited = np.clip(base, _LEAST_BASE, np.float32(1) - _LEAST_BASE)
            return float(-np.log(np.float32(1) / limited - np.float32(1)))
        case "exp":
            return float(np.log(base)) if base else -math.inf
        case _:
            return float(base)


class _Tree:
    def __init__(self, tree: Mapping[str, Any], weight: float) -> None:
        self._tree = tree
        self._weight = np.float32(weight)
        parts = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
        self._sets = {int(node): tree["categories"][start : start + size] for node, start, size in parts}

    def read(self, node: int) -> TreeLeaf | TreeSplit:
        tree = self._tree
        left_child, right_child = int(tree["left_children"][node]), int(tree["right_children"][node])
        value = float(tree["split_conditions"][node])
        if left_child == -1:
            return TreeLeaf(float(np.float32(value) * self._weight))
        feature, default_left = int(tree["split_indices"][node]), bool(tree["default_left"][node])
        if node not in self._sets:
            return TreeSplit(feature, LT, value, missing=default_left, yes=left_child, no=right_child)
        members = tuple(float(category) for category in self._sets[node])
        return TreeSplit(
            feature, MEMBER, 0.0, missing=not default_left, yes=right_child, no=left_child, members=members
        )


def _check_tree(tree: Mapping[str, Any], features: int, number: int) -> None:
    left_children, right_children = (
        [int(child) for child in tree[name]] for name in ("left_children", "right_children")
    )
    count = len(left_children)
    if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise DefinitionError("XGBoost trees with a vector in each leaf have no ONNX form here", hint=_OTHER)
    same = ("right_children", "split_indices", "split_conditions", "default_left")
    if count == 0 or any(len(tree[name]) != count for name in same):
        raise ValueError(f"nodes of tree {number}")
    children = [child for child in (*left_children, *right_children) if child != -1]
    # Every node has one parent at most, and the root none: no node is its own ancestor below the root.
    wrong = len(set(children)) != len(children) or any(not 0 < child < count for child in children)
    if wrong or any(
        (child == -1) != (sibling == -1) for child, sibling in zip(left_children, right_children, strict=True)
    ):
        raise ValueError(f"nodes of tree {number}")
    if any(not 0 <= int(child) < features for child in tree["split_indices"]):
        raise ValueError(f"a feature of tree {number}")
    for value, goes_left in zip(tree["split_conditions"], tree["default_left"], strict=True):
        float(value), int(goes_left)
    if len({len(tree[f"categories_{name}"]) for name in ("nodes", "segments", "sizes")}) != 1:
        raise ValueError(f"the categories of tree {number}")
    for start, size in zip(tree["categories_segments"], tree["categories_sizes"], strict=True):
        if start < 0 or size <= 0 or start + size > len(tree["categories"]):
            raise ValueError(f"the categories of tree {number}")
