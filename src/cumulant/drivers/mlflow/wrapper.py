"""How MLflow runs a servable: models from code, so that nothing is pickled.

MLflow copies this file into the logged model and executes it there.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import mlflow
import pandas as pd


class ServableModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    """Feature columns in, `prediction` out; for classifiers with `probability` or one column a class."""

    def load_context(self, context: Any) -> None:
        # Found when the model is loaded: the driver itself knows nothing of the rooms.
        self._scorer = import_module("cumulant.packaging").Scorer(context.artifacts["servable"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Answers in the order and with the index of the rows."""
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
