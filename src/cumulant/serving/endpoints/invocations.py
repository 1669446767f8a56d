"""`/invocations`: requests and answers in the formats of MLflow's scoring server, JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cumulant.core.errors import RequestError, did_you_mean
from cumulant.servable.engine import Array
from cumulant.serving.endpoints.request_bodies import LARGE
from cumulant.serving.endpoints.scoring import Scoring
from cumulant.serving.errors import HttpError
from cumulant.serving.http.messages import Request, Response, encode
from cumulant.serving.models.graph_model import GraphModel
from cumulant.serving.models.model import Model
from cumulant.serving.models.request_work import RequestWork
from cumulant.serving.models.row_model import RowModel
from cumulant.serving.protocol.json_body import decode_body, decode_json
from cumulant.serving.protocol.json_size import check_lists
from cumulant.serving.protocol.row_counts import check_count
from cumulant.serving.reasons.reasoning import NAME, read_reasons, read_reasons_query
from cumulant.serving.scheduling.job_queue import Demand

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
#: what to send instead of an empty body
_EXPECTED = 'send {"dataframe_split": {"columns": [...], "data": [[...]]}}, or another of its formats'
_CHARSETS: Mapping[str, str] = {
    "": "utf-8",
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
}
Read = Callable[[str], object]
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def read(model: Model, request: Request) -> Scoring[Response]:
    """Scoring of a JSON document in one of `FORMATS` or of CSV with a header line.

    Raises:
        HttpError: 415 for another content type or charset.
        RequestError: the body has none of these forms, or does not fit the model.
    """
    kind, charset = _content_type(request.headers.get(b"content-type", b""))
    if kind == "text/csv":
        form, work, reasons = (
            "dataframe_records",
            model.from_rows(read_csv_rows(_text(request.body, charset), model)),
            None,
        )
    else:
        form, work, reasons = _document(_text(request.body, charset), model)
    work.reasons = read_reasons(model.reasons, read_reasons_query(request.target, reasons))

    def finish(raw: Sequence[Array]) -> Response:
        document: dict[str, Any] = {"predictions": _predictions(model.answers(work, raw), form, model)}
        if work.fallback:
            document["degraded"] = work.fallback
        if work.warnings:
            document["warnings"] = work.warnings
        return Response(200, encode(document))

    return Scoring(work, Demand(client=request.client), finish)


def _content_type(header: bytes) -> tuple[str, str]:
    """Content type and codec of the charset; JSON without a header."""
    kind, _, rest = header.decode("latin-1").lower().partition(";")
    kind = kind.strip() or "application/json"
    if kind not in {"application/json", "text/csv"}:
        raise HttpError(
            415, f'the content type "{kind[:60]}" is not read here', hint="send application/json or text/csv"
        )
    charset = ""
    for part in rest.split(";"):
        name, _, value = part.partition("=")
        if name.strip() == "charset":
            charset = value.strip().strip('"')
    if charset not in _CHARSETS:
        raise HttpError(415, f'the charset "{charset[:40]}" is not read here', hint="send UTF-8")
    return kind, _CHARSETS[charset]


def _text(body: bytes, charset: str) -> str:
    try:
        return body.decode(charset).removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise RequestError(f"the body is no {charset} text") from None


def _document(text: str, model: Model) -> tuple[str, RequestWork, object]:
    """Format, work, and requested number of reasons."""
    body = text.encode()
    if len(body) > LARGE and not isinstance(model, GraphModel):  # tensors have no bound but their size
        check_lists(body)
    document = decode_body(decode_json, body, expected=_EXPECTED)
    if not isinstance(document, dict):
        raise RequestError(f"expected a JSON object with one of {', '.join(FORMATS)}")
    reasons = _reasons_param(document.pop("params", None), model)
    given = [name for name in document if name in FORMATS]
    unknown = next((name for name in document if name not in FORMATS), None)
    if unknown is not None:
        hint = did_you_mean(unknown, FORMATS) or f"expected one of {', '.join(FORMATS)}"
        raise RequestError(f'"{unknown[:100]}" is no format of /invocations', subject=unknown[:100], hint=hint)
    if len(given) != 1:
        raise RequestError(f"expected exactly one of {', '.join(FORMATS)}, got {len(given)}")
    (form,) = given
    return form, _READERS[form](document[form], model), reasons


def _reasons_param(params: object, model: Model) -> object:
    """Requested number of reasons, the only supported parameter."""
    if not params:
        return None
    if model.reasons is None:
        raise RequestError("the models here take no params", subject="params", hint="leave params out")
    if not isinstance(params, dict) or params.keys() != {NAME}:
        raise RequestError(f'"params" may hold "{NAME}" only', subject="params")
    return params[NAME]


def _split(value: object, model: Model) -> RequestWork:
    """`{"columns": [...], "data": [[...]]}`; an index is allowed and not read."""
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise RequestError('"dataframe_split" must be an object with "columns" and "data"', subject="dataframe_split")
    unknown = next((name for name in value if name not in {"columns", "data", "index"}), None)
    if unknown is not None:
        raise RequestError(f'"dataframe_split" has no part "{unknown[:100]}"', subject=unknown[:100])
    check_count(len(value["data"]))
    columns = _columns(value["columns"]) if "columns" in value else _own_columns(model)
    rows: list[object] = []
    for number, values in enumerate(value["data"], 1):
        if not isinstance(values, list) or len(values) != len(columns):
            raise RequestError(f"row {number} of dataframe_split must be a list of {len(columns)} values")
        rows.append(dict(zip(columns, values, strict=True)))
    return model.from_rows(rows)


def _own_columns(model: Model) -> list[str]:
    """Columns of a graph that reads one matrix, for frames without names."""
    if not isinstance(model, GraphModel) or not model.servable.columns:
        raise RequestError('"columns" of dataframe_split must be a list of names', subject="columns")
    return list(model.servable.columns)


def _columns(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise RequestError('"columns" of dataframe_split must be a list of names', subject="columns")
    if (twice := first_repeated(value)) is not None:
        raise RequestError(f'the column "{twice[:100]}" is given twice', subject=twice[:100])
    return value


def _records(value: object, model: Model) -> RequestWork:
    if not isinstance(value, list):
        raise RequestError('"dataframe_records" must be a list of objects', subject="dataframe_records")
    return model.from_rows(value)


def _instances(value: object, model: Model) -> RequestWork:
    """One element a row: an object by input, or the row's part of the only input."""
    if not isinstance(value, list):
        raise RequestError('"instances" must be a list, one element a row', subject="instances")
    if not isinstance(model, GraphModel):
        return model.from_rows(value)
    if value and all(isinstance(instance, dict) for instance in value):
        if model.servable.columns:
            return model.from_rows(value)
        return _tensors(_by_name(value), model)
    return _tensors({_only_input(model, "instances"): value}, model)


