"""Build a servable's folder from a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import DefinitionError
from cumulant.core.plan import FeaturePlan
from cumulant.core.servable import FieldRule, Reasons, Servable, Unread
from cumulant.packaging.engine_trees import add_catboost, add_xgboost
from cumulant.packaging.folder import new_folder, seal
from cumulant.packaging.graph import Graph
from cumulant.packaging.linear import add_constant, add_linear
from cumulant.packaging.model import Columns, TrainedModel
from cumulant.packaging.parity import measure
from cumulant.packaging.scorer import Scorer
from cumulant.packaging.trees import add_boosters
from cumulant.packaging.user_graph import adopt
from cumulant.packaging.widening import add_widening, added_columns, before

if TYPE_CHECKING:
    import polars as pl
    from onnx import ModelProto


def build(
    model: TrainedModel,
    plan: FeaturePlan,
    *,
    name: str,
    sample: pl.DataFrame | Columns,
    out: Path,
    lineage: Mapping[str, str],
    example: Mapping[str, str | int | float | bool | None],
    whole: bool = False,
    unread: Mapping[str, Unread] | None = None,
    rules: Mapping[str, FieldRule] | None = None,
    closed: Sequence[str] = (),
    salt_fingerprint: str = "",
    reasons: Reasons | None = None,
    tolerance: float = 1e-6,
) -> Servable:
    """Write the servable of `model` to the folder `out`, whole or not at all; a servable there is replaced.

    `sample` holds feature rows for the parity check (`parity.measure`); `example` is a request row;
    `lineage` says what made the model, by hashes and names; `whole`, `unread`, `rules`, `closed`,
    `salt_fingerprint` and `reasons` are as in `Servable`. Equal inputs give equal bytes.

    Raises:
        DefinitionError: the model has no exact ONNX form, or reads a feature that the plan lacks.
        ParityError: the packaged model does not answer as the trained one; nothing is left at `out`.
        StorageError: the folder cannot be written.
    """
    unknown = [one.feature for one in model.inputs if one.feature not in plan.names]
    if unknown:
        raise DefinitionError(f"the model reads {unknown[0]}, which is no feature of the plan", subject=unknown[0])
    draft = Servable(
        name=name,
        task=model.task,
        inputs=model.inputs,
        plan=plan,
        classes=() if model.task == "regression" else model.classes,
        whole=whole and model.task != "regression",
        unread=dict(unread or {}),
        rules=dict(rules or {}),
        closed=tuple(closed),
        salt_fingerprint=salt_fingerprint,
        calibration=model.calibration,
        threshold=model.threshold,
        reasons=reasons,
        lineage=dict(lineage),
        example=dict(example),
    )
    graph = to_onnx(model)
    with new_folder(out) as folder:
        (folder / draft.model).write_bytes(graph.SerializeToString(deterministic=True))
        sealed = seal(folder, draft)
        parity = measure(Scorer(folder, verify=False), model, _frame(sample), tolerance=tolerance)
        return seal(folder, msgspec.structs.replace(sealed, parity=parity))


def _frame(sample: pl.DataFrame | Columns) -> pl.DataFrame:
    import polars as pl

    return sample if isinstance(sample, pl.DataFrame) else pl.DataFrame(dict(sample), strict=False)


def to_onnx(model: TrainedModel) -> ModelProto:
    """The model as a graph from the float32 matrix [n, k] to uncalibrated answers, float64 [n, m].

    Raises:
        DefinitionError: the model has no exact ONNX form.
    """
    width = len(model.inputs)
    wanted = len(model.classes) if model.task == "multiclass" else 1
    widening, model = model.widened() if model.kind == "widened" else (None, model)
    if model.kind == "onnx":
        wide = width + (0 if widening is None else added_columns(widening))
        adopted = adopt(model.onnx(), width=wide, task=model.task, classes=len(model.classes))
        return adopted if widening is None else before(adopted, widening, width)
    graph = Graph(width)
    if widening is not None:
        graph.x = add_widening(graph, widening, width)
    match model.kind:
        case "lightgbm":
            result, outputs = add_boosters(graph, model.boosters())
        case "xgboost":
            result, outputs = add_xgboost(graph, model.boosters())
        case "catboost":
            result, outputs = add_catboost(graph, model.boosters())
        case "linear":
            result, outputs = add_linear(graph, model.linear())
        case "naive":
            result, outputs = add_constant(graph, model.prior())
    if outputs != wanted:
        raise DefinitionError(f"the model gives {outputs} outputs where its task needs {wanted}")
    return graph.finish(result, outputs)
