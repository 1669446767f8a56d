"""LightGBM boosters as ONNX tree ensembles that answer bit for bit as LightGBM does.

Built from `Booster.dump_model()` onto the operator TreeEnsemble (ai.onnx.ml 5) in float64: thresholds and
leaves keep every digit, and trees are summed in LightGBM's order. Categorical splits become BRANCH_MEMBER.
Routing of missing values follows LightGBM's `Tree::NumericalDecision` and `Tree::CategoricalDecision`:
where training saw missing values, NaN takes the split's default direction; where it saw none, NaN counts as
0; a missing category never belongs to a set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cumulant.core.errors import DefinitionError, missing_part
from cumulant.packaging.graph import ML_DOMAIN, Graph, onnx_part

_LEQ, _MEMBER = 0, 6
#: LightGBM's kZeroThreshold, a float32
_ZERO = float(np.float32(1e-35))
_LINKS = {
    "binary": "sigmoid",
    "cross_entropy": "sigmoid",
    "multiclass": "softmax",
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
}
_TRAIN_AGAIN = "train with another objective or setting, or bring the model as ONNX"


def add_boosters(graph: Graph, texts: Sequence[str]) -> tuple[str, int]:
    """Append the average of the boosters' answers; returns its name and number of outputs.

    Raises:
        DefinitionError: an objective or tree that has no exact ONNX form.
    """
    answers = [_add_booster(graph, text) for text in texts]
    if len({outputs for _, outputs in answers}) != 1:
        raise DefinitionError("boosters with different numbers of outputs cannot be averaged")
    total, outputs = answers[0]
    for answer, _ in answers[1:]:
        total = graph.add("Add", total, answer)
    if len(answers) > 1:
        total = graph.add("Div", total, graph.number(len(answers)))
    return total, outputs


def _add_booster(graph: Graph, text: str) -> tuple[str, int]:
    try:
        import lightgbm
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "lightgbm", "train") from None
    dump: dict[str, Any] = lightgbm.Booster(model_str=text).dump_model()
    link, slope = _link(dump["objective"])
    outputs = int(dump["num_tree_per_iteration"])
    score = _Ensemble(dump["tree_info"], outputs).add_to(graph)
    if dump["average_output"]:
        score = graph.add("Div", score, graph.number(len(dump["tree_info"]) / outputs))
    if slope != 1:
        score = graph.add("Mul", score, graph.number(slope))
    return graph.link(link, score), outputs


def _link(objective: str) -> tuple[str, float]:
    """The link function and the slope before it, of an objective such as `binary sigmoid:1`."""
    name, *options = objective.split()
    if name not in _LINKS or "sqrt" in options:
        raise DefinitionError(f'LightGBM objective "{objective}" has no ONNX form here', hint=_TRAIN_AGAIN)
    slopes = [float(option.partition(":")[2]) for option in options if option.startswith("sigmoid:")]
    return _LINKS[name], slopes[0] if slopes else 1.0


class _Ensemble:
    """The attributes of one TreeEnsemble, filled tree by tree, parents before children."""

    def __init__(self, trees: Sequence[dict[str, Any]], outputs: int) -> None:
        self.outputs = outputs
        self.roots: list[int] = []
        self.features: list[int] = []
        self.thresholds: list[float] = []
        self.modes: list[int] = []
        self.missing: list[int] = []
        self.children: list[list[tuple[int, int]]] = []
        self.members: dict[int, list[float]] = {}
        self.leaves: list[float] = []
        self.targets: list[int] = []
        for number, tree in enumerate(trees):
            self._tree(tree["tree_structure"], number % outputs)

    def _tree(self, top: dict[str, Any], target: int) -> None:
        if "leaf_value" in top:  # a tree that never split: both branches of a dummy split give its value
            top = {"split_feature": 0, "threshold": 0.0, "decision_type": "<=", "missing_type": "None",
                   "default_left": True, "left_child": top, "right_child": top}  # fmt: skip
        self.roots.append(len(self.features))
        waiting: list[tuple[dict[str, Any], list[tuple[int, int]] | None]] = [(top, None)]
        while waiting:
            node, parent = waiting.pop()
            place = self._leaf(node, target) if "leaf_value" in node else self._split(node)
            if parent is not None:
                parent.append(place)
            if "leaf_value" not in node:
                # The stack gives the left child first, whose whole subtree precedes the right child.
                children = self.children[place[0]]
                waiting += [(node["right_child"], children), (node["left_child"], children)]

    def _leaf(self, node: dict[str, Any], target: int) -> tuple[int, int]:
        if "leaf_coeff" in node:
            raise DefinitionError("LightGBM trees with linear leaves have no ONNX form", hint=_TRAIN_AGAIN)
        self.leaves.append(node["leaf_value"])
        self.targets.append(target)
        return len(self.leaves) - 1, 1

    def _split(self, node: dict[str, Any]) -> tuple[int, int]:
        place = len(self.features)
        self.features.append(node["split_feature"])
        self.children.append([])
        if node["decision_type"] == "==":
            self.members[place] = [float(code) for code in str(node["threshold"]).split("||")]
            self.modes.append(_MEMBER)
            self.thresholds.append(0.0)
            self.missing.append(0)
        else:
            self.modes.append(_LEQ)
            self.thresholds.append(_threshold(node))
            self.missing.append(int(_missing_goes_left(node)))
        return place, 0

    def add_to(self, graph: Graph) -> str:
        tensor = onnx_part().numpy_helper.from_array
        members = [part for place in sorted(self.members) for part in (*self.members[place], np.nan)]
        attributes: dict[str, Any] = {
            "n_targets": self.outputs,
            "aggregate_function": 1,
            "post_transform": 0,
            "tree_roots": self.roots,
            "nodes_featureids": self.features,
            "nodes_splits": tensor(np.array(self.thresholds, np.float64)),
            "nodes_modes": tensor(np.array(self.modes, np.uint8)),
            "nodes_missing_value_tracks_true": self.missing,
            "nodes_truenodeids": [left for (left, _), _ in self.children],
            "nodes_trueleafs": [leaf for (_, leaf), _ in self.children],
            "nodes_falsenodeids": [right for _, (right, _) in self.children],
            "nodes_falseleafs": [leaf for _, (_, leaf) in self.children],
            "leaf_weights": tensor(np.array(self.leaves, np.float64)),
            "leaf_targetids": self.targets,
        }
        if members:
            attributes["membership_values"] = tensor(np.array(members, np.float64))
        return graph.add("TreeEnsemble", graph.x, domain=ML_DOMAIN, **attributes)


def _threshold(node: dict[str, Any]) -> float:
    """The split's threshold. LightGBM reads values up to 1e-35 from zero as zero, which is above -1e-35."""
    threshold = float(node["threshold"])
    return math.nextafter(threshold, -math.inf) if threshold == -_ZERO else threshold


def _missing_goes_left(node: dict[str, Any]) -> bool:
    zero_goes_left = bool(node["threshold"] >= 0)
    match node["missing_type"]:
        case "NaN":
            return bool(node["default_left"])
        case "None":
            return zero_goes_left
        case _ if bool(node["default_left"]) == zero_goes_left:
            return zero_goes_left
    raise DefinitionError("LightGBM's zero_as_missing has no exact ONNX form", hint=_TRAIN_AGAIN)