def _by_name(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = list(rows[0])
    for number, row in enumerate(rows, 1):
        if row.keys() != rows[0].keys():
            raise RequestError(f"row {number} of instances has other inputs than the first")
    return {name: [row[name] for row in rows] for name in names}


def _inputs(value: object, model: Model) -> RequestWork:
    """Whole columns or tensors by name, or the only input."""
    if isinstance(model, GraphModel) and not model.servable.columns:
        return _tensors(value if isinstance(value, dict) else {_only_input(model, "inputs"): value}, model)
    if isinstance(value, dict):
        if isinstance(model, GraphModel) and value.keys() <= model.inputs.keys():
            return _tensors(value, model)
        return model.from_rows(_by_column(value))
    if isinstance(value, list) and (not isinstance(model, GraphModel) or all(isinstance(row, dict) for row in value)):
        return model.from_rows(value)
    if isinstance(model, GraphModel):
        return _tensors({_only_input(model, "inputs"): value}, model)
    raise RequestError('"inputs" must be an object with one list a field', subject="inputs")


def _by_column(value: Mapping[str, object]) -> list[object]:
    columns = {name: column for name, column in value.items() if isinstance(column, list)}
    if len(columns) < len(value) or not value:
        raise RequestError('"inputs" must be an object with one list a field', subject="inputs")
    if len({len(column) for column in columns.values()}) > 1:
        sizes = ", ".join(f"{name[:100]} {len(column)}" for name, column in list(columns.items())[:20])
        raise RequestError(f"the fields of inputs have different numbers of rows: {sizes}", subject="inputs")
    check_count(len(next(iter(columns.values()))))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _only_input(model: GraphModel, form: str) -> str:
    if len(model.inputs) != 1:
        names = ", ".join(model.inputs)
        raise RequestError(f'"{form}" must name the inputs of {model.name}: {names}', subject=form)
    return next(iter(model.inputs))


def _tensors(values: Mapping[str, Any], model: GraphModel) -> RequestWork:
    return model.from_tensors(model.nested(values))


_READERS: Mapping[str, Callable[[object, Model], RequestWork]] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "instances": _instances,
    "inputs": _inputs,
}


