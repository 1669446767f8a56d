"""A servable as an MLflow model: signature, input example, and code that loads the folder."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.servable import GRAPH_FORMAT, GraphServable, Servable, TensorSpec
from cumulant.core.version import __version__
from cumulant.drivers.mlflow.engine import engine
from cumulant.drivers.mlflow.runs import KEY_TAG

if TYPE_CHECKING:
    import pandas as pd

MODEL = "model"
_WRAPPER = Path(__file__).with_name("wrapper.py")


class _Format(msgspec.Struct):
    format: str = ""


def log_model(
    client: Any, run: tuple[str, str], servable: Path, example: pd.DataFrame, *, tags: Mapping[str, str], key: str
) -> str:
    """Log the servable as a model of `run` (experiment and run id); returns the model's id.

    A model that was logged completely under the same key is reused.
    """
    experiment_id, run_id = run
    # Not by its status in the query too, which MLflow compares as a text with a number.
    for logged in client.search_logged_models([experiment_id], f"tags.`{KEY_TAG}` = '{key}'"):
        if str(logged.status) == "READY":
            return str(logged.model_id)
    text = (servable / "servable.json").read_bytes()
    kind: type[Servable | GraphServable] = Servable
    if msgspec.json.decode(text, type=_Format).format == GRAPH_FORMAT:
        kind = GraphServable
    description = msgspec.json.decode(text, type=kind)
    model = client.create_logged_model(
        experiment_id,
        name=description.name,
        source_run_id=run_id,
        tags={**tags, KEY_TAG: key},
        params=_model_params(description),
        model_type=_model_type(description),
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / MODEL
        # Always under the same name, so that equal models have equal files.
        content = Path(temporary) / "servable"
        shutil.copytree(servable, content, copy_function=shutil.copyfile)
        save(folder, content, description, example, run_id=run_id, model=model)
        client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    _link_to_run(client, run_id, model.model_id)
    return str(model.model_id)


def save(
    folder: Path,
    servable: Path,
    description: Servable | GraphServable,
    example: pd.DataFrame,
    *,
    run_id: str,
    model: Any,
) -> None:
    """Write the model's files to `folder`, in MLflow's own layout."""
    with engine(description.name) as mlflow, _without_warnings_of_packages():
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(_WRAPPER),
            artifacts={"servable": str(servable)},
            signature=signature(mlflow, description),
            input_example=_example(description, example),
            pip_requirements=[f"cumulant[serve]=={__version__}", "mlflow", "pandas"],
            mlflow_model=mlflow.models.Model(
                artifact_path=model.artifact_location, run_id=run_id, model_uuid=model.model_id, model_id=model.model_id
            ),
        )
    for cache in folder.rglob("__pycache__"):
        shutil.rmtree(cache, ignore_errors=True)


class _PackageSearch:
    """MLflow's function that searches all installed packages, replaced by one that spares some threads that search.

    It is replaced from the begin of the first block, in any thread, to the end of the last.
    """

    name = "warn_dependency_requirement_mismatches"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: of each block
        self._threads: list[int] = []
        self._original: Callable[[list[str]], None] | None = None

    def begin(self, module: ModuleType) -> None:
        with self._lock:
            if not self._threads:
                self._original = getattr(module, self.name)
                setattr(module, self.name, self._search)
            self._threads.append(threading.get_ident())

    def end(self, module: ModuleType) -> None:
        with self._lock:
            self._threads.remove(threading.get_ident())
            if not self._threads and getattr(module, self.name) == self._search:
                setattr(module, self.name, self._original)

    def _search(self, requirements: list[str]) -> None:
        if self._original is not None and threading.get_ident() not in self._threads:
            self._original(requirements)


#: the function belongs to the process, and so does the list of those who replace it
_SEARCH = _PackageSearch()


@contextmanager
def _without_warnings_of_packages() -> Iterator[None]:
    """Without MLflow's search of all installed packages, up to a second, for a warning that its logger drops."""
    from mlflow.utils import environment

    if not hasattr(environment, _SEARCH.name):  # another version of MLflow
        yield
        return
    _SEARCH.begin(environment)
    try:
        yield
    finally:
        _SEARCH.end(environment)


