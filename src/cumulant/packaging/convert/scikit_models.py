"""scikit-learn estimators and pipelines, converted by skl2onnx and compared with the original.

Numeric columns are one matrix [n, k]; where the example has columns of text beside numbers, each column is an input
[n, 1] of its own. A pipeline whose last step is a LightGBM or XGBoost model ends in that model's exact trees.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cumulant.core.errors import DefinitionError, missing_part
from cumulant.core.servable import Datatype
from cumulant.packaging.convert.foreign_model import NETS, TREES, ForeignModel, installed_versions
from cumulant.packaging.graphs.graph import INPUT, ML_OPSET, OPSET, import_onnx
from cumulant.servable.engine import Array

if TYPE_CHECKING:
    import polars as pl
    from onnx import ModelProto

_KIND = "scikit-learn"
_BETWEEN, _LAST = "between", "model_"
_BRING = "leave these steps out of the model, replace them by steps that convert, or bring the model as ONNX"
#: skl2onnx and its parsers raise these for what they cannot convert
_FAILURES = (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError, LookupError)
_NAMES = ("label", "probability", "probabilities", "prediction", "transformed")
#: the newest that skl2onnx writes
_ML = min(ML_OPSET, 3)


def from_estimator(model: Any, *, example: pl.DataFrame | None = None) -> ForeignModel:
    """The graph of a fitted estimator or pipeline.

    Float64 is tried first, since scikit-learn computes in it; where a step has no float64 form, float32.

    Raises:
        DefinitionError: a step has no ONNX form (named), or the estimator is not fitted.
    """
    check_convertible(model)
    columns = tuple(str(name) for name in getattr(model, "feature_names_in_", ()))
    table = EstimatorTable(model, columns, example)
    graph, kind, tried = convert(model, table)
    answers = _Answers(model)
    return ForeignModel(
        kind=_KIND,
        converter=f"skl2onnx, {kind}",
        model=answers.rename(graph),
        tolerance=TREES if kind == "FP64" else NETS,
        predict=lambda values: answers.expected(table.original(values)),
        columns=columns if table.matrix else (),
        classes=answers.texts,
        notes=tried,
        packages=installed_versions("scikit-learn", "skl2onnx", "onnx"),
    )


def from_pipeline(pipeline: Any, last: ForeignModel, *, example: pl.DataFrame | None = None) -> ForeignModel:
    """The graph of `pipeline`, whose last step is the model `last`.

    Raises:
        DefinitionError: a step before it has no ONNX form (named).
    """
    head = pipeline[:-1]
    check_convertible(head)
    columns = tuple(str(name) for name in getattr(pipeline, "feature_names_in_", ()))
    table = EstimatorTable(pipeline, columns, example)
    graph, kind, notes = convert(head, table)

    def predict(values: Mapping[str, Array]) -> dict[str, Array]:
        return last.predict({INPUT: to_dense(head.transform(table.original(values)))})

    return replace(
        last,
        kind=last.kind if last.kind == _KIND else f"{_KIND} with {last.kind}",
        converter=f"skl2onnx, {kind}; {last.converter}",
        model=_join_graphs(graph, last.model),
        tolerance=TREES if kind == "FP64" else NETS,
        predict=predict,
        columns=columns if table.matrix else (),
        notes=(*notes, *last.notes),
    )


def _join_graphs(head: ModelProto, last: ModelProto) -> ModelProto:
    onnx = import_onnx()
    tail = onnx.compose.add_prefix(last, _LAST, rename_outputs=False)
    taken = tail.graph.input[0].type.tensor_type
    head.graph.node.append(onnx.helper.make_node("Cast", [head.graph.output[0].name], [_BETWEEN], to=taken.elem_type))
    del head.graph.output[:]
    width = taken.shape.dim[1].dim_value
    head.graph.output.append(onnx.helper.make_tensor_value_info(_BETWEEN, taken.elem_type, ["n", width]))
    # The operators of preprocessing are the same in the newer version that the trees need.
    del head.opset_import[:]
    head.opset_import.extend(tail.opset_import)
    head.ir_version = tail.ir_version
    merged: ModelProto = onnx.compose.merge_models(head, tail, io_map=[(_BETWEEN, f"{_LAST}{INPUT}")])
    return merged


def check_convertible(model: Any) -> None:
    """Raises DefinitionError for steps that have no ONNX form, naming them."""
    unknown = sorted(set(unconvertible(model)))
    if unknown:
        raise DefinitionError(f"no ONNX form is known for {', '.join(unknown)}", subject=unknown[0], hint=_BRING)


def unconvertible(model: Any, path: str = "") -> Iterator[str]:
    """The steps inside `model` that skl2onnx knows no form of, by their place and class."""
    known = _known_operators()
    inner = list(_steps(model))
    for name, step in inner:
        yield from unconvertible(step, f"{path}{name}.")
    label = f"{path.rstrip('.')} ({type(model).__name__})" if path else type(model).__name__
    own_function = type(model).__name__ == "FunctionTransformer" and model.func is not None
    if (not inner and type(model) not in known) or own_function:
        yield label


def _steps(model: Any) -> Iterator[tuple[str, Any]]:
    """The named parts of a pipeline, union or column transformer that are estimators."""
    parts = getattr(model, "transformers_", None) or getattr(model, "steps", None)
    parts = parts or getattr(model, "transformer_list", None) or ()
    for name, step, *_ in parts:
        if not isinstance(step, str) and step is not None:
            yield str(name), step


def _known_operators() -> Mapping[type, str]:
    try:
        from skl2onnx._supported_operators import sklearn_operator_name_map
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "skl2onnx", "train") from None
    names: Mapping[type, str] = sklearn_operator_name_map
    return names


class EstimatorTable:
    """What the model reads: one numeric matrix, or one input a column."""

    def __init__(self, model: Any, columns: tuple[str, ...], example: pl.DataFrame | None) -> None:
        self._model = model
        self.columns = columns
        self.kinds: dict[str, Datatype] = {}
        if columns and example is not None and set(columns) <= set(example.columns):
            self.kinds = {name: _datatype(example[name].dtype) for name in columns}
        self.matrix = not self.kinds or all(kind != "BYTES" for kind in self.kinds.values())

    def types(self, number: Any, texts: Any) -> list[tuple[str, Any]]:
        """Initial types for skl2onnx; `number` and `texts` are its types."""
        if self.matrix:
            width = len(self.columns) or int(self._model.n_features_in_)
            return [(INPUT, number([None, width]))]
        return [(name, (texts if kind == "BYTES" else number)([None, 1])) for name, kind in self.kinds.items()]

    def original(self, values: Mapping[str, Array]) -> Any:
        """The rows as the original takes them: a frame where it was fitted on one."""
        if not self.columns:
            return values[INPUT]
        import pandas as pd

        if self.matrix:
            return pd.DataFrame(values[INPUT], columns=list(self.columns))
        return pd.DataFrame({name: values[name].ravel() for name in self.columns})


def _datatype(kind: Any) -> Datatype:
    return "FP64" if kind.is_numeric() or str(kind) == "Boolean" else "BYTES"


def convert(model: Any, table: EstimatorTable) -> tuple[ModelProto, str, tuple[str, ...]]:
    import onnxruntime
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    failed = ""
    failures: tuple[type[Exception], ...] = (*_FAILURES, *_run_failures())
    for kind, number in (("FP64", DoubleTensorType), ("FP32", FloatTensorType)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                graph: ModelProto = to_onnx(
                    model,
                    initial_types=table.types(number, StringTensorType),
                    options={id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None,
                    target_opset={"": OPSET, "ai.onnx.ml": _ML},
                )
            onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        except failures as error:
            failed = failed or f"{str(error).strip().splitlines()[0][:300]}"
            continue
        notes = ("it has no float64 form: float32 is used",) if failed else ()
        return graph, kind, notes
    raise DefinitionError(f"skl2onnx cannot convert the {type(model).__name__}: {failed}", hint=_BRING)


def _run_failures() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented, state.RuntimeException)


class _Answers:
    """The outputs by plain names, as in `NamedAnswers`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._classifier = hasattr(model, "classes_") and hasattr(model, "predict")
        self._soft = self._classifier and hasattr(model, "predict_proba")
        labels = np.asarray(model.classes_) if self._classifier else np.zeros(0)
        self._count = len(labels)
        self.texts = tuple(str(label) for label in labels)
        self._transforms = not hasattr(model, "predict")

    def rename(self, graph: ModelProto) -> ModelProto:
        """The outputs of skl2onnx under plain names; of two classes the second one's probability [n]."""
        import onnx

        outputs = [output.name for output in graph.graph.output]
        # Names that the graph may use inside already are set aside by a first renaming.
        taken = [*outputs, *(name for name in _NAMES if name not in outputs)]
        inside = {name: f"converted_{place}" for place, name in enumerate(taken)}
        for node in graph.graph.node:
            node.output[:] = [inside.get(name, name) for name in node.output]
            node.input[:] = [inside.get(name, name) for name in node.input]
        kinds = [output.type.tensor_type.elem_type or self._label_type(onnx) for output in graph.graph.output]
        del graph.graph.output[:]
        # Without probabilities a classifier's scores are left out: they are no answer for users.
        wanted = 1 if self._classifier and not self._soft else len(outputs)
        for tensor, element in list(zip([inside[name] for name in outputs], kinds, strict=True))[:wanted]:
            self._output(graph, onnx, tensor, element)
        return graph

    def _label_type(self, onnx: Any) -> int:
        whole = np.asarray(self._model.classes_).dtype.kind in "biu" if self._classifier else False
        return int(onnx.TensorProto.INT64 if whole else onnx.TensorProto.STRING)

    def _output(self, graph: ModelProto, onnx: Any, tensor: str, element: int) -> None:
        name, sizes = self._named(first=not len(graph.graph.output))
        helper, array = onnx.helper, onnx.numpy_helper.from_array
        if name == "probability":
            graph.graph.initializer.append(array(np.array(1, np.int64), "servable_second"))
            graph.graph.node.append(helper.make_node("Gather", [tensor, "servable_second"], [name], axis=1))
        elif len(sizes) == 1:
            graph.graph.initializer.append(array(np.array([-1], np.int64), f"servable_{name}"))
            graph.graph.node.append(helper.make_node("Reshape", [tensor, f"servable_{name}"], [name]))
        else:
            graph.graph.node.append(helper.make_node("Identity", [tensor], [name]))
        graph.graph.output.append(helper.make_tensor_value_info(name, element, sizes))

    def _named(self, *, first: bool) -> tuple[str, list[str | int]]:
        """Name and shape of an output; a classifier's first one holds the labels."""
        if self._classifier and first:
            return "label", ["n"]
        if self._soft:
            return ("probability", ["n"]) if self._count == 2 else ("probabilities", ["n", self._count])
        if self._transforms:
            return "transformed", ["n", "m"]
        width = self._width()
        return "prediction", ["n"] if width == 1 else ["n", width]

    def _width(self) -> int:
        coefficients = getattr(self._model, "n_outputs_", None)
        if coefficients is not None:
            return int(coefficients)
        last = self._model.steps[-1][1] if hasattr(self._model, "steps") else self._model
        inner = np.asarray(getattr(last, "coef_", np.zeros(1)))
        return int(inner.shape[0]) if inner.ndim == 2 and inner.shape[0] > 1 else int(getattr(last, "n_outputs_", 1))

    def expected(self, rows: Any) -> dict[str, Array]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._transforms:
                return {"transformed": to_dense(self._model.transform(rows))}
            answer = np.asarray(self._model.predict(rows))
            if not self._classifier:
                return {"prediction": answer[:, 0] if answer.ndim == 2 and answer.shape[1] == 1 else answer}
            outputs = {"label": answer if answer.dtype.kind in "biu" else answer.astype(str).astype(object)}
            if self._soft:
                chances = np.asarray(self._model.predict_proba(rows))
                outputs |= {"probability": chances[:, 1]} if self._count == 2 else {"probabilities": chances}
            return outputs


def to_dense(values: Any) -> Array:
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)
