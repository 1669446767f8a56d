"""Columns that are declared as paths into structs and JSON objects: `columns: {city: address.city}`.

A row without a value there has null. One with an object or a list there, or a plain value on the way, is refused with
the rule `COLUMN:path`; a Parquet or ORC file of such a type is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import polars as pl

from cumulant.core.errors import DataError
from cumulant.data.column_paths import paths_of
from cumulant.data.formats.json_limits import is_deep
from cumulant.data.row_columns import ROW, RULE

_LOW, _HIGH = -(2**63), 2**63 - 1


class Leaves(NamedTuple):
    """Values by column and row, and of refused rows the column with its invalid value."""

    values: dict[str, list[Any]]
    refused: dict[int, tuple[str, Any]]

    def of(self, names: Iterable[str]) -> Leaves:
        """The values of these columns; all of the others are null, for which no row is refused."""
        return Leaves({name: self.values[name] for name in names}, self.refused)


def with_nested(rows: pl.DataFrame, columns: Mapping[str, str], url: str) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """`rows` with the declared columns in place of their structs and JSON texts, and the refused rows.

    Raises:
        DataError: a path leads through a plain column or ends at a list or struct, or the file has the column too.
    """
    paths = {name: path for name, path in paths_of(columns).items() if path[0] in rows.columns}
    texts = sorted({path[0] for path in paths.values() if rows[path[0]].dtype == pl.String()})
    leaves = leaves_of(_texts(rows, texts), {name: path for name, path in paths.items() if path[0] in texts})
    typed = {name: _leaf(rows.schema, name, path, url) for name, path in paths.items() if path[0] not in texts}
    return replace_roots(rows, {path[0] for path in paths.values()}, typed, leaves, url)


def columns_of(schema: Mapping[str, pl.DataType]) -> tuple[dict[str, str], list[str]]:
    """Columns that can be declared for fields of structs, name to path; and paths of lists or names with points."""
    columns: dict[str, str] = {}
    left_out: list[str] = []
    for path, dtype in _fields(schema):
        name = "_".join(path)
        if isinstance(dtype, pl.List | pl.Array) or any("." in field or not field for field in path):
            left_out.append(".".join(path))
            continue
        while name in columns or name in schema:
            name += "_"
        columns[name] = ".".join(path)
    return columns, left_out


def _fields(schema: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path and type of all that structs hold."""
    for name, dtype in schema.items():
        if isinstance(dtype, pl.Struct):
            yield from _fields({field.name: field.dtype for field in dtype.fields}, (*above, name))
        elif above:
            yield (*above, name), dtype


