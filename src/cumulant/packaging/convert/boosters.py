"""LightGBM models, from their text form or from memory."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cumulant.core.errors import DataError, missing_part
from cumulant.packaging.convert.foreign_model import TREES, ForeignModel, installed_versions
from cumulant.packaging.convert.output_names import NamedAnswers
from cumulant.packaging.convert.trial_run import try_reading
from cumulant.packaging.graphs.graph import INPUT, GraphBuilder
from cumulant.packaging.graphs.lightgbm_trees import ALL_LINKS, add_boosters
from cumulant.servable.engine import Array

_CUT = "save the model again with Booster.save_model"
_INTEGERS = ("left_child", "right_child", "split_feature", "leaf_value", "threshold", "decision_type")
_CATEGORICAL = 1
_PLAIN = re.compile(r"Column_\d+")


def read_booster(path: Path) -> ForeignModel:
    """The LightGBM model in a text file.

    Raises:
        DataError: the file is cut off, or its trees point outside themselves.
        DefinitionError: an objective or tree without an exact ONNX form.
        MissingPartError: lightgbm is not installed.
    """
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise DataError(f"{path} is no LightGBM text model", subject=str(path), hint=_CUT) from None
    check_text(text, str(path))
    _lightgbm()
    try_reading("lightgbm", path)
    return from_booster(text, None)


def from_booster(text: str, booster: Any, *, labels: Sequence[Any] = (), names: Sequence[str] = ()) -> ForeignModel:
    """The graph of a model's text. `booster` is the model itself where it is at hand; `labels` a classifier's.

    Raises:
        DataError: LightGBM cannot read the text.
        DefinitionError: an objective or tree without an exact ONNX form.
    """
    original = booster if booster is not None else _load(text)
    objective, width = _header(text, "objective"), original.num_feature()
    graph = GraphBuilder(width, source="FP64")
    try:
        scores, outputs = add_boosters(graph, [text], links=ALL_LINKS)
    except json.JSONDecodeError as error:  # a name or a setting in it holds what no text should
        raise DataError(f"LightGBM cannot describe the model: {error}", hint=_CUT) from None
    answers = NamedAnswers(classes=_classes(objective, outputs), labels=labels)
    columns = tuple(names) or tuple(original.feature_name())

    def predict(values: Mapping[str, Array]) -> dict[str, Array]:
        matrix = np.ascontiguousarray(values[INPUT], np.float64)
        return answers.expected(np.asarray(original.predict(matrix, num_threads=1)))

    return ForeignModel(
        kind="LightGBM",
        converter="cumulant, float64 trees",
        model=answers.finish(graph, scores, outputs),
        tolerance=TREES,
        predict=predict,
        columns=() if all(_PLAIN.fullmatch(name) for name in columns) else columns,
        classes=answers.texts,
        notes=_notes(text),
        packages=installed_versions("lightgbm", "onnx"),
    )


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "lightgbm", "train") from None
    return lightgbm


def _load(text: str) -> Any:
    lightgbm = _lightgbm()
    try:
        return lightgbm.Booster(model_str=text)
    except (lightgbm.basic.LightGBMError, ValueError) as error:
        raise DataError(f"LightGBM cannot read the model: {error}", hint=_CUT) from None


def _classes(objective: str, outputs: int) -> int:
    name = objective.split(maxsplit=1)[0] if objective else ""
    if name in ("binary", "cross_entropy"):
        return 2
    return outputs if name in ("multiclass", "multiclassova") else 0


def _header(text: str, key: str) -> str:
    match = re.search(rf"^{key}=(.*)$", text[: text.find("\nTree=")], re.MULTILINE)
    return match[1].strip() if match else ""


def _notes(text: str) -> tuple[str, ...]:
    match = re.search(r"^pandas_categorical:(.*)$", text, re.MULTILINE)
    if match is None or match[1].strip() in ("", "null", "[]"):
        return ()
    return ("categorical columns are read as pandas' category codes, in the order of training",)


def check_text(text: str, subject: str) -> None:
    """Refuse a text that LightGBM would follow out of its own memory.

    Raises:
        DataError: it is cut off, a number cannot be read, or a tree names a node or feature that is not there.
    """
    if "\nend of trees" not in text or ("\nparameters:" in text and "\nend of parameters" not in text):
        raise DataError("the LightGBM model is cut off: its end is missing", subject=subject, hint=_CUT)
    body, _, _ = text.partition("\nend of trees")
    head, *trees = re.split(r"^Tree=\d+\s*$", body, flags=re.MULTILINE)
    try:
        most = int(_fields(head).get("max_feature_idx", ""))
        if not trees or most < 0 or len(_fields(head).get("feature_names", "").split()) != most + 1:
            raise DataError("the LightGBM model has no trees or no features", subject=subject, hint=_CUT)
        _check_outputs(_fields(head), len(trees), subject)
        for number, tree in enumerate(trees):
            _check_tree(_fields(tree), most, f"tree {number} of {subject}")
    except ValueError as error:
        raise DataError(f"the LightGBM model cannot be read: {error}", subject=subject, hint=_CUT) from None


def _check_outputs(head: dict[str, str], trees: int, subject: str) -> None:
    """LightGBM believes its head: with other numbers than those of its trees it reads beyond them."""
    outputs, classes = int(head.get("num_tree_per_iteration", "")), int(head.get("num_class", ""))
    if not 1 <= outputs == classes or trees % outputs:
        text = f"the LightGBM model claims {classes} classes and {outputs} trees an iteration, of {trees} trees"
        raise DataError(text, subject=subject, hint=_CUT)


def _fields(block: str) -> dict[str, str]:
    return {key.strip(): value for key, mark, value in (line.partition("=") for line in block.splitlines()) if mark}


def _check_tree(tree: dict[str, str], most: int, subject: str) -> None:
    leaves = int(tree.get("num_leaves", ""))
    splits = leaves - 1
    wrong = DataError(f"{subject} points outside itself", subject=subject, hint=_CUT)
    if leaves < 1 or len(tree.get("leaf_value", "").split()) != leaves:
        raise wrong
    if splits == 0:
        return
    columns = {name: tree.get(name, "").split() for name in _INTEGERS if name != "leaf_value"}
    if any(len(values) != splits for values in columns.values()):
        raise wrong
    for number in (*tree["leaf_value"].split(), *columns["threshold"], *columns["decision_type"]):
        float(number)
    children = [int(child) for name in ("left_child", "right_child") for child in columns[name]]
    # Every node but the first and every leaf is a child once: no node is its own ancestor.
    if sorted(children) != [*range(-leaves, 0), *range(1, splits)]:
        raise wrong
    if any(not 0 <= int(feature) <= most for feature in columns["split_feature"]):
        raise wrong
    _check_categories(tree, columns, wrong)


def _check_categories(tree: dict[str, str], columns: dict[str, list[str]], wrong: DataError) -> None:
    chosen = [
        float(threshold)
        for threshold, kind in zip(columns["threshold"], columns["decision_type"], strict=True)
        if int(kind) & _CATEGORICAL
    ]
    sets = int(tree.get("num_cat", "0"))
    bounds = [int(bound) for bound in tree.get("cat_boundaries", "").split()]
    words = tree.get("cat_threshold", "").split()
    if any(not 0 <= place < sets for place in chosen):
        raise wrong
    if sets < 0:
        raise wrong
    if sets and (len(bounds) != sets + 1 or bounds[0] != 0 or bounds != sorted(bounds) or bounds[-1] != len(words)):
        raise wrong
