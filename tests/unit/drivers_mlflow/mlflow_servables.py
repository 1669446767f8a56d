"""A servable and frames for the tests of the MLflow driver."""

from __future__ import annotations

import pandas as pd

from cumulant.core.plan import FeaturePlan, FeatureSpec
from cumulant.core.servable import Input
from cumulant.packaging.builder import build
from cumulant.training.model import FittedModel, ModelCard
from cumulant.training.payloads.payload import LinearWeights

INPUTS = (
    Input("distance", "number"),
    Input("flights", "number"),
    Input("carrier", "category", ("AA", "UA")),
    Input("charter", "flag"),
)
TYPES = {"distance": "float", "flights": "int", "carrier": "str", "charter": "bool"}
PLAN = FeaturePlan("flights", None, {}, tuple(FeatureSpec(name, dtype) for name, dtype in TYPES.items()), ())
FRAME = pd.DataFrame(
    {
        "distance": [100.0, 2500.0, None],
        "flights": [3, 40, 0],
        "carrier": ["UA", None, "new"],
        "charter": [True, False, None],
        "unused": ["x", "y", "z"],
    }
)


def model_of(task: str = "binary") -> FittedModel:
    outputs = 3 if task == "multiclass" else 1
    weights = LinearWeights(
        columns=(0, 1, 3),
        fill=(800.0, 0.0, 0.0),
        mean=(1000.0, 10.0, 0.0),
        scale=(500.0, 10.0, 1.0),
        weight=tuple(tuple(w * (k + 1) for k in range(outputs)) for w in (0.5, -0.2, 0.1)),
        missing=((0.0,) * outputs,) * 3,
        tables={2: tuple(tuple(w * (k + 1) for k in range(outputs)) for w in (0.1, 0.4, 0.0))},
        bias=(0.0,) * outputs,
        link={"binary": "sigmoid", "multiclass": "softmax", "regression": "identity"}[task],
    )
    classes = {"binary": ("false", "true"), "multiclass": ("a", "b", "c"), "regression": ()}[task]
    card = ModelCard(kind="linear", trainer="linear", task=task, classes=classes, inputs=INPUTS, threshold=0.5)
    return FittedModel(card, weights)


def servable(out, task: str = "binary"):
    sample = {"distance": [1.0, None], "flights": [1, 2], "carrier": ["AA", None], "charter": [True, None]}
    build(model_of(task), PLAN, name="late", sample=sample, out=out, lineage={}, example={})
    return out
