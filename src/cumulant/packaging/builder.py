"""Build a servable's folder from a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import DefinitionError
from cumulant.core.plan import FeaturePlan
from cumulant.core.servable import FieldRule, Reasons, Servable, Unread
from cumulant.packaging.graphs.engine_trees import add_catboost, add_xgboost
from cumulant.packaging.graphs.graph import GraphBuilder
from cumulant.packaging.graphs.graph_metadata import describe_graph
from cumulant.packaging.graphs.lightgbm_trees import add_boosters
from cumulant.packaging.graphs.linear_graph import add_constant, add_linear
from cumulant.packaging.graphs.perceptron_graph import add_perceptrons
from cumulant.packaging.graphs.target_means_graph import add_widening, count_added_columns, prepend_widening
from cumulant.packaging.graphs.user_graph import adapt_graph
from cumulant.packaging.parity import measure_parity
from cumulant.servable.description import Columns, TrainedModel
from cumulant.servable.folder import new_folder, write_sealed
from cumulant.servable.scorer import Scorer

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
    complete: Sequence[str] = (),
    nonnegative: Sequence[str] = (),
    salt_fingerprint: str = "",
    reasons: Reasons | None = None,
    target: str = "",
    tolerance: float = 1e-6,
) -> Servable:
    """Write the servable of `model` to the folder `out`, whole or not at all; a servable there is replaced.

    `sample` holds feature rows for the parity check (`measure_parity`); `example` is a request row;
    `lineage`: what made the model, by hashes and names; `whole`, `unread`, `rules`, `closed`,
    `complete`, `nonnegative`, `salt_fingerprint` and `reasons` are as in `Servable`; `target` is named in the
    graph. Equal inputs give equal bytes.

    Raises:
        DefinitionError: the model has no exact ONNX form, or reads a feature that the plan lacks.
        ParityError: the packaged model does not answer as the trained one; nothing is left at `out`.
        StorageError: the folder cannot be written.
    """
    unknown = [declared.feature for declared in model.inputs if declared.feature not in plan.names]
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
        complete=tuple(complete),
        nonnegative=tuple(nonnegative),
        salt_fingerprint=salt_fingerprint,
        calibration=model.calibration,
        threshold=model.threshold,
        reasons=reasons,
        lineage=dict(lineage),
        example=dict(example),
    )
    graph = to_onnx(model)
    describe_graph(graph, draft, target)
    with new_folder(out) as folder:
        (folder / draft.model).write_bytes(graph.SerializeToString(deterministic=True))
        sealed = write_sealed(folder, draft)
        parity = measure_parity(Scorer(folder, verify=False), model, _frame(sample), tolerance=tolerance)
        return write_sealed(folder, msgspec.structs.replace(sealed, parity=parity))


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
        wide = width + (0 if widening is None else count_added_columns(widening))
        adopted = adapt_graph(model.onnx(), width=wide, task=model.task, classes=len(model.classes))
        return adopted if widening is None else prepend_widening(adopted, widening, width)
    graph = GraphBuilder(width)
    if widening is not None:
        graph.x = add_widening(graph, widening, width)
    result, outputs = _add(graph, model)
    if outputs != wanted:
        raise DefinitionError(f"the model gives {outputs} outputs where its task needs {wanted}")
    return graph.finish(result, outputs)


#: models of which several are averaged, from their texts
_AVERAGED = {
    "lightgbm": add_boosters,
    "xgboost": add_xgboost,
    "catboost": add_catboost,
    "mlp": add_perceptrons,
}


def _add(graph: GraphBuilder, model: TrainedModel) -> tuple[str, int]:
    """Append the model; returns the name of its uncalibrated answer and the number of outputs."""
    match model.kind:
        case "lightgbm" | "xgboost" | "catboost" | "mlp":
            return _AVERAGED[model.kind](graph, model.boosters())
        case "linear":
            return add_linear(graph, model.linear())
        case "naive":
            return add_constant(graph, model.prior())
        case "blend":
            return _add_blend(graph, model)
        case "onnx":
            raise DefinitionError(
                "a graph of your own cannot be a part of a blend: one graph holds one version of its operators",
                hint="write `blend: off` under `training`",
            )
        case "widened":
            raise DefinitionError("members of a blend read one matrix: the blend is widened, not a member")


def _add_blend(graph: GraphBuilder, model: TrainedModel) -> tuple[str, int]:
    total, outputs = "", set[int]()
    for weight, member in model.members():
        answer, count = _add(graph, member)
        part = graph.add("Mul", graph.number(weight), answer)
        total = graph.add("Add", total, part) if total else part
        outputs.add(count)
    if len(outputs) != 1:
        raise DefinitionError("models with different numbers of outputs cannot be averaged")
    return total, outputs.pop()
