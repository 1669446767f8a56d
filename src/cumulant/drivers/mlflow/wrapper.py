"""How MLflow runs a servable: models from code, so that nothing is pickled.

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
        """Answers in the order of the rows; of feature columns, a frame with their index."""
        if self._graph:
            # MLflow reads the type of `model_input`, and knows no word for all that a graph takes and gives.
            found: Any = self._run(model_input)
            return found  # type: ignore[no-any-return]
        return self._answer(model_input)

    def _run(self, given: Any) -> dict[str, Any]:
        found = self._described
        if isinstance(given, pd.DataFrame):
            columns = list(found.columns) or list(given.columns)
            given = given[columns].to_numpy() if len(found.inputs) == 1 else {
                spec.name: given[spec.name].to_numpy().reshape(-1, *spec.shape[1:]) for spec in found.inputs
            }  # fmt: skip
        if not isinstance(given, dict):
            given = {found.inputs[0].name: given}
        feeds = {spec.name: np.asarray(given[spec.name], self._dtypes[spec.datatype]) for spec in found.inputs}
        return dict(zip([spec.name for spec in found.outputs], self._engine.run(feeds), strict=True))

    def _answer(self, model_input: pd.DataFrame) -> pd.DataFrame:
        inputs = self._scorer.servable.inputs
        columns = {
            one.feature: _values(model_input[one.feature], one.kind) for one in inputs if one.feature in model_input
        }
        scores = self._scorer.score(columns)
        answers = self._scorer.decide(scores)
        found: dict[str, Any] = {"prediction": [answer.prediction for answer in answers]}
        match self._scorer.servable.task:
            case "binary":
                found["probability"] = scores
            case "multiclass":
                for place, label in enumerate(self._scorer.servable.classes):
                    found[f"probability_{label}"] = scores[:, place]
        return pd.DataFrame(found, index=model_input.index)


def _values(column: Any, kind: str) -> Any:
    """A column as the scorer takes it, whatever way pandas writes missing values."""
    if kind == "category" or column.dtype == object:
        return column.astype(object).where(column.notna(), None).tolist()
    return column.to_numpy(dtype="float64", na_value=float("nan"))


mlflow.models.set_model(ServableModel())
