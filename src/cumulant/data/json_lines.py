"""JSON lines as a table, with the columns that are declared as paths into their objects."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import msgspec
import polars as pl

from cumulant.core.errors import DataError
from cumulant.data.csv_text import Table
from cumulant.data.json_limits import MOST_LEVELS, UNORDERED, Fields, lines_of, shape_of, without_deep
from cumulant.data.nested_paths import leaves_of, paths_of, replaced
from cumulant.data.records import POSITION

_KINDS: dict[type, str] = {list: "a list", dict: "an object"}
#: values from which the engine infers these types
_SAMPLES: dict[pl.DataType, Any] = {
    pl.Null(): None,
    pl.Boolean(): True,
    pl.Int64(): 1,
    pl.UInt64(): 1 << 63,
    pl.Int128(): 1 << 64,
    pl.Float64(): 0.5,
    pl.String(): "x",
}


def read_jsonl(content: bytes, url: str, columns: Mapping[str, str], memory: str | None = None) -> Table:
    """The rows of a JSON lines text, those apart that are nested too deep. `columns` and `memory`: as of `SourceSpec`.

    Raises:
        DataError: it is one array, a line is not JSON, all lines are nested too deep, or it has too many fields.
        polars.PolarsError: a line is not JSON, or a field holds values that have no common type.
    """
    if is_array(content):
        raise DataError(
            f"{url} is one JSON array", subject=url, hint="write JSON lines: one object a line, without commas between"
        )
    content, deep, places = without_deep(content)
    if deep is not None and not content.strip():
        raise DataError(
            f"{url}: all of its {deep.height:,} rows are nested more than {MOST_LEVELS} levels deep",
            subject=url,
            hint="write what is needed of them as fields of fewer levels",
        )
    if not columns:
        return Table(_frame(content, url, memory), refused=deep)
    paths = paths_of(columns)
    # The engine makes text of values of several types, which is not always JSON, and stops at structs beside lists.
    objects, rest = _split(content, url, {path[0] for path in paths.values()})
    roots = {name for item in objects for name in item}
    rows = _frame(rest, url, memory) if rest.strip(b"{}\n") else pl.DataFrame()
    leaves = leaves_of(objects, {name: path for name, path in paths.items() if path[0] in roots})
    rows, refused = replaced(rows, roots, {}, leaves, url)
    if deep is not None and refused is not None and places is not None:
        refused = refused.with_columns(places.gather(refused[POSITION]).alias(POSITION))
    found = [frame for frame in (deep, refused) if frame is not None]
    return Table(rows, refused=pl.concat(found, how="diagonal_relaxed") if found else None)


def is_array(content: bytes) -> bool:
    """Whether the text begins as one JSON array."""
    return content.lstrip()[:1] == b"["


def joint_types(content: bytes, before: pl.Schema) -> pl.Schema:
    """The types of the fields of JSON lines and of the lines before them, which have the types `before`; in the order
    in which the engine has them where it reads all at once, unless they are many.

    The engine joins the types of lines in their order, so one line with the types `before` stands for all before.

    Raises:
        LookupError: no line has the types `before`.
        polars.PolarsError: a line is not JSON, or a field holds values that have no common type.
    """
    if not before:
        return _types(content)
    line = msgspec.json.encode(_sample(pl.Struct(before))) + b"\n"
    found = _types(line)
    if dict(found) != dict(before) or (len(before) <= UNORDERED and list(found) != list(before)):
        raise LookupError(before)
    return _types(line + content)


def _types(content: bytes) -> pl.Schema:
    return pl.scan_ndjson(io.BytesIO(content), infer_schema_length=None).collect_schema()


def _sample(dtype: Any) -> Any:
    """A value of which the engine infers this type. Raises LookupError where there is none."""
    if isinstance(dtype, pl.Struct):
        return {field.name: _sample(field.dtype) for field in dtype.fields}
    if isinstance(dtype, pl.List):
        return [] if dtype.inner == pl.Null() else [_sample(dtype.inner)]
    return _SAMPLES[dtype]


def read_lines(content: bytes, schema: pl.Schema) -> pl.DataFrame:
    """JSON lines under types that `joint_types` has for them.

    Raises:
        polars.PolarsError: a line is no object, or holds a value that is not of its type.
    """
    return pl.read_ndjson(io.BytesIO(content), schema=schema)


def _frame(content: bytes, url: str, memory: str | None) -> pl.DataFrame:
    fields, schema = _fields(content, url, memory)
    try:
        rows = pl.read_ndjson(io.BytesIO(content), schema=schema, infer_schema_length=None)
    except pl.exceptions.PolarsError:
        refuse_mixed(content, url)
        raise
    if rows.width <= UNORDERED:
        return rows
    named = [name for name in fields.names if name in rows.columns]
    return rows.select([*named, *(name for name in rows.columns if name not in fields.names)])


def _fields(content: bytes, url: str, memory: str | None) -> tuple[Fields, pl.Schema | None]:
    """The fields of lines and their types together, None where only all lines at once tell these. Lines that are not
    JSON are passed over, with those around them.

    Raises:
        DataError: there are more fields than a table can have, or than fit into memory.
    """
    fields, shape = Fields(url, memory), shape_of(content)
    schema: pl.Schema | None = pl.Schema()
    for lines in lines_of(content, url):
        try:
            found = _types(lines) if schema is None else joint_types(lines, schema)
        except (LookupError, pl.exceptions.PolarsError):
            schema = None
            try:
                found = _types(lines)
            except pl.exceptions.PolarsError:
                continue
        schema = schema if schema is None else found
        fields.add(found, lines)
        fields.refuse_missing(*shape)
    return fields, schema or None


def refuse_mixed(content: bytes, url: str) -> None:
    """Raise DataError where a field holds plain values in some lines and lists or objects in others."""
    kinds: dict[str, str] = {}
    decoder = msgspec.json.Decoder()
    for number, line in enumerate(io.BytesIO(content), 1):
        try:
            item = decoder.decode(line) if line.strip() else {}
        except msgspec.MsgspecError:
            return  # it is no JSON, which is another fault
        for name, value in item.items() if isinstance(item, dict) else ():
            kind = _KINDS.get(type(value), "a plain value")
            if value is not None and kinds.setdefault(name, kind) != kind:
                raise DataError(
                    f'{url}: "{name}" holds {kind} in line {number:,} and {kinds[name]} before',
                    subject=name,
                    hint="write the field with one type, or leave it out of the lines that have no such value",
                )


def _split(content: bytes, url: str, wanted: set[str]) -> tuple[list[dict[str, Any]], bytes]:
    """The wanted columns of each line, of those that it has; and the lines without them."""
    objects, rest = [], bytearray()
    decoder, encoder = msgspec.json.Decoder(dict[str, Any]), msgspec.json.Encoder()
    for line in io.BytesIO(content):
        if not line.strip():
            continue
        try:
            item = decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise DataError(
                f"{url} has a line that is no JSON object: damaged or cut off",
                subject=url,
                hint="each line must be one JSON object",
            ) from error
        objects.append({name: item.pop(name) for name in wanted & item.keys()})
        rest += encoder.encode(item) + b"\n"
    return objects, bytes(rest)
