"""Averages of XGBoost and of CatBoost models as parts of one ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from cumulant.packaging.graphs.graph import GraphBuilder
from cumulant.packaging.graphs.tree_ensemble import LEQ, MEMBER, TreeEnsemble, TreeLeaf, TreeSplit
from cumulant.packaging.graphs.xgboost_trees import XgboostTrees

if TYPE_CHECKING:
    from cumulant.training.payloads.engine_models import SymmetricTree, SymmetricTrees


def add_xgboost(graph: GraphBuilder, texts: Sequence[str]) -> tuple[str, int]:
    """Append the average of the models' answers; returns its name and number of outputs.

    Raises:
        DataError: a text is no XGBoost model.
        DefinitionError: an objective or tree that has no exact ONNX form.
    """
    models = [XgboostTrees(msgspec.json.decode(text)) for text in texts]
    x = graph.cast(graph.x, "FP32")  # exact: the graph's input is of float32
    answers = [graph.cast(model.answers(graph, model.add_to(graph, x)), "FP64") for model in models]
    return graph.mean(answers), models[0].outputs


def add_catboost(graph: GraphBuilder, texts: Sequence[str]) -> tuple[str, int]:
    """Append the average of the models' answers; returns its name and number of outputs."""
    from cumulant.training.payloads.engine_models import CatboostModels

    models = CatboostModels(tuple(texts)).models
    answers = [_symmetric(graph, model) for model in models]
    return graph.mean(answers), len(models[0].bias)


def _symmetric(graph: GraphBuilder, model: SymmetricTrees) -> str:
    """The trees in float64, summed in CatBoost's order; each level's test stands once a node of the level."""
    ensemble = TreeEnsemble(len(model.bias))
    for target, value in enumerate(model.bias):
        ensemble.constant(value, target)
    for tree in model.trees:
        for target in range(len(model.bias)):
            ensemble.grow((0, 0), target, partial(_read_node, tree, target))
    return graph.link(model.link, ensemble.add_to(graph), len(model.bias))


def _read_node(tree: SymmetricTree, target: int, node: tuple[int, int]) -> TreeLeaf | TreeSplit:
    """The node at (level, answers of the levels above as bits)."""
    level, bits = node
    if level == len(tree.tests):
        return TreeLeaf(tree.leaves[bits][target])
    test, failed, passed = tree.tests[level], (level + 1, bits), (level + 1, bits | 1 << level)
    if test.code is None:
        return TreeSplit(test.column, LEQ, test.border, missing=not test.missing, yes=failed, no=passed)
    members = (float(test.code),)
    return TreeSplit(test.column, MEMBER, 0.0, missing=test.missing, yes=passed, no=failed, members=members)
