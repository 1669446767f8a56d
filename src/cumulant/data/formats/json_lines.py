"""JSON lines as a table, with the columns that are declared as paths into their objects."""

from __future__ import annotations

import io
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import polars as pl

from cumulant.core.errors import DataError
from cumulant.data.column_paths import paths_of
from cumulant.data.formats.json_faults import (
    BLANK,
    NOT_JSON,
    RemainingLines,
    find_non_objects,
    has_other_values,
    set_aside,
    types_of,
)
from cumulant.data.formats.json_limits import MOST_LEVELS, UNORDERED, Fields, deep_lines, lines_of
from cumulant.data.formats.nested_paths import Leaves, leaves_of, replace_roots
from cumulant.data.row_columns import ROW
from cumulant.data.text.csv_text import FileTable

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


def read_jsonl(content: bytes, url: str, columns: Mapping[str, str], memory: int | None = None) -> FileTable:
    """The rows of a JSON lines text; those that are no objects or nested too deep apart.

    `columns` and `memory`: as of `SourceSpec`.

    Raises:
        DataError: it is one array or cut off, has no usable line, or too many fields.
        polars.PolarsError: a field holds values that have no common type.
    """
    content = content.removeprefix(BOM_UTF8)
    if is_array(content):
        raise DataError(
            f"{url} is one JSON array", subject=url, hint="write JSON lines: one object a line, without commas between"
        )
    faults = deep_lines(content)
    remaining = set_aside(content, faults)
    if remaining.refused is not None and not remaining.content.strip():
        raise DataError(
            f"{url}: all of its {remaining.refused.height:,} rows are nested more than {MOST_LEVELS} levels deep",
            subject=url,
            hint="write what is needed of them as fields of fewer levels",
        )
    if not columns:
        rows, bad = _frame(remaining.content, url, memory)
        return FileTable(rows, refused=set_aside(content, faults | bad).refused)
    return _with_paths(content, faults, url, columns, memory)


def _with_paths(
    content: bytes, faults: Mapping[int, str], url: str, columns: Mapping[str, str], memory: int | None
) -> FileTable:
    """The table of the lines without `faults`, with the declared columns."""
    paths = paths_of(columns)
    remaining = set_aside(content, faults)
    objects = split_paths(remaining.content, paths)
    bad = objects.faults
    if bad and not objects.rows:
        raise _no_object(remaining.content, url)
    _refuse_cut(remaining.content, bad, url)
    rows = pl.DataFrame()
    if not bad and objects.rest.strip(b"{}\n"):
        rows, bad = _frame(objects.rest, url, memory)
    if bad:
        return _with_paths(content, {**faults, **bad}, url, columns, memory)
    leaves = objects.leaves.of(name for name, path in paths.items() if path[0] in objects.roots)
    return build_table(*replace_roots(rows, objects.roots, {}, leaves, url), remaining)


def build_table(
    rows: pl.DataFrame, refused: pl.DataFrame | None, remaining: RemainingLines, first_row: int = 0
) -> FileTable:
    """The table of the `remaining` lines, which begin in this row of their file: `refused` beside those set aside."""
    if refused is not None:
        place = pl.col(ROW) + first_row if remaining.rows is None else remaining.rows.gather(refused[ROW])
        refused = refused.with_columns(place.alias(ROW))
    frames = [frame for frame in (remaining.refused, refused) if frame is not None]
    return FileTable(rows, refused=pl.concat(frames, how="diagonal_relaxed") if frames else None)


def is_array(content: bytes) -> bool:
    """Whether the text is one JSON array, and not lines of which the first is an array."""
    text = content.lstrip()
    if text[:1] != b"[":
        return False
    first, _, rest = text.partition(b"\n")
    try:
        msgspec.json.decode(first)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return True
    return not rest.strip()


def objects_of(lines: bytes, before: pl.Schema) -> tuple[pl.Schema | None, list[int]]:
    """The joint types of lines and those before (None: unknown), and the numbers of the lines that are not objects."""
    bad: list[int] = []
    try:
        if not has_other_values(lines):
            try:
                return joint_types(lines, before), bad
            except pl.exceptions.PolarsError:
                pass
        bad = find_non_objects(lines)
        remaining = set_aside(lines, dict.fromkeys(bad, NOT_JSON)).content
        return (joint_types(remaining, before) if remaining.strip() else before), bad
    except (LookupError, pl.exceptions.PolarsError):
        return None, bad


