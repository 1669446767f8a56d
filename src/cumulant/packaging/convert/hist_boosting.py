"""scikit-learn's HistGradientBoosting models as exact float64 trees.

skl2onnx knows them, but hands numpy's numbers to onnx, which takes them no more; and its trees are of float32. Here
`x <= threshold` goes left, NaN where the split sends it, and the sums start at the baseline, as in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cumulant.core.errors import DefinitionError
from cumulant.packaging.convert.foreign_model import TREES, ForeignModel, installed_versions
from cumulant.packaging.convert.output_names import NamedAnswers
from cumulant.packaging.graphs.graph import INPUT, GraphBuilder
from cumulant.packaging.graphs.tree_ensemble import LEQ, TreeEnsemble, TreeLeaf, TreeSplit
from cumulant.servable.engine import Array

_NAMES = frozenset({"HistGradientBoostingClassifier", "HistGradientBoostingRegressor"})
_LINKS = {"IdentityLink": "identity", "LogLink": "exp", "LogitLink": "sigmoid", "MultinomialLogit": "softmax"}
_NUMBERS = "train it on numbers, such as those of an OrdinalEncoder before it, with categorical_features=None"
_OTHER = "bring the model as ONNX"


def is_hist_boosting(model: Any) -> bool:
    """Whether it is one of scikit-learn's two classes, not one derived from them, which may answer otherwise."""
    return type(model).__name__ in _NAMES and type(model).__module__.startswith("sklearn.")


def from_hist_boosting(model: Any) -> ForeignModel:
    """The graph of a fitted HistGradientBoostingClassifier or -Regressor.

    Raises:
        DefinitionError: it is not fitted, splits on categories, or has a loss without an exact ONNX form.
    """
    name = type(model).__name__
    if not hasattr(model, "_predictors"):
        raise DefinitionError(f"the {name} is not fitted", subject=name, hint="fit it before it is packaged")
    if model.is_categorical_ is not None and np.any(model.is_categorical_):
        raise DefinitionError(f"the {name} splits on categories, which have no ONNX form here", hint=_NUMBERS)
    link = _LINKS.get(type(model._loss.link).__name__)  # noqa: SLF001 - it has no public way to its trees
    if link is None:
        raise DefinitionError(f"the loss {model.loss!r} of the {name} has no ONNX form here", hint=_OTHER)
    outputs = int(model.n_trees_per_iteration_)
    graph = GraphBuilder(int(model.n_features_in_), source="FP64")
    scores = graph.link(link, _trees(model, outputs).add_to(graph), outputs)
    labels = getattr(model, "classes_", ())
    answers = NamedAnswers(classes=len(labels), labels=labels)
    columns = tuple(str(column) for column in getattr(model, "feature_names_in_", ()))
    return ForeignModel(
        kind="scikit-learn",
        converter="cumulant, float64 trees",
        model=answers.finish(graph, scores, outputs),
        tolerance=TREES,
        predict=lambda values: answers.expected(_scores(model, values, columns)),
        columns=columns,
        classes=answers.texts,
        packages=installed_versions("scikit-learn", "onnx"),
    )


def _trees(model: Any, outputs: int) -> TreeEnsemble:
    ensemble = TreeEnsemble(outputs)
    for target, value in enumerate(np.ravel(model._baseline_prediction)):  # noqa: SLF001
        ensemble.constant(float(value), target)
    for iteration in model._predictors:  # noqa: SLF001
        for target, tree in enumerate(iteration):
            ensemble.grow(0, target, _Tree(tree.nodes).read)
    return ensemble


class _Tree:
    def __init__(self, nodes: Any) -> None:
        self._nodes = nodes

    def read(self, place: int) -> TreeLeaf | TreeSplit:
        node = self._nodes[place]
        if node["is_leaf"]:
            return TreeLeaf(float(node["value"]))
        return TreeSplit(
            int(node["feature_idx"]),
            LEQ,
            float(node["num_threshold"]),
            missing=bool(node["missing_go_to_left"]),
            yes=int(node["left"]),
            no=int(node["right"]),
        )


def _scores(model: Any, values: Mapping[str, Array], columns: tuple[str, ...]) -> Array:
    rows: Any = values[INPUT]
    if columns:
        import pandas as pd

        rows = pd.DataFrame(rows, columns=list(columns))
    if not hasattr(model, "predict_proba"):
        return np.asarray(model.predict(rows))
    chances = np.asarray(model.predict_proba(rows))
    return chances[:, 1] if chances.shape[1] == 2 else chances
