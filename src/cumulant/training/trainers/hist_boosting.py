"""scikit-learn's HistGradientBoosting models in LightGBM's text form, which says the same: `x <= threshold` goes left,
missing values where the split says, and the sum starts at a constant. skl2onnx 1.20 cannot convert them.

They are fitted on one 0/1 column a value of each text, so that they need no categories of their own; a split on such a
column is a split on the category.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cumulant.core.errors import DefinitionError
from cumulant.core.servable import Input
from cumulant.training.payloads.encoding import Matrix

#: above every float32; stands for a split of missing values from all others
_INFINITE = 1e300
#: the score of a class that no row had
_NEVER = -1000.0
#: LightGBM's kinds of decision: a number with missing values as NaN, and to the left of it; a category
_NUMBER, _LEFT, _CATEGORY = 8, 2, 1
_OBJECTIVES = {"IdentityLink": "regression", "LogLink": "poisson", "LogitLink": "binary sigmoid:1"}


def expanded(matrix: Matrix, inputs: Sequence[Input]) -> Matrix:
    """Numbers as they are, and one column a value of each category."""
    columns = [
        matrix[:, [place]] if code is None else (matrix[:, [place]] == code).astype(np.float32)
        for place, code in origins(inputs)
    ]
    return np.hstack(columns) if columns else matrix[:, :0]


def origins(inputs: Sequence[Input]) -> list[tuple[int, int | None]]:
    """Of each expanded column: the matrix's column and the code that it is 1 for, None for numbers."""
    codes = [range(len(input_.categories)) if input_.kind == "category" else (None,) for input_ in inputs]
    return [(place, code) for place, own in enumerate(codes) for code in own]


def lightgbm_text(model: Any, inputs: Sequence[Input], *, classes: int = 0, present: Sequence[int] = ()) -> str:
    """A model fitted on `expanded` rows, as it answers for the matrix itself.

    `classes`: of a task of several, how many there are, of which the rows had those at `present`.

    Raises:
        DefinitionError: it splits on categories, or its loss has no form in LightGBM.
    """
    link = type(model._loss.link).__name__  # noqa: SLF001 - it has no public way to its trees
    if not classes and link not in _OBJECTIVES:
        raise DefinitionError(f"the loss {model.loss!r} has no ONNX form here", hint="name another loss")
    if model.is_categorical_ is not None and np.any(model.is_categorical_):
        hint = "leave categorical_features out: texts come as one column a value"
        raise DefinitionError("HistGradientBoosting that splits on categories has no ONNX form here", hint=hint)
    objective = f"multiclass num_class:{classes}" if classes else _OBJECTIVES[link]
    head = {
        "version": "v4",
        "num_class": classes or 1,
        "num_tree_per_iteration": classes or 1,
        "label_index": 0,
        "max_feature_idx": len(inputs) - 1,
        "objective": objective,
        "feature_names": " ".join(f"Column_{place}" for place in range(len(inputs))),
        "feature_infos": " ".join("none" for _ in inputs),
    }
    trees = [f"Tree={number}\n{tree}" for number, tree in enumerate(_trees(model, inputs, classes, present))]
    lines = "\n".join(f"{name}={value}" for name, value in head.items())
    return "\n\n".join([f"tree\n{lines}", *trees, "end of trees", "pandas_categorical:null\n"])


def _trees(model: Any, inputs: Sequence[Input], classes: int, present: Sequence[int]) -> list[str]:
    """Round by round, of each output one; the constants are the first round."""
    writer = _Writer(origins(inputs))
    constants = np.ravel(model._baseline_prediction).tolist()  # noqa: SLF001
    rounds = [[_constant(item) for item in constants]]
    rounds += [[writer.text(tree.nodes) for tree in item] for item in model._predictors]  # noqa: SLF001
    if not classes:
        return [tree for item in rounds for tree in item]
    # of two classes scikit-learn scores the second: its first scores 0
    own = list(present) if len(rounds[0]) == len(present) else list(present)[1:]
    spread = []
    for number, item in enumerate(rounds):
        known = dict(zip(own, item, strict=True))
        absent = {place: _NEVER if number == 0 and place not in present else 0.0 for place in range(classes)}
        spread += [known.get(place) or _constant(absent[place]) for place in range(classes)]
    return spread


def _constant(value: float) -> str:
    return f"num_leaves=1\nnum_cat=0\nleaf_value={value!r}\nshrinkage=1"


class _Writer:
    """Trees of scikit-learn as LightGBM writes them: splits and leaves are numbered apart."""

    def __init__(self, columns: Sequence[tuple[int, int | None]]) -> None:
        self._columns = columns

    def text(self, nodes: Any) -> str:
        leaf = nodes["is_leaf"].astype(bool)
        if leaf[0]:
            return _constant(float(nodes["value"][0]))
        # a child of LightGBM is a split's number, or -1 less a leaf's
        number = np.where(leaf, -np.cumsum(leaf), np.cumsum(~leaf) - 1)
        splits = nodes[~leaf]
        splits_ = [self._split(node, number) for node in splits]
        sets = [code for *_, code in splits_ if code is not None]
        at = iter(range(len(sets)))
        words = [_bits(code) for code in sets]
        lines = {
            "num_leaves": int(leaf.sum()),
            "num_cat": len(sets),
            "split_feature": _row(feature for feature, *_ in splits_),
            "split_gain": _row(float(gain) for gain in splits["gain"]),
            "threshold": _row(threshold if code is None else next(at) for _, threshold, _, _, _, code in splits_),
            "decision_type": _row(kind for _, _, kind, _, _, _ in splits_),
            "left_child": _row(below for _, _, _, below, _, _ in splits_),
            "right_child": _row(right for _, _, _, _, right, _ in splits_),
            "leaf_value": _row(float(value) for value in nodes["value"][leaf]),
        }
        if sets:
            lines["cat_boundaries"] = _row(np.cumsum([0, *map(len, words)]).tolist())
            lines["cat_threshold"] = _row(word for item in words for word in item)
        return "\n".join(f"{name}={value}" for name, value in lines.items()) + "\nshrinkage=1"

    def _split(self, node: Any, number: Any) -> tuple[int, float, int, int, int, int | None]:
        """Column, threshold, kind, left, right, and the code of a split on a category."""
        column, code = self._columns[int(node["feature_idx"])]
        below, above = int(number[node["left"]]), int(number[node["right"]])
        if code is not None:  # 1 is above the threshold: the category goes right here, left in LightGBM
            return column, 0.0, _CATEGORY, above, below, code
        kind = _NUMBER | (_LEFT if node["missing_go_to_left"] else 0)
        return column, min(float(node["num_threshold"]), _INFINITE), kind, below, above, None


def _bits(code: int) -> list[int]:
    """A set of one code as words of 32 bits."""
    return [0] * (code // 32) + [1 << (code % 32)]


def _row(values: Any) -> str:
    return " ".join(repr(value) for value in values)
