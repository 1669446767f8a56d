"""LightGBM boosters as ONNX tree ensembles that answer bit for bit as LightGBM does.

Built from `Booster.dump_model()` onto the operator TreeEnsemble (ai.onnx.ml 5) in float64: thresholds and
leaves keep every digit, and trees are summed in LightGBM's order. Categorical splits become BRANCH_MEMBER.
Routing of missing values follows LightGBM's `Tree::NumericalDecision` and `Tree::CategoricalDecision`:
where training saw missing values, NaN takes the split's default direction; where it saw none, NaN counts as
0; a missing category never belongs to a set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cumulant.core.errors import DefinitionError, missing_part
from cumulant.packaging.graphs.graph import GraphBuilder
from cumulant.packaging.graphs.tree_ensemble import LEQ, MEMBER, TreeEnsemble, TreeLeaf, TreeSplit

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
#: of models from elsewhere, whose answers need be no probabilities of a task
ALL_LINKS = _LINKS | {
    "multiclassova": "sigmoid",
    "lambdarank": "identity",
    "rank_xendcg": "identity",
    "custom": "identity",
}
_TRAIN_AGAIN = "train with another objective or setting, or bring the model as ONNX"


def add_boosters(graph: GraphBuilder, texts: Sequence[str], *, links: Mapping[str, str] = _LINKS) -> tuple[str, int]:
    """Append the average of the boosters' answers; returns its name and number of outputs.

    `links` are the objectives that are taken, with their link functions.

    Raises:
        DefinitionError: an objective or tree that has no exact ONNX form.
    """
    answers = [_add_booster(graph, text, links) for text in texts]
    if len({outputs for _, outputs in answers}) != 1:
        raise DefinitionError("boosters with different numbers of outputs cannot be averaged")
    return graph.mean([answer for answer, _ in answers]), answers[0][1]


def _add_booster(graph: GraphBuilder, text: str, links: Mapping[str, str]) -> tuple[str, int]:
    try:
        import lightgbm
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "lightgbm", "train") from None
    dump: dict[str, Any] = lightgbm.Booster(model_str=text).dump_model()
    # A model of a user's own objective has none: its answers are the raw scores.
    link, slope = _link(dump.get("objective") or "custom", links)
    outputs = int(dump["num_tree_per_iteration"])
    ensemble = TreeEnsemble(outputs)
    for number, tree in enumerate(dump["tree_info"]):
        ensemble.grow(tree["tree_structure"], number % outputs, _node)
    score = ensemble.add_to(graph)
    if dump["average_output"]:
        score = graph.add("Div", score, graph.number(len(dump["tree_info"]) / outputs))
    if slope != 1:
        score = graph.add("Mul", score, graph.number(slope))
    return graph.link(link, score, outputs), outputs


def _link(objective: str, links: Mapping[str, str]) -> tuple[str, float]:
    """The link function and the slope before it, of an objective such as `binary sigmoid:1`."""
    name, *options = objective.split()
    if name not in links or "sqrt" in options:
        raise DefinitionError(f'LightGBM objective "{objective}" has no ONNX form here', hint=_TRAIN_AGAIN)
    slopes = [float(option.partition(":")[2]) for option in options if option.startswith("sigmoid:")]
    return links[name], slopes[0] if slopes else 1.0


def _node(node: dict[str, Any]) -> TreeLeaf | TreeSplit:
    if "leaf_coeff" in node:
        raise DefinitionError("LightGBM trees with linear leaves have no ONNX form", hint=_TRAIN_AGAIN)
    if "leaf_value" in node:
        return TreeLeaf(node["leaf_value"])
    feature, left_child, right_child = node["split_feature"], node["left_child"], node["right_child"]
    if node["decision_type"] == "==":
        members = tuple(float(code) for code in str(node["threshold"]).split("||"))
        return TreeSplit(feature, MEMBER, 0.0, missing=False, yes=left_child, no=right_child, members=members)
    return TreeSplit(feature, LEQ, _threshold(node), missing=_missing_goes_left(node), yes=left_child, no=right_child)


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
