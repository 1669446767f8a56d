"""Conversion of tensors to rows and of answers to tensors: one input per request field."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import dropwhile

import msgspec

from cumulant.core.errors import RequestError, did_you_mean
from cumulant.core.plan import DType, Field
from cumulant.core.servable import Answer, Servable
from cumulant.servable.scorer import labels
from cumulant.serving.protocol.request_schema import first_errors
from cumulant.serving.protocol.row_counts import check_count
from cumulant.serving.protocol.tensors import InputTensor, OutputTensor, show_shape, to_list

#: how the type of a field is announced; times and dates travel as text
DATATYPES: Mapping[DType, str] = {
    "bool": "BOOL",
    "int": "INT64",
    "float": "FP64",
    "str": "BYTES",
    "time": "BYTES",
    "date": "BYTES",
    "bytes": "BYTES",
}
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


def to_rows(inputs: Sequence[InputTensor], fields: Mapping[str, Field], unread: Collection[str] = ()) -> list[object]:
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
            raise unknown_input(tensor.name, fields)
        if tensor.name in columns:
            raise RequestError(f'input "{tensor.name}" is given twice', subject=tensor.name)
        try:
            columns[tensor.name] = _column(tensor, fields[tensor.name])
        except RequestError:
            raise unfit_inputs(lambda other: _column(other, fields[other.name]), inputs, tensor, fields) from None
    if not columns:
        raise RequestError("the request has no inputs", hint=f"known inputs: {', '.join(fields)}")
    if len({len(values) for values in columns.values()}) != 1:
        sizes = ", ".join(f"{name} {len(values)}" for name, values in columns.items())
        raise RequestError(f"the inputs have different numbers of rows: {sizes}")
    names = tuple(columns)
    check_count(len(columns[names[0]]))
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def unfit_inputs(
    check: Callable[[InputTensor], object], inputs: Iterable[InputTensor], first: InputTensor, known: Collection[str]
) -> RequestError:
    """The error of the tensors from `first` on that `check` refuses by a RequestError."""
    rest = dropwhile(lambda tensor: tensor is not first, inputs)
    return first_errors(check, (tensor for tensor in rest if tensor.name in known))


def unknown_input(name: str, known: Mapping[str, object]) -> RequestError:
    hint = did_you_mean(name, known) or f"known inputs: {', '.join(known)}"
    return RequestError(f'there is no input "{name[:100]}"', subject=name[:100], hint=hint)


def check_outputs(wanted: Sequence[str], known: Mapping[str, object]) -> None:
    """Raises RequestError for an output that there is not."""
    for name in wanted:
        if name not in known:
            raise unknown_output(name, known)


def unknown_output(name: str, known: Mapping[str, object]) -> RequestError:
    hint = did_you_mean(name, known) or f"known outputs: {', '.join(known)}"
    return RequestError(f'there is no output "{name[:100]}"', subject=name[:100], hint=hint)


def _column(tensor: InputTensor, field: Field) -> list[object]:
    name, shape = tensor.name, tensor.shape
    if tensor.datatype not in _ACCEPTED[field.dtype]:
        raise RequestError(
            f'input "{name}" has datatype {tensor.datatype[:20]}, expected {DATATYPES[field.dtype]}', subject=name
        )
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1) or any(size < 0 for size in shape):
        raise RequestError(f'input "{name}" has shape {show_shape(shape)}, expected [n] or [n, 1]', subject=name)
    values: list[object] = to_list(tensor)
    if tensor.datatype in _WHOLE and not all(value is None or type(value) is int for value in values):
        raise RequestError(f'input "{name}" has a value that is no {tensor.datatype}', subject=name)
    return values


def output_specs(servable: Servable) -> dict[str, tuple[str, list[int]]]:
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


def from_answers(
    answers: Sequence[Answer], known: Mapping[str, tuple[str, list[int]]], wanted: Sequence[str]
) -> list[OutputTensor]:
    """The answers as tensors; `wanted` selects among the `known` outputs, in its order."""
    tensors: list[OutputTensor] = []
    for name in wanted or known:
        datatype, shape = known[name]
        tensors.append(OutputTensor(name, datatype, [len(answers), *shape[1:]], _values(name, answers)))
    return tensors


def _values(name: str, answers: Sequence[Answer]) -> list[object]:
    match name:
        case "probability":
            return [answer.probability for answer in answers]
        case "probabilities":
            return [value for answer in answers for value in (answer.probabilities or {}).values()]
        case "reasons":
            return [msgspec.json.encode(answer.reasons or ()).decode() for answer in answers]
        case _:
            return [answer.prediction for answer in answers]
