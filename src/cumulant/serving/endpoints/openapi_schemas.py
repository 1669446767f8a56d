"""JSON Schemas of requests and answers, per model where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cumulant.core.plan import DType
from cumulant.core.servable import GraphServable
from cumulant.serving.models.graph_model import GraphModel
from cumulant.serving.models.model import Model
from cumulant.serving.models.row_model import RowModel
from cumulant.serving.posted.label_inbox import PostedLabels
from cumulant.serving.posted.posted_events import PostedEvents
from cumulant.serving.protocol.responses import ErrorResponse
from cumulant.serving.protocol.row_tensors import DATATYPES
from cumulant.serving.protocol.tensors import InferResponse
from cumulant.serving.reasons.reasoning import Reasoning

Schema = Mapping[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": ["number", "null"]}
_FLAG: Schema = {"type": "boolean"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_OBJECT: Schema = {"type": "object"}
_INT64 = 2**63
#: of the years that Python's clock knows
_MOMENT: Schema = {"type": "number", "minimum": -62_135_596_800, "maximum": 253_402_300_799}
_FIELDS: Mapping[DType, Schema] = {
    "bool": _FLAG,
    "int": {"type": "integer", "minimum": -_INT64, "maximum": _INT64 - 1},
    "float": {"type": "number"},
    "str": _TEXT,
    "time": {
        "anyOf": [{"type": "string", "format": "date-time"}, _MOMENT],
        "description": "ISO 8601 text, or seconds since 1970.",
    },
    "date": {"type": "string", "format": "date"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
}
_NUMBERS: Mapping[str, Schema] = {
    "BOOL": _FLAG,
    "BYTES": _TEXT,
    **{f"FP{bits}": {"type": "number"} for bits in (16, 32, 64)},
    **{
        f"INT{bits}": {"type": "integer", "minimum": -(2 ** (bits - 1)), "maximum": 2 ** (bits - 1) - 1}
        for bits in (8, 16, 32, 64)
    },
    **{f"UINT{bits}": {"type": "integer", "minimum": 0, "maximum": 2**bits - 1} for bits in (8, 16, 32, 64)},
}


def reference(kind: type[msgspec.Struct]) -> Schema:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _struct(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def _only(name: str, schema: Schema) -> Schema:
    return {**_struct({name: schema}), "additionalProperties": False}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


ERROR: Mapping[str, Any] = {
    "description": "The request was refused; the text says why.",
    "content": {"application/json": {"schema": reference(ErrorResponse)}},
}
_REASON = _struct(
    {"feature": _TEXT, "contribution": _NUMBER, "direction": {"enum": ["raises", "lowers"]}}, {"code": _TEXT}
)
_SEQUENCE = _struct(
    {
        "sequence_id": {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 2**64 - 1},
                {"type": "string", "minLength": 1, "maxLength": 256},
            ],
            "description": "The requests that share state.",
        }
    },
    {
        "sequence_start": {**_FLAG, "description": "Begin without state, whatever there was."},
        "sequence_end": {**_FLAG, "description": "Forget the state after this request."},
        "sequence_step": {"type": "integer", "minimum": 1, "description": "409 unless it is the next step, from 1 on."},
    },
)


# --- requests


def bodies(template: str, verb: str, model: Model | None) -> dict[str, Any] | None:
    """The content of a request by its type; None where it has no body."""
    if model is not None and verb in {"infer", "predict", "invocations"}:
        return _to_score(verb, model)
    match verb:
        case "events":
            return _json(reference(PostedEvents))
        case "labels":
            return _json(reference(PostedLabels))
        case "index" | "load" | "unload" if template.startswith("/v2/repository"):
            return _json({"type": "object", "properties": {"ready": _FLAG}})
        case _:
            return None


def _to_score(verb: str, model: Model) -> dict[str, Any]:
    shown = example(model)
    match verb:
        case "infer":
            return _json(_infer(model), _infer_example(model))
        case "predict":
            row = row_schema(model)
            several = _list(row)
            optional = {} if model.reasons is None else {"reasons": how_many(model.reasons)}
            wrapped = {**_struct({"rows": several}, optional), "additionalProperties": False}
            return _json({"anyOf": [row, several, wrapped]}, shown or None)
        case _:
            frame = {"dataframe_records": [shown]} if shown else None
            return {**_json(_invocations(model), frame), "text/csv": {}}


def how_many(reasoning: Reasoning) -> Schema:
    """Schema of the requested number of reasons."""
    return {"type": "integer", "minimum": 0, "maximum": reasoning.most, "description": "Reasons a row."}


def _json(schema: Schema, example: object = None) -> dict[str, Any]:
    return {"application/json": {"schema": schema, **({"example": example} if example else {})}}


def row_schema(model: Model) -> Schema:
    """One plain JSON row: types, required fields, an example."""
    if isinstance(model, RowModel):
        schema = _request_row(model)
    elif isinstance(model, GraphModel) and model.servable.columns:
        schema = _matrix_row(model.servable)
    else:
        parts = {name: nested(spec["datatype"], spec["shape"][1:]) for name, spec in model.inputs.items()}
        schema = {**_struct(parts), "additionalProperties": False}
    shown = example(model)
    return {**schema, "examples": [shown]} if shown else schema


def _request_row(model: RowModel) -> dict[str, Any]:
    required = set(model.required)
    return {
        "type": "object",
        "required": list(model.required),
        "properties": {
            field.name: _FIELDS[field.dtype]
            if field.name in required
            else {"anyOf": [_FIELDS[field.dtype], {"type": "null"}]}
            for field in model.schema.fields.values()
        }
        | {name: {"description": "Ignored, with a warning."} for name in model.schema.unread},
        "additionalProperties": False,
        "minProperties": 1 if model.schema.fields else 0,
    }


def _matrix_row(servable: GraphServable) -> dict[str, Any]:
    number, needed = _NUMBERS[servable.inputs[0].datatype], set(servable.required)
    return {
        "type": "object",
        "required": list(servable.required),
        "properties": {
            name: {"anyOf": [number, {"type": "boolean" if name in needed else ["boolean", "null"]}]}
            for name in servable.columns
        },
        "additionalProperties": False,
        "minProperties": 1,
    }


def nested(datatype: str, shape: Sequence[int]) -> Schema:
    """A value of `shape`, as lists within lists."""
    schema = _NUMBERS[datatype]
    for size in reversed(shape):
        schema = {"type": "array", "items": schema, **({} if size == -1 else {"minItems": size, "maxItems": size})}
    return schema


def example(model: Model) -> Any:
    """A row that the model takes, as it was packaged with."""
    return msgspec.to_builtins(model.card()["example"])


def _infer(model: Model) -> Schema:
    tensor = {
        **_struct(
            {
                "name": {"enum": list(model.inputs)},
                "datatype": {"enum": sorted({str(spec["datatype"]) for spec in model.inputs.values()})},
                "shape": _list({"type": "integer", "minimum": 0}),
            },
            {"data": {"type": "array"}, "parameters": _OBJECT},
        )
    }
    classes = {
        "type": "integer",
        "minimum": 1,
        "description": "The highest values, as value:index or value:index:label.",
    }
    ways = _struct({}, {"binary_data": _FLAG, "classification": classes})
    names = [*model.outputs, *([] if model.reasons is None else ["reasons"])]
    output = _struct({"name": {"enum": names}}, {"parameters": ways})
    more = {"id": {"type": ["string", "null"], "maxLength": 256}, "outputs": _list(output)}
    if not model.stateful:
        return _struct({"inputs": _list(tensor)}, {**more, "parameters": _OBJECT})
    return _struct({"inputs": _list(tensor), "parameters": _SEQUENCE}, more)


def _infer_example(model: Model) -> Schema | None:
    """The example row as tensors, where it has a value for every input."""
    shown = example(model)
    if not isinstance(model, RowModel) or not shown:
        return None
    fields = model.schema.fields
    given = {name: value for name, value in shown.items() if name in fields and value is not None}
    return {
        "inputs": [
            {"name": name, "datatype": DATATYPES[fields[name].dtype], "shape": [1], "data": [value]}
            for name, value in given.items()
        ]
    }


def _invocations(model: Model) -> Schema:
    row = row_schema(model)
    rows, names = {"data": _list({"type": "array"})}, {"columns": _TEXTS}
    named = isinstance(model, GraphModel) and model.servable.columns  # a frame without names has these
    split = _struct(rows, {**names, "index": {}}) if named else _struct({**names, **rows}, {"index": {}})
    forms: Mapping[str, Schema] = {
        "dataframe_split": split,
        "dataframe_records": _list(row),
        "instances": {"type": "array"},
        "inputs": {"type": ["object", "array"]},
    }
    more = {} if model.reasons is None else {"params": _only("reasons", how_many(model.reasons))}
    return {"oneOf": [{**_struct({name: form}, more), "additionalProperties": False} for name, form in forms.items()]}


# --- answers


def answer(verb: str, model: Model) -> Schema:
    """What a model answers to a request that it takes."""
    match verb:
        case "infer":
            return reference(InferResponse)
        case "invocations":
            return _struct({"predictions": {"type": ["array", "object"]}}, {"warnings": _TEXTS, "degraded": _TEXT})
        case _:
            more = {"model": {"const": model.name}, "version": {"const": model.version}, "request_id": _TEXT}
            optional = {"warnings": _TEXTS, "degraded": _TEXT}
            prediction = _answer(model)
            single = {"allOf": [prediction, _struct(more, optional)]}
            return {"anyOf": [single, _struct({**more, "predictions": _list(prediction)}, optional)]}


def _answer(model: Model) -> Schema:
    if isinstance(model, GraphModel):
        return _struct({name: {} for name in model.outputs})
    prediction = {"BOOL": _FLAG, "INT64": {"type": "integer"}, "FP64": _NUMBER, "BYTES": _TEXT}
    kind = prediction[model.outputs["prediction"][0]]
    shares = {"type": "object", "additionalProperties": _NUMBER}
    optional = {"probability": _NUMBER, "probabilities": shares, "state_age": _NUMBER, "incomplete": _TEXTS}
    return _struct({"prediction": kind}, optional if model.reasons is None else {**optional, "reasons": _list(_REASON)})