def replace_roots(
    rows: pl.DataFrame,
    roots: Collection[str],
    typed: Mapping[str, pl.Expr],
    leaves: Leaves,
    url: str,
    *,
    types: Mapping[str, pl.DataType] | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """`rows` with the columns that were taken from `roots` in place of these; and the refused rows.

    `types`: those of the leaves where the rows are a piece of a file; None: they are the whole file.

    Raises:
        DataError: a column is there already, or all rows of the file are refused.
    """
    for name in [*typed, *leaves.values]:
        if name in rows.columns and name not in roots:
            raise DataError(
                f'{url} has a column "{name}", which `columns` takes from a path too',
                subject=name,
                hint="give the one under `columns` another name",
            )
    others = [rows[name] for name in rows.columns if name not in roots]
    fields = rows.with_columns(expr.alias(f"__{name}") for name, expr in typed.items())
    taken = [fields[f"__{name}"].alias(name) for name in typed]
    values = (
        series_of(name, own) if types is None else as_type(name, own, types[name])
        for name, own in leaves.values.items()
    )
    rows = pl.DataFrame([*others, *taken, *values])
    if not leaves.refused:
        return rows, None
    if types is None and len(leaves.refused) == max(map(len, leaves.values.values())):
        raise DataError(
            f"{url}: none of its {rows.height:,} rows has plain values at the paths that `columns` declares",
            subject=url,
            hint="declare paths that end at plain values",
        )
    whole = rows.with_row_index(ROW).filter(~pl.col(ROW).is_in(list(leaves.refused))).drop(ROW)
    return whole, refused_rows(rows, leaves.refused, "path")


def leaves_of(objects: Iterable[Any], paths: Mapping[str, tuple[str, ...]]) -> Leaves:
    """The values at `paths` of each object, which maps columns to what they hold."""
    values: dict[str, list[Any]] = {name: [] for name in paths}
    refused: dict[int, tuple[str, Any]] = {}
    if not paths:
        return Leaves(values, refused)
    for position, item in enumerate(objects):
        for name, path in paths.items():
            value, fits = _walk(item, path)
            values[name].append(value if fits else None)
            if not fits:
                refused.setdefault(position, (name, value))
    return Leaves(values, refused)


def _walk(value: Any, path: tuple[str, ...]) -> tuple[Any, bool]:
    """The value at the path, and whether it is a plain value or absent."""
    for name in path:
        if value is None:
            return None, True
        if not isinstance(value, dict):
            return value, False
        value = value.get(name)
    return value, not isinstance(value, dict | list)


def _texts(rows: pl.DataFrame, names: list[str]) -> Iterator[dict[str, Any]]:
    """Of each row, the decoded JSON texts in these columns."""
    for texts in zip(*(rows[name] for name in names), strict=True):
        yield {name: _decoded(text) for name, text in zip(names, texts, strict=True)}


def _decoded(text: str | None) -> Any:
    """A text that is not JSON, or nested too deep, stays text, in which there is no path."""
    if text is None or not text.strip():
        return None
    if is_deep(text):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _leaf(schema: pl.Schema, name: str, path: tuple[str, ...], url: str) -> pl.Expr:
    """The values at a path through structs; nulls where the file has no such field."""
    dtype: Any = schema[path[0]]
    expr = pl.col(path[0])
    for index, field in enumerate(path[1:], 1):
        if dtype == pl.Null():
            return pl.lit(None)
        if not isinstance(dtype, pl.Struct):
            raise _no_value(name, path[:index], dtype, url)
        fields = {inner.name: inner.dtype for inner in dtype.fields}
        if field not in fields:
            return pl.lit(None)
        dtype, expr = fields[field], expr.struct.field(field)
    if isinstance(dtype, pl.List | pl.Array | pl.Struct):
        raise _no_value(name, path, dtype, url)
    return expr


def _no_value(name: str, path: tuple[str, ...], dtype: Any, url: str) -> DataError:
    place = ".".join(path)
    if isinstance(dtype, pl.List | pl.Array):
        message = f"{url}: the path of {name} leads to a list, {place}, which no feature can read"
        hint = f"leave {name} out of `columns`, and take its length or one of its values as a new column in `prepare`"
    elif isinstance(dtype, pl.Struct):
        fields = ", ".join(f"{place}.{field.name}" for field in dtype.fields[:5])
        message, hint = f"{url}: the path of {name} ends at a struct, {place}", f"name one of its fields: {fields}"
    else:
        message = f"{url}: the path of {name} leads through {place}, which holds plain values and no struct"
        hint = f"declare a path that the file has, or leave {name} out of `columns`"
    return DataError(message, subject=name, hint=hint)


def series_of(name: str, values: list[Any]) -> pl.Series:
    """Values of one type as they are, whole numbers beside fractions as fractions, and others as text."""
    return as_type(name, values, type_of(kinds_of(values)))


def kinds_of(values: Sequence[Any]) -> set[str]:
    """The names of the types of plain values; whole numbers of more than 64 bits are `long`."""
    kinds = {type(value).__name__ for value in values if value is not None}
    if "int" in kinds and any(type(value) is int and not _LOW <= value <= _HIGH for value in values):
        kinds.add("long")
    return kinds


def type_of(kinds: set[str]) -> pl.DataType:
    """The type of a column that holds values of these kinds."""
    if not kinds:
        return pl.Null()
    if kinds == {"bool"}:
        return pl.Boolean()
    if kinds == {"int"}:
        return pl.Int64()
    return pl.Float64() if "float" in kinds and kinds <= {"int", "long", "float"} else pl.String()


def as_type(name: str, values: list[Any], dtype: pl.DataType) -> pl.Series:
    """Values as a column of the type that `type_of` has for their kinds, or for more kinds than theirs."""
    if dtype == pl.Float64():
        values = [None if value is None else float(value) for value in values]
    elif dtype == pl.String():
        values = [None if value is None else _as_text(value) for value in values]
    return pl.Series(name, values, dtype)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def refused_rows(rows: pl.DataFrame, refused: Mapping[int, tuple[str, Any]], rule: str) -> pl.DataFrame:
    """The refused rows as text, under the rule `COLUMN:rule` of each one's column, with the invalid value."""
    plain = [name for name, dtype in rows.schema.items() if not dtype.is_nested()]
    texts = rows[list(refused)].select(pl.col(plain).cast(pl.String, strict=False))
    for name in {name for name, _ in refused.values()}:
        there = [_as_text(value) if column == name else None for column, value in refused.values()]
        column = texts[name] if name in texts.columns else pl.Series(name, [None] * len(there), pl.String())
        texts = texts.with_columns(pl.coalesce(pl.Series(name, there, pl.String()), column).alias(name))
    rules = pl.Series(RULE, [f"{name}:{rule}" for name, _ in refused.values()])
    return texts.select(rules, pl.Series(ROW, list(refused), pl.Int64()), pl.all())
