"""XGBoost models, from their own JSON or UBJSON form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cumulant.core.errors import DataError, DefinitionError
from cumulant.packaging.convert import ubjson
from cumulant.packaging.convert.foreign_model import TREES, ForeignModel, installed_versions
from cumulant.packaging.convert.output_names import NamedAnswers
from cumulant.packaging.convert.trial_run import try_reading
from cumulant.packaging.graphs.graph import INPUT, GraphBuilder
from cumulant.packaging.graphs.xgboost_trees import SAVE_AGAIN, XgboostTrees
from cumulant.servable.engine import Array


def read_xgboost(path: Path) -> ForeignModel:
    """The XGBoost model in a JSON or UBJSON file.

    Raises:
        DataError: the file is cut off or malformed.
        DefinitionError: a booster or objective without an exact ONNX form.
        MissingPartError: xgboost is not installed, which gives the answers to compare with.
    """
    content = path.read_bytes()
    try:
        document = ubjson.decode(content) if content.startswith(b"{L\0") else msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no JSON, or is cut off: {error}", subject=str(path), hint=SAVE_AGAIN) from None
    if not isinstance(document, dict) or "learner" not in document:
        raise DataError(f"{path} is JSON, but no XGBoost model", subject=str(path), hint=SAVE_AGAIN)
    foreign = from_document(document, lambda: _load(path))
    if find_spec("xgboost") is not None:
        _load(path)  # it checks what the trees' answers do not depend on, such as counts of what it holds
    return foreign


def from_document(document: Any, original: Any, *, labels: Sequence[Any] = ()) -> ForeignModel:
    """The graph of a model's document. `original()` gives the Booster; `labels` are a classifier's."""
    trees = XgboostTrees(document)
    graph = GraphBuilder(trees.features, source="FP32", inner="FP32")
    scores = trees.answers(graph, trees.add_to(graph))
    answers = NamedAnswers(classes=_classes(trees), labels=labels, datatype="FP32")
    booster: list[Any] = []

    def predict(values: Mapping[str, Array]) -> dict[str, Array]:
        if not booster:
            booster.append(original())
        return answers.expected(_predict(booster[0], np.asarray(values[INPUT], np.float64), trees))

    stopped = f"the first {trees.rounds} iterations answer: early stopping found the rest to do harm"
    return ForeignModel(
        kind="XGBoost",
        converter="cumulant, float32 trees",
        model=answers.finish(graph, scores, trees.outputs),
        tolerance=TREES,
        predict=predict,
        columns=trees.names,
        classes=answers.texts,
        notes=(stopped,) if trees.rounds else (),
        packages=installed_versions("xgboost", "xgboost-cpu", "onnx"),
    )


def _classes(trees: XgboostTrees) -> int:
    if trees.objective.startswith("multi:"):
        return trees.outputs
    return 2 if trees.objective == "binary:logistic" else 0


def _load(path: Path) -> Any:
    try:
        import xgboost
    except ModuleNotFoundError:
        raise missing_xgboost() from None
    try_reading("xgboost", path)
    booster = xgboost.Booster(params={"nthread": 1})
    try:
        booster.load_model(bytearray(path.read_bytes()))
    except (xgboost.core.XGBoostError, ValueError) as error:
        raise DataError(f"XGBoost cannot read {path}: {str(error).splitlines()[0]}", hint=SAVE_AGAIN) from None
    return booster


def missing_xgboost() -> DefinitionError:
    """The error where the original cannot answer because its package is missing."""
    hint = "pip install xgboost-cpu, or leave out --sample"
    return DefinitionError("comparing with the original needs the Python package xgboost", subject="xgboost", hint=hint)


def _predict(booster: Any, matrix: Array, trees: XgboostTrees) -> Array:
    """The original's answers: probabilities even where its objective gives only the class."""
    import xgboost

    # Columns are by position here, so that names and kinds of columns play no part.
    data = xgboost.DMatrix(
        matrix,
        nthread=1,
        feature_names=booster.feature_names,
        feature_types=booster.feature_types,
        enable_categorical=True,
    )
    last = (0, trees.rounds) if trees.rounds else (0, 0)
    if trees.objective != "multi:softmax":
        return np.asarray(booster.predict(data, iteration_range=last))
    margin = np.asarray(booster.predict(data, output_margin=True, iteration_range=last), np.float64)
    raised = np.exp(margin - margin.max(axis=1, keepdims=True))
    return np.asarray((raised / raised.sum(axis=1, keepdims=True)).astype(np.float32))