def _example(described: Servable | GraphServable, example: pd.DataFrame) -> pd.DataFrame | None:
    """The first rows of the example; None for a graph whose inputs no frame's columns name."""
    if isinstance(described, GraphServable):
        return example[list(described.columns)].head(5) if described.columns and len(example) else None
    return example[[spec.feature for spec in described.inputs if spec.feature in example.columns]].head(5)


def signature(mlflow: Any, servable: Servable | GraphServable) -> Any:
    """The signature in MLflow's types: features or tensors in, answers out.

    Whole numbers are declared as `Any`: pandas stores them as int64, or as float64 if some are missing, and MLflow
    refuses to read one as the other.
    """
    if isinstance(servable, GraphServable):
        return _tensor_signature(mlflow, servable)
    schema: Any = mlflow.types.schema
    kinds = {
        "number": schema.DataType.double,
        "whole": schema.AnyType(),
        "flag": schema.DataType.boolean,
        "category": schema.DataType.string,
        "integer": schema.DataType.long,
    }
    whole = {feature.name for feature in servable.plan.features if feature.dtype == "int"}
    inputs = [
        ("whole" if spec.kind == "number" and spec.feature in whole else spec.kind, spec.feature)
        for spec in servable.inputs
    ]
    columns = [schema.ColSpec(kinds[kind], name) for kind, name in inputs]
    answers = [schema.ColSpec(kinds[kind], name) for kind, name in _answer_columns(servable)]
    return mlflow.models.ModelSignature(inputs=schema.Schema(columns), outputs=schema.Schema(answers))


def _answer_columns(servable: Servable) -> list[tuple[str, str]]:
    match servable.task:
        case "regression":
            return [("number", "prediction")]
        case "multiclass":
            label = "integer" if servable.whole else "category"
            return [(label, "prediction"), *(("number", f"probability_{name}") for name in servable.classes)]
        case "binary":
            truth = not servable.classes or tuple(map(str.lower, servable.classes)) == ("false", "true")
            label = "flag" if truth else "integer" if servable.whole else "category"
            return [(label, "prediction"), ("number", "probability")]


def _link_to_run(client: Any, run_id: str, model_id: str) -> None:
    with engine(f"run {run_id}") as mlflow:
        client.log_outputs(run_id, models=[mlflow.entities.LoggedModelOutput(model_id, step=0)])
        points = [
            mlflow.entities.Metric(
                point.key, point.value, point.timestamp, point.step, model_id=model_id, run_id=run_id
            )
            for name in client.get_run(run_id).data.metrics
            for point in client.get_metric_history(run_id, name)
            if point.step == 0
        ]
        if points:
            client.log_batch(run_id, metrics=points)


def _model_params(servable: Servable | GraphServable) -> dict[str, str]:
    if isinstance(servable, Servable):
        return {"task": servable.task, "features": str(len(servable.inputs))}
    return {"task": _model_type(servable), "kind": servable.lineage.get("kind", "ONNX")}


def _model_type(servable: Servable | GraphServable) -> str:
    return servable.task if isinstance(servable, Servable) else "graph"


def _tensor_signature(mlflow: Any, servable: GraphServable) -> Any:
    """The signature of a graph: tensors in and out; an input with named columns is a table of numbers."""
    schema = mlflow.types.schema.Schema
    inputs = schema([_tensor(mlflow, spec, named=len(servable.inputs) > 1) for spec in servable.inputs])
    if servable.columns:
        column = mlflow.types.schema.ColSpec
        double = mlflow.types.schema.DataType.double
        inputs = schema([column(double, name) for name in servable.columns])
    outputs = schema([_tensor(mlflow, spec, named=True) for spec in servable.outputs])
    return mlflow.models.ModelSignature(inputs=inputs, outputs=outputs)


def _tensor(mlflow: Any, spec: TensorSpec, *, named: bool) -> Any:
    import numpy as np

    shape = tuple(spec.shape) or (-1,)
    dtype = np.dtype("object" if spec.datatype == "BYTES" else spec.datatype.lower().replace("fp", "float"))
    return mlflow.types.schema.TensorSpec(dtype, shape, name=spec.name if named else None)
