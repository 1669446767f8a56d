"""Rows for prediction: read as the source reads its own files, but nothing is refused silently."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

import polars as pl

from cumulant.core.errors import RequestError, did_you_mean
from cumulant.core.plan import DType, Field
from cumulant.data.spec import DateFormat, EventTime, RuleSpec, SourceSpec
from cumulant.data.text.casts import Cast, column_casts


def prediction_spec(declared: SourceSpec, fields: Sequence[Field], path: str) -> SourceSpec:
    """How a file of such rows is read: as declared; digits of a text field stay text."""
    texts = {field.name: RuleSpec(type="str") for field in fields if field.dtype == "str"}
    formats = declared.number_formats
    formatted = {
        field.name: RuleSpec(type=field.dtype, number_format=formats[field.name])
        for field in fields
        if field.name in formats and field.dtype in ("int", "float")
    }
    return SourceSpec(
        path=path,
        separator=declared.separator,
        encoding=declared.encoding,
        missing=declared.missing,
        columns=declared.columns,
        sheet=declared.sheet,
        rules={**texts, **formatted},
    )


def as_fields(
    frame: pl.DataFrame,
    fields: Sequence[Field],
    *,
    missing: Sequence[str] = (),
    rules: Mapping[str, RuleSpec] | None = None,
    required: Collection[str] = (),
    others: Collection[str] = (),
    first: int = 0,
    prepare: str | None = None,
) -> pl.DataFrame:
    """The columns of `frame` that are `fields`, under their types; times without an offset are in the field's zone.

    Absent nullable fields stay absent unless `required`. `rules`: formats of numbers and dates by column. `others`:
    columns that are no misspelt fields. `first`: number of rows before these. `prepare`: the source's, which is not
    run.

    Raises:
        RequestError: a required field is absent, one is absent whose name is nearly that of another column, or a value
            cannot be read as its type. Values are not repeated, but for dates in columns that are not personal.
    """
    present = [field for field in fields if field.name in frame.columns]
    try:
        _refuse_absent([name for name in frame.columns if name not in others], fields, required)
        field_casts = [_cast(frame[field.name].dtype, field, missing, rules or {}) for field in present]
        _refuse_lost(frame, field_casts, first, rules or {}, {field.name for field in present if field.personal})
    except RequestError as error:
        error.hint = f"{error.hint}{prepare_note(prepare)}"
        raise
    return frame.select(cast.expr for cast in field_casts)


def prepare_note(prepare: str | None) -> str:
    """What to add to a message about rows that a source's `prepare` could have changed; empty without one."""
    if prepare is None:
        return ""
    return f"; `prepare: {prepare}` is not run on rows to predict: write them as it returns them"


def _refuse_absent(columns: Sequence[str], fields: Sequence[Field], required: Collection[str]) -> None:
    absent = [field.name for field in fields if field.name not in columns]
    others = [name for name in columns if name not in {field.name for field in fields}]
    for name in absent:
        if near := did_you_mean(name, others):
            raise RequestError(f"the rows lack {name}", subject=name, hint=near)
    needed = [field.name for field in fields if not field.nullable or field.name in required]
    lacking = absent if len(absent) == len(fields) else [name for name in absent if name in needed]
    if lacking:
        hint = "`cumulant models show` prints the request schema"
        raise RequestError(f"the rows lack {', '.join(lacking)}", subject=lacking[0], hint=hint)


def _cast(dtype: pl.DataType, field: Field, missing: Sequence[str], rules: Mapping[str, RuleSpec]) -> Cast:
    declared = rules.get(field.name, RuleSpec())
    rule = RuleSpec(type=field.dtype, number_format=declared.number_format, date_format=declared.date_format)
    event = EventTime(column=field.name, zone=field.zone or "UTC") if field.dtype == "time" else None
    spec = SourceSpec(missing=list(missing), event_time=event, rules={field.name: rule})
    return column_casts({field.name: dtype}, spec, "the rows")[0]


def _refuse_lost(
    frame: pl.DataFrame,
    field_casts: Sequence[Cast],
    first: int,
    rules: Mapping[str, RuleSpec],
    personal: Collection[str],
) -> None:
    for cast in field_casts:
        if cast.present is None:
            continue
        lost = frame.select(lost=cast.present & cast.expr.is_null())["lost"].arg_true()
        if lost.len():
            rows = f"row {first + lost[0] + 1:,}" + (f" and {lost.len() - 1:,} more" if lost.len() > 1 else "")
            form = rules.get(cast.name, RuleSpec()).date_format if cast.dtype in ("time", "date") else None
            quoted = "" if form is None or cast.name in personal else f": {_quote(frame[cast.name][lost[0]])}"
            raise RequestError(
                f'column "{cast.name}" must be {_expected(cast.dtype, form)}, and is not in {rows}{quoted}',
                subject=cast.name,
                hint="fix the values, or leave them empty if they are not known",
            )


def _expected(dtype: DType, form: DateFormat | None) -> str:
    if form is None:
        return _WORDS[dtype]
    example = f"{form} 15:30" if dtype == "time" else form
    return f"a {dtype} such as {example} (date_format: {form})"


def _quote(value: object) -> str:
    text = str(value)
    return json.dumps(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...", ensure_ascii=False)


#: characters of a value in a message
_LONGEST = 60
_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "time": "a time such as 2013-04-01T06:00:00Z",
    "date": "a date such as 2013-04-01",
    "bytes": "bytes",
}
