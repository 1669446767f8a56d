"""JSON tensors of the Open Inference Protocol v2: one input a request field, one output a kind of answer."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import msgspec

from cumulant.core.errors import RequestError, did_you_mean
from cumulant.core.plan import DType, Field
from cumulant.core.servable import Answer, Servable
from cumulant.packaging import labels

#: how the type of a field is announced; times and dates travel as text
DATATYPES: Mapping[DType, str] = {
    "bool": "BOOL", "int": "INT64", "float": "FP64", "str": "BYTES", "time": "BYTES", "date": "BYTES", "bytes": "BYTES"
}  # fmt: skip
_WHOLE = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
_NUMBERS = _WHOLE | {"FP16", "FP32", "FP64"}
_ACCEPTED: Mapping[DType, frozenset[str]] = {
    "bool": frozenset({"BOOL"}),
    "int": _NUMBERS,
    "float": _NUMBERS,
    "str": frozenset({"BYTES"}),
    "time": _NUMBERS | {"BYTES"},
    "date": frozenset({"BYTES"}),
    "bytes": frozenset({"BYTES"}),
}
_MAX_RANK = 8


class RequestTensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[object] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, object] = {}


class RequestOutput(msgspec.Struct):
    name: str
    parameters: dict[str, object] = {}


class InferRequest(msgspec.Struct):
    inputs: list[RequestTensor]
    id: str | None = None
    parameters: dict[str, object] = {}
    outputs: list[RequestOutput] = []


class ResponseTensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[object]


class InferResponse(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[ResponseTensor]
    id: str | None = None
    parameters: dict[str, object] = {}


def to_rows(inputs: Sequence[RequestTensor], fields: Mapping[str, Field], unread: Collection[str] = ()) -> list[object]:
    """Rows with the values of the tensors; their types are checked by the request schema afterwards.

    Tensors named in `unread` are left out.

    Raises:
        RequestError: an unknown or repeated tensor, a datatype that the field cannot take, or a wrong shape.
    """
    columns: dict[str, list[object]] = {}
    for tensor in inputs:
        if tensor.name in unread:
            continue
        if tensor.name not in fields:
            hint = did_you_mean(tensor.name, fields) or f"known inputs: {', '.join(fields)}"
            raise RequestError(f'there is no input "{tensor.name[:100]}"', subject=tensor.name[:100], hint=hint)
        if tensor.name in columns:
            raise RequestError(f'input "{tensor.name}" is given twice', subject=tensor.name)
        columns[tensor.name] = _column(tensor, fields[tensor.name])
    if not columns:
        raise RequestError("the request has no inputs", hint=f"known inputs: {', '.join(fields)}")
    if len({len(values) for values in columns.values()}) != 1:
        sizes = ", ".join(f"{name} {len(values)}" for name, values in columns.items())
        raise RequestError(f"the inputs have different numbers of rows: {sizes}")
    names = tuple(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _column(tensor: RequestTensor, field: Field) -> list[object]:
    name, shape = tensor.name, tensor.shape
    if tensor.datatype not in _ACCEPTED[field.dtype]:
        raise RequestError(
            f'input "{name}" has datatype {tensor.datatype[:20]}, expected {DATATYPES[field.dtype]}', subject=name
        )
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1) or any(size < 0 for size in shape):
        raise RequestError(f'input "{name}" has shape {_show(shape)}, expected [n] or [n, 1]', subject=name)
    if tensor.data is msgspec.UNSET:
        hint = "binary tensor data is not accepted; send the values as JSON"
        raise RequestError(f'input "{name}" has no data', subject=name, hint=hint)
    values = _flat(tensor.data, name)
    if len(values) != math.prod(shape):
        message = f'input "{name}" has {len(values)} values where its shape {_show(shape)} needs {math.prod(shape)}'
        raise RequestError(message, subject=name)
    if tensor.datatype in _WHOLE and not all(value is None or type(value) is int for value in values):
        raise RequestError(f'input "{name}" has a value that is no {tensor.datatype}', subject=name)
    return values


def _flat(data: list[object], name: str) -> list[object]:
    """Nested lists in row-major order; a tensor may be sent flat or nested."""
    for _ in range(_MAX_RANK):
        if not any(isinstance(value, list) for value in data):
            return data
        if not all(isinstance(value, list) for value in data):
            break
        data = [inner for value in data if isinstance(value, list) for inner in value]
    raise RequestError(f'the data of input "{name}" are nested unevenly or too deeply', subject=name)


def _show(shape: Sequence[int]) -> str:
    return f"[{', '.join(str(size) for size in shape[:_MAX_RANK])}{', ...' if len(shape) > _MAX_RANK else ''}]"


def outputs(servable: Servable) -> dict[str, tuple[str, list[int]]]:
    """Datatype and shape of every output: `prediction`, and probabilities where there are classes."""
    match servable.task:
        case "regression":
            return {"prediction": ("FP64", [-1])}
        case "multiclass":
            return {"prediction": (_label(servable), [-1]), "probabilities": ("FP64", [-1, len(servable.classes)])}
        case "binary":
            return {"prediction": (_label(servable), [-1]), "probability": ("FP64", [-1])}


def _label(servable: Servable) -> str:
    match labels(servable):
        case (bool(), *_):
            return "BOOL"
        case (int(), *_):
            return "INT64"
        case _:
            return "BYTES"


def from_answers(answers: Sequence[Answer], servable: Servable, wanted: Sequence[str]) -> list[ResponseTensor]:
    """The answers as tensors; `wanted` selects among them, in its order."""
    known = outputs(servable)
    found: list[ResponseTensor] = []
    for name in wanted or known:
        if name not in known:
            hint = did_you_mean(name, known) or f"known outputs: {', '.join(known)}"
            raise RequestError(f'there is no output "{name[:100]}"', subject=name[:100], hint=hint)
        datatype, shape = known[name]
        found.append(ResponseTensor(name, datatype, [len(answers), *shape[1:]], _values(name, answers)))
    return found


def _values(name: str, answers: Sequence[Answer]) -> list[object]:
    match name:
        case "probability":
            return [answer.probability for answer in answers]
        case "probabilities":
            return [value for answer in answers for value in (answer.probabilities or {}).values()]
        case _:
            return [answer.prediction for answer in answers]