def joint_types(content: bytes, before: pl.Schema) -> pl.Schema:
    """The types of the fields of JSON lines and of the lines before them, which have the types `before`.

    The order is that of reading all at once, unless they are many.

    Raises:
        LookupError: no line has the types `before`.
        polars.PolarsError: a line is not JSON, or a field holds values that have no common type.
    """
    if not before:
        return types_of(content)
    line = msgspec.json.encode(_sample(pl.Struct(before))) + b"\n"
    inferred = types_of(line)
    if dict(inferred) != dict(before) or (len(before) <= UNORDERED and list(inferred) != list(before)):
        raise LookupError(before)
    return types_of(line + content)


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


def _frame(content: bytes, url: str, memory: int | None) -> tuple[pl.DataFrame, dict[int, str]]:
    """The rows of the lines that are JSON objects, and the numbers of the others."""
    fields, schema, faults = _fields(content, url, memory)
    remaining = set_aside(content, faults).content
    if faults and not remaining.strip():
        raise _no_object(content, url)
    _refuse_cut(content, faults, url)
    try:
        rows = pl.read_ndjson(io.BytesIO(remaining), schema=schema, infer_schema_length=None)
    except pl.exceptions.PolarsError:
        refuse_mixed(remaining, url)
        raise
    if rows.width <= UNORDERED:
        return rows, faults
    named = [name for name in fields.names if name in rows.columns]
    return rows.select([*named, *(name for name in rows.columns if name not in fields.names)]), faults


def _no_object(content: bytes, url: str) -> DataError:
    hint = "each line must be one JSON object"
    try:
        content.decode()
    except UnicodeDecodeError:
        return DataError(f"{url} is not UTF-8 text", subject=url, hint=f"convert it to UTF-8; {hint}")
    return DataError(f"{url} has no line that is a JSON object: damaged, or not in its format", subject=url, hint=hint)


def _refuse_cut(content: bytes, faults: Mapping[int, str], url: str) -> None:
    if is_cut(content, faults):
        raise DataError(
            f"{url} is cut off: its last line is not a whole JSON object", subject=url, hint="copy or write it again"
        )


def is_cut(content: bytes, faults: Mapping[int, str]) -> bool:
    """Whether the last line, which is among these, begins an object and has no line end."""
    last = content.rfind(b"\n") + 1
    return content[last : last + 1] == b"{" and faults.get(content.count(b"\n")) == NOT_JSON


def _fields(content: bytes, url: str, memory: int | None) -> tuple[Fields, pl.Schema | None, dict[int, str]]:
    """The fields of lines, their joint types (None: all lines are needed), and the lines that are not objects."""
    fields = Fields(url, memory)
    schema: pl.Schema | None = pl.Schema()
    faults: dict[int, str] = {}
    for before, lines in lines_of(content, url):
        inferred, bad = objects_of(lines, schema or pl.Schema())
        if inferred is None:
            inferred, bad = objects_of(lines, pl.Schema()) if schema else (None, bad)
            schema = None
        faults |= dict.fromkeys((before + number for number in bad), NOT_JSON)
        if inferred is None:
            continue
        schema = schema if schema is None else inferred
        fields.add(inferred, lines)
        fields.refuse_missing(content)
    return fields, schema or None, faults


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


class PathSplit(NamedTuple):
    """The values at paths of `rows` lines; `roots`: their first names, the lines without these, and the non-objects."""

    leaves: Leaves
    roots: set[str]
    rows: int
    rest: bytes
    faults: dict[int, str]


def split_paths(content: bytes, paths: Mapping[str, tuple[str, ...]]) -> PathSplit:
    """The values at the paths, parsed apart from the rest, since the engine fails on values of several types."""
    wanted, roots = {path[0] for path in paths.values()}, set[str]()
    rest, faults = bytearray(), dict[int, str]()
    decoder, encoder = msgspec.json.Decoder(dict[str, Any]), msgspec.json.Encoder()

    def objects() -> Iterator[dict[str, Any]]:
        for number, line in enumerate(io.BytesIO(content)):
            if line.strip(BLANK):
                try:
                    item = decoder.decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    faults[number] = NOT_JSON
                else:
                    values = {name: item.pop(name) for name in item.keys() & wanted}
                    roots.update(values)
                    rest.extend(encoder.encode(item))
                    yield values
            rest.extend(b"\n")

    # One object at a time: the garbage collector takes longer for many than the parser.
    leaves = leaves_of(objects(), paths)
    return PathSplit(leaves, roots, len(next(iter(leaves.values.values()))), bytes(rest), faults)
