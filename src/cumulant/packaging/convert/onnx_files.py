"""ONNX files: checked, copied with their external data, and fixed where a server could not read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from copy import deepcopy
from math import prod
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from cumulant.core.errors import DataError, DefinitionError, IntegrityError, RequestError
from cumulant.core.system.memory import bounded_memory
from cumulant.packaging.convert.foreign_model import NETS, ForeignModel, Predict, installed_versions
from cumulant.packaging.convert.trial_run import try_reading
from cumulant.packaging.graphs.graph import ML_DOMAIN, import_onnx
from cumulant.packaging.sources import ACCEPTED, is_inside
from cumulant.servable.bounded_run import run_bounded
from cumulant.servable.engine import Array, run_errors
from cumulant.servable.engine_errors import plain_message

if TYPE_CHECKING:
    from onnx import ModelProto

_EXPORT = "export the model again"
#: a graph inside a graph inside ...: more is no network but an attack
_DEPTH = 32
#: letters of a name that an error shows
_NAMED = 100
#: letters of an input's or output's name
_LONGEST_NAME = 1000
#: values of one input or of one row of it: more fit in no request
_MOST_VALUES = 2**31


def read_graph(path: Path) -> ForeignModel:
    """The ONNX graph in a file, with the files of its external data.

    Raises:
        DataError: no ONNX graph, one that is cut off, one that onnxruntime crashes or does not get ready with, or
            external data that is missing or outside the file's folder.
        DefinitionError: it has an input or output that is no plain tensor.
    """
    model = decode(path.read_bytes(), str(path))
    files = external_files(model, path)
    try_reading("onnxruntime", path)
    return from_graph(model, path=path, files=files)


def from_graph(model: ModelProto, *, path: Path | None = None, files: Mapping[str, Path] | None = None) -> ForeignModel:
    """A graph that is at hand. `path` is where it stands, if in a file.

    Raises:
        DefinitionError: an input declares no shape.
    """
    _refuse_shapeless(model)
    _refuse_claims(model)
    original = model if path is None else path
    changed = deepcopy(model)
    labels = _unzip(changed)
    _free_rows(changed)
    notes = (f"the list of maps {', '.join(labels)} became a tensor",) if labels else ()
    return ForeignModel(
        kind="ONNX",
        converter="none",
        model=changed,
        tolerance=NETS,
        predict=_predict(original, labels),
        classes=next(iter(labels.values()), ()),
        files=dict(files or {}),
        notes=notes,
        packages=installed_versions("onnx", "onnxruntime"),
    )


def _refuse_shapeless(model: ModelProto) -> None:
    """Refuse inputs without a shape: they may have rows, and onnxruntime takes them for single values."""
    for value in model.graph.input:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            hint = "export the model with its shapes; a size that each request chooses is a name, such as n"
            raise DefinitionError(f"the input {value.name} declares no shape", subject=value.name, hint=hint)


def _refuse_claims(model: ModelProto) -> None:
    """Outputs of one name, of which a caller could get one only; names and inputs that no request can hold."""
    for name in (value.name for value in (*model.graph.input, *model.graph.output)):
        if len(name) > _LONGEST_NAME:
            hint = "export the model again with shorter names"
            raise DefinitionError(f'"{name[:_NAMED]}..." is a name of {len(name):,} letters', hint=hint)
    for name, count in Counter(value.name for value in model.graph.output).items():
        if count > 1:
            hint = "export the model again with a name of its own for each output"
            raise DefinitionError(f'the graph has {count} outputs "{name[:_NAMED]}"', hint=hint)
    for value in model.graph.input:
        sizes = [size.dim_value for size in value.type.tensor_type.shape.dim if size.dim_value > 0]
        if prod(sizes) > _MOST_VALUES:
            hint = "export the model with the sizes of its requests; a size that each chooses is a name, such as n"
            raise DefinitionError(
                f'the input "{value.name[:_NAMED]}" has more values than a request can hold', hint=hint
            )


def decode(content: bytes, subject: str) -> ModelProto:
    """Parse bytes that claim to be an ONNX graph.

    Raises:
        DataError: they are not, or are cut off.
    """
    from google.protobuf.message import DecodeError

    onnx = import_onnx()
    try:
        model: ModelProto = onnx.ModelProto.FromString(content)
    except DecodeError:
        raise DataError(f"{subject} is no ONNX graph, or is cut off", subject=subject, hint=ACCEPTED) from None
    if not model.graph.node or not model.graph.output or not model.opset_import:
        raise DataError(f"{subject} is no ONNX graph: it has no operators", subject=subject, hint=ACCEPTED)
    return model


def external_files(model: ModelProto, path: Path) -> dict[str, Path]:
    """The files beside `path` that hold the graph's weights, by the name that the graph gives them.

    Raises:
        DataError: one leaves the folder, is missing, or is smaller than the graph declares.
    """
    files: dict[str, Path] = {}
    for tensor in _tensors(model):
        if tensor.data_location != import_onnx().TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        file = _beside(path, location)
        _check_extent(file, entries, tensor.name, path)
        files[location] = file
    return files


def _beside(path: Path, location: str) -> Path:
    parts = PurePosixPath(location)
    leaves = not location or parts.is_absolute() or ".." in parts.parts or "\\" in location or ":" in location
    file = path.parent / location
    if leaves or not is_inside(file, path.parent):
        raise DataError(
            f'{path.name} keeps weights in "{location[:_NAMED]}", outside its folder: refused', subject=str(path)
        )
    if parts.name in ("servable.json", "model.onnx") and len(parts.parts) == 1:
        hint = "export it with another name for the external data"
        raise DataError(
            f'{path.name} keeps weights in "{location}", a name that is taken', subject=str(path), hint=hint
        )
    if not file.is_file():
        hint = f"put it into {path.parent}"
        raise DataError(f'{path.name} keeps weights in "{location}", which is missing', subject=str(path), hint=hint)
    return file


def _check_extent(file: Path, entries: dict[str, str], tensor: str, path: Path) -> None:
    try:
        start, length = int(entries.get("offset", "0")), int(entries.get("length", "0"))
    except ValueError:
        start = length = -1
    if start < 0 or length < 0 or start + length > file.stat().st_size:
        raise DataError(f"{tensor} of {path.name} reads beyond the end of {file.name}", subject=str(path), hint=_EXPORT)


def _tensors(model: ModelProto) -> Iterator[Any]:
    yield from _of_graph(model.graph, 0)
    for function in model.functions:
        for node in function.node:
            yield from _of_node(node, 0)


def _of_graph(graph: Any, depth: int) -> Iterator[Any]:
    if depth > _DEPTH:
        raise DataError(f"the ONNX graph has graphs inside graphs, more than {_DEPTH} deep", hint=_EXPORT)
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _of_node(node, depth)


def _of_node(node: Any, depth: int) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in (
            *attribute.sparse_tensors,
            *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
        ):
            yield from (sparse.values, sparse.indices)
        for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            yield from _of_graph(inner, depth + 1)


def _unzip(model: ModelProto) -> dict[str, tuple[str, ...]]:
    """Replace each list of maps (ZipMap) in the outputs by its tensor; returns the class labels by output name."""
    graph, onnx = model.graph, import_onnx()
    makers = {node.output[0]: node for node in graph.node if node.op_type == "ZipMap" and node.domain == ML_DOMAIN}
    labels_of: dict[str, tuple[str, ...]] = {}
    for output in graph.output:
        node = makers.get(output.name)
        if node is None:
            continue
        labels = [
            str(label, "utf-8") if isinstance(label, bytes) else str(label)
            for a in node.attribute
            for label in (*a.strings, *a.ints)
        ]
        labels_of[output.name] = tuple(labels)
        graph.node.remove(node)
        graph.node.append(onnx.helper.make_node("Identity", [node.input[0]], [output.name]))
        output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, ["n", len(labels)]))
    return labels_of


def _free_rows(model: ModelProto) -> None:
    """Free the rows of outputs that declare 1 where the inputs take any number: a converter's error."""
    constants = {value.name for value in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    sizes = [value.type.tensor_type.shape.dim for value in inputs]
    if not sizes or any(not size or size[0].HasField("dim_value") for size in sizes):
        return
    for output in model.graph.output:
        shape = output.type.tensor_type.shape.dim
        if shape and shape[0].dim_value == 1:
            shape[0].dim_param = sizes[0][0].dim_param or "n"


def _predict(original: ModelProto | Path, labels: Mapping[str, tuple[str, ...]]) -> Predict:
    sessions: list[Any] = []

    def predict(values: Mapping[str, Array]) -> dict[str, Array]:
        if not sessions:
            sessions.append(_session(original))
        session = sessions[0]
        names = [tensor.name for tensor in session.get_outputs()]
        feeds = {
            tensor.name: values[tensor.name].astype(_numpy(tensor.type), copy=False) for tensor in session.get_inputs()
        }
        try:
            ran = run_bounded(session, None, feeds)
        except run_errors() as error:
            raise RequestError(f"the model cannot take these inputs: {plain_message(error)}") from None
        return {name: _array(value, labels.get(name)) for name, value in zip(names, ran, strict=True)}

    return predict


def _session(original: ModelProto | Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    source = str(original) if isinstance(original, Path) else original.SerializeToString()
    with bounded_memory():
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _numpy(kind: str) -> type[Any]:
    element = kind.removeprefix("tensor(").removesuffix(")")
    dtype: type[Any] = {
        "float": np.float32,
        "double": np.float64,
        "string": np.object_,
        "bool": np.bool_,
        "float16": np.float16,
    }.get(element) or np.dtype(element).type
    return dtype


def _array(value: Any, labels: tuple[str, ...] | None) -> Array:
    if labels is None:
        return np.asarray(value)
    return np.array([[row[key] for key in row] for row in value], np.float32)


def unservable_graph(error: IntegrityError, subject: str) -> DefinitionError:
    """The error of a graph that came from elsewhere and cannot be served."""
    return DefinitionError(error.message, subject=subject, hint="every input and output must be a plain tensor")