def _predictions(answers: Sequence[Any], form: str, model: Model) -> Any:
    """Of a frame, a record a row; of tensors, the bare values where the graph has one output."""
    if not isinstance(model, GraphModel) or form.startswith("dataframe"):
        return answers
    if len(model.outputs) == 1:
        (name,) = model.outputs
        return [answer[name] for answer in answers]
    if form == "inputs":
        return {name: [answer[name] for answer in answers] for name in model.outputs}
    return answers


def read_csv_rows(text: str, model: Model) -> list[object]:
    """The rows in `text`, with cells in the types that the model's fields have.

    A cell that cannot be read as its field's type stays text, which the model's own check then refuses by name.

    Raises:
        HttpError: 413 for more rows than one request may bring, before they are all read.
        RequestError: no line of names, a name twice, a row of another length, or quotes that do not end.
    """
    lines = _lines(text)
    if not lines:
        raise RequestError("the CSV has no line of names", hint="the first line must name the columns")
    names = lines[0]
    if (twice := first_repeated(names)) is not None:
        raise RequestError(f'the CSV names the column "{twice[:100]}" twice', subject=twice[:100])
    readers = [_reader(name, model) for name in names]
    return [_row(number, line, names, readers) for number, line in enumerate(lines[1:], 1)]


def first_repeated(names: Sequence[str]) -> str | None:
    """First name that occurs twice in `names`; None where there is none."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _lines(text: str) -> list[list[str]]:
    lines: list[list[str]] = []
    try:
        for line in csv.reader(io.StringIO(text, newline=""), strict=True):
            if line:
                check_count(len(lines))  # the line of names is no row
                lines.append(line)
    except csv.Error as error:
        raise RequestError(f"the body is no valid CSV: {error}") from None
    return lines


def _row(number: int, line: Sequence[str], names: Sequence[str], readers: Sequence[Read]) -> dict[str, object]:
    if len(line) != len(names):
        raise RequestError(f"row {number} of the CSV has {len(line)} cells, the line of names {len(names)}")
    cells = zip(names, line, readers, strict=True)
    return {name: None if cell == "" else read(cell) for name, cell, read in cells}


def _reader(name: str, model: Model) -> Read:
    kind = "number"
    if isinstance(model, RowModel):
        field = model.schema.fields.get(name)
        kind = field.dtype if field else "str"
    elif isinstance(model, GraphModel) and not model.servable.columns:
        datatype = str(model.inputs[name]["datatype"]) if name in model.inputs else ""
        kind = {"BYTES": "str", "BOOL": "bool"}.get(datatype, "number")
    return _CELL_READERS.get(kind, str)


def _number(cell: str) -> object:
    if "_" in cell:  # Python alone reads 1_000 as a number
        return cell
    try:
        return int(cell)
    except ValueError:
        pass
    try:
        return float(cell)
    except ValueError:
        return cell


_CELL_READERS: Mapping[str, Read] = {
    "int": _number,
    "float": _number,
    "number": _number,
    "bool": lambda cell: _TRUTH.get(cell, cell),
}
