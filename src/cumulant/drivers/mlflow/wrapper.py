"""The MLflow model of a servable, as model from code, so that nothing is pickled.

MLflow copies this file into the logged model and executes it there.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd


class ServableModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    """Feature columns in, `prediction` out; for classifiers with `probability` or one column a class.

    A graph takes a table with its columns, an array, or a dict of arrays by input name, and gives a dict of arrays.
    """

    def load_context(self, context: Any) -> None:
        # Imported when the model is loaded: a driver imports ports and core only.
        description = import_module("cumulant.servable.folder").load_description(context.artifacts["servable"])
        self._graph = hasattr(description, "outputs")
        if self._graph:
            engine = import_module("cumulant.servable.engine")
            self._described, self._dtypes = description, engine.DTYPES
            self._engine = engine.Engine(Path(context.artifacts["servable"]) / description.model)
        else:
            self._scorer = import_module("cumulant.servable.scorer").Scorer(context.artifacts["servable"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Predictions in the order of the rows; for feature columns, a frame with their index."""
        if self._graph:
            # MLflow reads the type of `model_input`, and has no type for all inputs and outputs of a graph.
            tensors: Any = self._run(model_input)
            return tensors  # type: ignore[no-any-return]
        return self._answer(model_input)

    def _run(self, graph_input: Any) -> dict[str, Any]:
        description = self._described
        if isinstance(graph_input, pd.DataFrame):
            columns = list(description.columns) or list(graph_input.columns)
            graph_input = (
                graph_input[columns].to_numpy()
                if len(description.inputs) == 1
                else {
                    spec.name: graph_input[spec.name].to_numpy().reshape(-1, *spec.shape[1:])
                    for spec in description.inputs
                }
            )
        if not isinstance(graph_input, dict):
            graph_input = {description.inputs[0].name: graph_input}
        feeds = {
            spec.name: np.asarray(graph_input[spec.name], self._dtypes[spec.datatype]) for spec in description.inputs
        }
        return dict(zip([spec.name for spec in description.outputs], self._engine.run(feeds), strict=True))

    def _answer(self, model_input: pd.DataFrame) -> pd.DataFrame:
        inputs = self._scorer.servable.inputs
        columns = {
            item.feature: _values(model_input[item.feature], item.kind)
            for item in inputs
            if item.feature in model_input
        }
        scores = self._scorer.score(columns)
        answers = self._scorer.decide(scores)
        frame: dict[str, Any] = {"prediction": [answer.prediction for answer in answers]}
        match self._scorer.servable.task:
            case "binary":
                frame["probability"] = scores
            case "multiclass":
                for place, label in enumerate(self._scorer.servable.classes):
                    frame[f"probability_{label}"] = scores[:, place]
        return pd.DataFrame(frame, index=model_input.index)


def _values(column: Any, kind: str) -> Any:
    """A column in the scorer's types, however pandas represents missing values."""
    if kind == "category" or column.dtype == object:
        return column.astype(object).where(column.notna(), None).tolist()
    return column.to_numpy(dtype="float64", na_value=float("nan"))


mlflow.models.set_model(ServableModel())
