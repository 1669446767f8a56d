"""Casts of columns to the types of a snapshot.

A value that cannot be read fails the rule `column:type`. Times become UTC microseconds, from texts or seconds or
milliseconds since 1970. NaN is null; empty text is null for numbers, booleans and times.
"""

from __future__ import annotations

import zoneinfo
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
from msgspec.structs import replace

from cumulant.core.errors import DataError, did_you_mean
from cumulant.core.plan import DType, Field
from cumulant.data.spec import RuleSpec, SourceSpec
from cumulant.data.text import date_text, iso_text, number_text
from cumulant.data.text.identifier_text import mark_merging
from cumulant.data.text.zones import UTC_MICROS, to_utc

POLARS: dict[DType, pl.DataType] = {
    "bool": pl.Boolean(),
    "int": pl.Int64(),
    "float": pl.Float64(),
    "str": pl.String(),
    "time": UTC_MICROS,
    "date": pl.Date(),
    "bytes": pl.Binary(),
}
_NATURAL: dict[type[pl.DataType], DType] = {
    pl.Boolean: "bool",
    pl.Duration: "float",
    pl.String: "str",
    pl.Categorical: "str",
    pl.Enum: "str",
    pl.Time: "str",
    pl.Null: "str",
    pl.Datetime: "time",
    pl.Date: "date",
    pl.Binary: "bytes",
}
_MOSTLY = 0.5
#: characters of a type in messages: a struct may have thousands of fields
_SHOWN = 200
#: 2000 and 2100 in seconds since 1970 UTC: a number between them, or a thousand times as large, can be meant as a time
EPOCH = (946_684_800, 4_102_444_800)
TRUE, FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")
#: NaN in a text of numbers is a missing value
_NOT_A_NUMBER = r"(?i)^[+-]?nan$"


@dataclass(frozen=True)
class Cast:
    """How one column is read. `expr` gives its values, null where one cannot be read.

    On the raw column, `present` marks values that must be read (None: all can be), `zoneless` times without a zone, and
    `merging` texts with leading zeros that equal another text's number.
    """

    name: str
    dtype: DType
    expr: pl.Expr
    #: the part holds only nulls there, so its type is unknown
    empty: bool = False
    zone: str | None = None
    present: pl.Expr | None = None
    zoneless: pl.Expr | None = None
    merging: pl.Expr | None = None


def conform(
    frame: pl.LazyFrame, fields: Sequence[Field], exact: Mapping[str, pl.DataType] | None = None
) -> pl.LazyFrame:
    """A stored part under the snapshot's types; columns that it lacks are null.

    Stored decimals are floats here, but for columns that `exact` has a type for.
    """
    have, columns = frame.collect_schema(), []
    every = stored_columns(have)
    for field in fields:
        wanted = (exact or {}).get(field.name, POLARS[field.dtype])
        stored = every.get(field.name, [])
        if not stored:
            columns.append(pl.lit(None, wanted).alias(field.name))
        elif exact is not None and field.name in exact:
            columns.append(pl.coalesce(_exact(name, have[name], wanted) for name in stored).alias(field.name))
        elif len(stored) > 1 or have[field.name] != wanted:
            columns.append(pl.coalesce(pl.col(name).cast(wanted) for name in stored).alias(field.name))
    # added first and chosen after, for a selection of constants alone would have one row
    return frame.with_columns(columns).select(field.name for field in fields)


def _exact(name: str, dtype: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    """A stored column of numbers as it is, or as text that equal ones share; a column of text there is all nulls."""
    if dtype == wanted:
        return pl.col(name)
    if not dtype.is_numeric():
        return pl.lit(None, wanted)
    text = pl.col(name).cast(pl.String)
    fraction = text.str.contains(".", literal=True)
    return pl.when(fraction).then(text.str.strip_chars_end("0").str.strip_chars_end(".")).otherwise(text)


def stored_columns(schema: Mapping[str, pl.DataType]) -> dict[str, list[str]]:
    """The columns of a stored table that hold the values of each column: one for each type that it has in the rows."""
    columns: dict[str, list[str]] = {}
    for name, dtype in schema.items():
        columns.setdefault(name.removeprefix(type_prefix(dtype)), []).append(name)
    return columns


def type_prefix(dtype: pl.DataType) -> str:
    """Prefix of the name of a column in a stored table whose rows have it under several types."""
    code = next((code for code, own in POLARS.items() if own == dtype), str(dtype).replace(" ", ""))
    return f"__{code}__"


def column_casts(schema: Mapping[str, pl.DataType], spec: SourceSpec, source: str) -> list[Cast]:
    """How every column of a frame is read under the declaration.

    Raises:
        DataError: a column's type has no place in a table (lists, structs), or a zone is unknown.
    """
    times = _times(spec, source)
    result = []
    for name, dtype in schema.items():
        declared = _declared(spec.rules.get(name))
        if name in times:
            result.append(_time(name, dtype, times[name], spec))
        elif declared == "time" or (declared is None and isinstance(dtype, pl.Datetime)):
            result.append(_time(name, dtype, (spec.time and spec.time.zone) or "UTC", spec))
        else:
            result.append(_cast(name, dtype, declared, spec, source))
    return result


def _declared(rule: RuleSpec | None) -> DType | None:
    if rule is None:
        return None
    if rule.type is None and rule.date_format is not None:
        return "time"
    return rule.type or (None if rule.number_format is None else "float")


def declare_numbers(rows: pl.DataFrame, spec: SourceSpec) -> SourceSpec:
    """`spec` with text that has numbers as limits, and is mostly numbers, declared as numbers."""
    return with_numbers(spec, {name: numeric_texts(rows, name) for name in texts_with_limits(rows.schema, spec)})


def numeric_texts(rows: pl.DataFrame, name: str) -> Counter[str]:
    """How many texts of a column are `filled`, and how many of those are `numbers`."""
    filled = rows.lazy().select(_plain(pl.col(name))).filter(pl.col(name) != "")
    numbers = pl.col(name).cast(pl.Float64, strict=False).is_not_null().sum()
    return Counter(filled.select(pl.len().alias("filled"), numbers.alias("numbers")).collect().row(0, named=True))


def with_numbers(spec: SourceSpec, counts: Mapping[str, Counter[str]]) -> SourceSpec:
    """`spec` with columns that are mostly numbers declared as such. `counts`: as `numeric_texts`."""
    rules = dict(spec.rules)
    for name, count in counts.items():
        if count["filled"] and count["numbers"] >= _MOSTLY * count["filled"]:
            rules[name] = replace(spec.rules[name], type="float")
    return replace(spec, rules=rules)


def texts_with_limits(schema: Mapping[str, pl.DataType], spec: SourceSpec) -> list[str]:
    """Columns of text whose limits are numbers, and that have no declared type."""
    columns = []
    for name, rule in spec.rules.items():
        limits = [limit for limit in (rule.min, rule.max) if limit is not None]
        numeric = bool(limits) and all(isinstance(limit, int | float) for limit in limits)
        if rule.type is None and numeric and _is_text(schema.get(name, pl.Null())):
            columns.append(name)
    return columns


def _times(spec: SourceSpec, source: str) -> dict[str, str | None]:
    """Columns that must be times (event time and known times), with the zone of naive ones."""
    event = spec.time
    zone = event.zone if event else None
    if zone is not None and zone not in zoneinfo.available_timezones():
        raise DataError(
            f'source {source}: there is no time zone "{zone}"',
            subject=source,
            hint=did_you_mean(zone, zoneinfo.available_timezones()) or "use an IANA name such as Europe/Paris",
        )
    names = [event.column] if event else []
    return dict.fromkeys([*names, *spec.known_times], zone)


def _shortened(dtype: pl.DataType) -> str:
    text = str(dtype)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _cast(name: str, dtype: pl.DataType, declared: DType | None, spec: SourceSpec, source: str) -> Cast:
    own = natural_type(dtype)
    if own is None:
        raise DataError(
            f'source {source}: column "{name}" holds {_shortened(dtype)}, which is not a plain value',
            subject=name,
            hint=_nested_hint(name, dtype),
        )
    empty = isinstance(dtype, pl.Null)
    target = declared or own
    value = pl.col(name)
    if isinstance(dtype, pl.String) and spec.missing:
        value = pl.when(~value.str.strip_chars().is_in(spec.missing)).then(value)
    present = value.is_not_null()
    if dtype.is_float():
        present = present & value.is_not_nan()
    form = spec.number_formats.get(name) if _is_text(dtype) else None
    if form is not None and target in ("float", "int"):
        expr = _as(number_text.read(_plain(value), form), pl.Float64(), target)
    elif target == "date" and _is_text(dtype) and (written := spec.date_formats.get(name)) is not None:
        expr = pl.coalesce(date_text.read(_plain(value), written).dt.date(), _as(value, dtype, target))
    else:
        expr = value.fill_nan(None) if dtype.is_float() and target == "float" else _as(value, dtype, target)
    number = target in ("int", "float")
    if isinstance(dtype, pl.String) and (number or target in ("bool", "date")):
        present = present & (value.str.strip_chars() != "")
    if _is_text(dtype) and number:  # as in a column that an engine has read as numbers
        present = present & ~_plain(value).str.contains(_NOT_A_NUMBER)
    fails = _may_fail(dtype, target)
    merged = mark_merging(_plain(value), expr) if isinstance(dtype, pl.String) and number else None
    return Cast(name, target, expr.alias(name), empty, present=present if fails else None, merging=merged)


def _nested_hint(name: str, dtype: pl.DataType) -> str:
    """What to do with a column of structs or lists."""
    if isinstance(dtype, pl.Struct) and dtype.fields:
        field = dtype.fields[0].name
        return f"declare its fields: columns: {{{name}_{field}: {name}.{field}}}; or take it apart in `prepare`"
    return "no feature can read a list: take it apart in `prepare` (its length, one of its values), or drop it there"


def natural_type(dtype: pl.DataType) -> DType | None:
    """The type a Polars column has by itself; None for nested ones. A column of nulls counts as text."""
    if dtype.is_integer():
        return "int"
    if dtype.is_float() or dtype.is_decimal():
        return "float"
    return _NATURAL.get(dtype.base_type())


def _may_fail(dtype: pl.DataType, target: DType) -> bool:
    own = natural_type(dtype)
    if isinstance(dtype, pl.Null):
        return False
    wide = isinstance(dtype, (pl.UInt64, pl.Int128, pl.UInt128))
    return (target not in (own, "str") and (own, target) != ("bool", "int")) or (target == "int" and wide)


def _as(value: pl.Expr, dtype: pl.DataType, target: DType) -> pl.Expr:
    """`value` as `target`; null where it does not fit."""
    text = _is_text(dtype)
    if target == "float":
        return _number(value, dtype)
    if target == "int":
        return _integer(value, dtype)
    if target == "bool":
        return _truth(value, dtype)
    if target == "date" and text:
        return iso_text.days(_plain(value))
    if target in ("date", "bytes") and natural_type(dtype) not in (target, "time", "str"):
        return pl.when(value.is_null()).then(None).cast(POLARS[target])
    return value.cast(POLARS[target], strict=False)


def _is_text(dtype: pl.DataType) -> bool:
    return isinstance(dtype, (pl.String, pl.Categorical, pl.Enum))


def _number(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Duration):
        return value.dt.total_microseconds() / 1_000_000
    number = _plain(value) if _is_text(dtype) else value
    return number.cast(pl.Float64, strict=False).fill_nan(None)


def _plain(value: pl.Expr) -> pl.Expr:
    return value.cast(pl.String).str.strip_chars()


def _integer(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if _is_text(dtype):
        whole = _plain(value)
        number = whole.cast(pl.Float64, strict=False)
        rounded = pl.when(number == number.floor()).then(number).cast(pl.Int64, strict=False)
        return pl.coalesce(whole.cast(pl.Int64, strict=False), rounded)
    if natural_type(dtype) == "float":
        number = value.cast(pl.Float64, strict=False)
        return pl.when(number == number.floor()).then(number).cast(pl.Int64, strict=False)
    if natural_type(dtype) in ("int", "bool"):
        return value.cast(pl.Int64, strict=False)
    return pl.when(value.is_null()).then(None).cast(pl.Int64)


def _truth(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Boolean):
        return value
    text = _plain(value).str.to_lowercase().str.replace(r"\.0$", "")
    return pl.when(text.is_in(TRUE)).then(True).when(text.is_in(FALSE)).then(False)  # noqa: FBT003


def _time(name: str, dtype: pl.DataType, zone: str | None, spec: SourceSpec) -> Cast:
    value = pl.col(name)
    if isinstance(dtype, pl.Null):
        return Cast(name, "time", value.cast(UTC_MICROS).alias(name), empty=True)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return Cast(name, "time", value.dt.convert_time_zone("UTC").dt.cast_time_unit("us").alias(name))
    if isinstance(dtype, (pl.Datetime, pl.Date)):
        local = value.cast(pl.Datetime("us"))
        expr = to_utc(local, zone or "UTC")
        missing = value.is_not_null() if zone is None else None
        return Cast(name, "time", expr.alias(name), zone=zone, present=value.is_not_null(), zoneless=missing)
    if _is_text(dtype):
        return _time_of_text(name, zone, spec)
    if natural_type(dtype) in ("int", "float"):
        return Cast(name, "time", _of_epoch(value).alias(name), present=value.is_not_null())
    return Cast(name, "time", pl.lit(None, UTC_MICROS).alias(name), present=value.is_not_null())


def _of_epoch(value: pl.Expr) -> pl.Expr:
    """Seconds or milliseconds since 1970 UTC as a time; null where neither gives one from 2000 to 2100."""
    low, high = EPOCH
    seconds = pl.when(value.is_between(low, high)).then(value.cast(pl.Float64) * 1_000_000)
    micros = seconds.when(value.is_between(low * 1000, high * 1000)).then(value.cast(pl.Float64) * 1000)
    return micros.round().cast(pl.Int64).cast(UTC_MICROS)


def _time_of_text(name: str, zone: str | None, spec: SourceSpec) -> Cast:
    """ISO 8601 text, each row with its own offset or none; or dates in the declared format."""
    text = _plain(pl.col(name))
    if spec.missing:
        text = pl.when(~text.is_in(spec.missing)).then(text)
    present = text.is_not_null() & (text != "")
    zoneless = present & ~iso_text.has_offset(text) if zone is None else None
    expr = iso_text.moments(text, zone, spec.date_formats.get(name))
    return Cast(name, "time", expr.alias(name), zone=zone, present=present, zoneless=zoneless)


def refuse_zoneless(cast: Cast, source: str) -> None:
    """Raise DataError for a time column of local times only, without a declared zone."""
    raise DataError(
        f'source {source}: the times in column "{cast.name}" have no zone',
        subject=cast.name,
        hint=f"declare it: event_time: {{column: {cast.name}, zone: UTC}} (or the zone in which they were written)",
    )
