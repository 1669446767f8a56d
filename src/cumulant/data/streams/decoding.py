"""Messages as rows: each is one JSON object, or one of another format. One that fits no table is refused alone.

Each message is decoded by itself, and what the declaration and earlier batches say of its fields decides whether it is
refused. Only the kind of a field that none of them knows is that which most messages of the batch have.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import polars as pl

from cumulant.core.plan import DType
from cumulant.data.column_paths import paths_of
from cumulant.data.formats.json_faults import BLANK, NOT_JSON
from cumulant.data.formats.json_limits import DEPTH, MOST_FIELDS, MOST_LEVELS, is_deep
from cumulant.data.formats.nested_paths import leaves_of
from cumulant.data.spec import SourceSpec
from cumulant.data.streams.kinds import Reading, column_of, count_kinds, fault_of, may_have_faults, reading_of
from cumulant.data.streams.typed_decoding import decode_typed

#: the rules that a message without a value breaks, or with an object without a field; and one with too many fields
EMPTY, FIELDS = "row:empty", "row:fields"
#: the number of a row's message
MESSAGE = "__message"
#: types whose values are in no column
_NO_VALUES = frozenset({dict, list, bytes})
#: values of a batch's table, missing ones included, up to which new fields are taken; or one for each byte of messages,
#: which messages that all have the same fields cannot reach
_MOST_VALUES = 1 << 25


class Decoded(NamedTuple):
    """The rows of messages as they came, with the number of each one's message; number to rule of those refused."""

    rows: pl.DataFrame
    refused: dict[int, str]


#: the fields of each of these messages, by its number; those that have none are added to the refused ones
ObjectDecoder = Callable[[Mapping[int, bytes], dict[int, str]], dict[int, dict[str, Any]]]
#: the fields of each message; and those of all: the numbers of the messages that have a field, and their values
_Objects = Mapping[int, dict[str, Any]]
_Cells = dict[str, tuple[list[int], list[Any]]]


class _Misfit(NamedTuple):
    """What is wrong with a field of a message."""

    field: str
    fault: str


def decode(
    values: Sequence[bytes | None],
    spec: SourceSpec,
    known: Mapping[str, DType],
    schema: Mapping[str, pl.DataType] | None = None,
    decoder: ObjectDecoder | None = None,
) -> Decoded:
    """The rows of messages, with the declared columns that are taken from paths. `known`: types of earlier messages;
    `schema`: the columns of the messages just before, under which these are tried first. `decoder`: of another format
    than JSON, which raises what its own description says.
    """
    if decoder is not None:
        return _decode_others(values, spec, known, decoder)
    refused: dict[int, str] = {}
    filled: dict[int, bytes] = {}
    for number, value in enumerate(values):
        if value is not None and (value[:2] == b'{"' or not _is_empty(value)):
            filled[number] = value
        else:
            refused[number] = EMPTY
    quick = None if schema is None or spec.columns else _decode_quickly(filled, spec, known, schema)
    rows, more = quick or _decode_each(filled, spec, known)
    return Decoded(rows, refused | more)


def _decode_others(
    values: Sequence[bytes | None], spec: SourceSpec, known: Mapping[str, DType], decoder: ObjectDecoder
) -> Decoded:
    filled = {number: value for number, value in enumerate(values) if value}
    refused = {number: EMPTY for number, value in enumerate(values) if not value}
    objects = decoder(filled, refused)
    without = [number for number, fields in objects.items() if not fields]
    refused |= dict.fromkeys(without, EMPTY)
    for number in without:
        del objects[number]
    rows, more = _rows_of(objects, sum(map(len, filled.values())), spec, known)
    return Decoded(rows, refused | more)


def _is_empty(value: bytes) -> bool:
    text = value.strip(BLANK)
    return not text or (text[:1] == b"{" and text[1:].strip(BLANK) == b"}")


def _decode_quickly(
    filled: Mapping[int, bytes], spec: SourceSpec, known: Mapping[str, DType], schema: Mapping[str, pl.DataType]
) -> Decoded | None:
    """The rows of messages of which all have the columns of `schema`, or are refused; None: some have others."""
    numbers, texts = list(filled), list(filled.values())
    typed = decode_typed(texts, schema)
    if typed is None:
        return None
    others = {numbers[place]: texts[place] for place in typed.others}
    texts_before: dict[str, DType] = {name: "str" for name, dtype in schema.items() if dtype == pl.String()}
    decoded = _decode_each(others, spec, texts_before | dict(known), schema)
    if decoded.rows.height:
        return None
    messages = numbers if not others else [numbers[place] for place in typed.places]
    return Decoded(typed.rows.with_columns(pl.Series(MESSAGE, messages, dtype=pl.Int64)), decoded.refused)


def _decode_each(
    filled: Mapping[int, bytes], spec: SourceSpec, known: Mapping[str, DType], names: Collection[str] = ()
) -> Decoded:
    """The rows of messages under their own types. `names`: columns besides those that are known."""
    refused: dict[int, str] = {}
    objects = _objects_of(filled, refused)
    rows, more = _rows_of(objects, sum(map(len, filled.values())), spec, known, names)
    return Decoded(rows, refused | more)


def _rows_of(
    objects: _Objects, size: int, spec: SourceSpec, known: Mapping[str, DType], names: Collection[str] = ()
) -> Decoded:
    """The objects as rows. `size`: the bytes of their messages."""
    refused: dict[int, str] = {}
    misfits: dict[int, _Misfit] = {}
    if spec.columns:
        objects = _with_paths(objects, spec, misfits)
    cells = _cells_of(objects)
    for name, (numbers, values) in cells.items():
        if _is_reserved(name) or not _NO_VALUES.isdisjoint(map(type, values)):
            _set_nested_apart(name, numbers, values, misfits)
    objects, cells = _without(objects, cells, misfits)
    declared = {*spec.columns, *spec.rules, *spec.keys}
    wide = _too_wide(objects, cells.keys(), {*known, *declared}, size)
    refused |= dict.fromkeys(wide, FIELDS)
    objects, cells = _without(objects, cells, wide)
    readings = {name: reading_of(name, spec, known, count_kinds(values)) for name, (_, values) in cells.items()}
    for name, (numbers, values) in cells.items():
        if may_have_faults(values, readings[name]):
            for number, value in zip(numbers, values, strict=True):
                if value is not None and (fault := fault_of(value, readings[name])) is not None:
                    misfits.setdefault(number, _Misfit(name, fault))
    objects, cells = _without(objects, cells, misfits)
    frame = _frame(list(objects), cells, readings)
    named = {*known, *declared, *names, *frame.columns}  # any other name may be personal
    for number, (name, fault) in misfits.items():
        refused[number] = f"{name if name in named else 'row'}:{fault}"
    return Decoded(frame, refused)


def _objects_of(filled: Mapping[int, bytes], refused: dict[int, str]) -> dict[int, dict[str, Any]]:
    """The fields with a value of each message; those that are no JSON object are `refused`."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    objects = {}
    for number, value in filled.items():
        if value.count(b"{") + value.count(b"[") > MOST_LEVELS and _is_deep(value):
            refused[number] = DEPTH
            continue
        try:
            objects[number] = decoder.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            refused[number] = NOT_JSON
    return objects


def _is_reserved(name: str) -> bool:
    """Whether a table cannot have this column, or a journal not name it: control characters and lone surrogates."""
    return name.startswith("__") or any(sign < " " or "\ud800" <= sign <= "\udfff" for sign in name)


def _is_deep(value: bytes) -> bool:
    return value.strip(BLANK)[:1] == b"{" and is_deep(value.decode("utf-8", errors="replace"))


def _with_paths(
    objects: Mapping[int, dict[str, Any]], spec: SourceSpec, misfits: dict[int, _Misfit]
) -> dict[int, dict[str, Any]]:
    """The objects with the declared columns in place of the fields in which their paths begin."""
    paths = paths_of(spec.columns)
    roots = {path[0] for path in paths.values()}
    leaves = leaves_of(objects.values(), paths)
    result = {}
    for place, (number, fields) in enumerate(objects.items()):
        own = {name: value for name, value in fields.items() if name not in roots}
        if place in leaves.refused:
            misfits[number] = _Misfit(leaves.refused[place][0], "path")
            continue
        both = next((name for name in paths if own.get(name) is not None), None)
        if both is not None:  # beside the value at the path
            misfits[number] = _Misfit(both, "path")
            continue
        result[number] = own | {name: leaves.values[name][place] for name in paths}
    return result


def _cells_of(objects: _Objects) -> _Cells:
    first = next(iter(objects.values()), {})
    if all(fields.keys() == first.keys() for fields in objects.values()):  # as most are, which is quick
        numbers, every = list(objects), list(objects.values())
        return {name: (numbers, [fields[name] for fields in every]) for name in first}
    cells: _Cells = {}
    for number, fields in objects.items():
        for name, value in fields.items():
            cell = cells.get(name)
            if cell is None:
                cell = cells[name] = ([], [])
            cell[0].append(number)
            cell[1].append(value)
    return cells


def _without(objects: _Objects, cells: _Cells, numbers: Container[int]) -> tuple[_Objects, _Cells]:
    remaining = {number: fields for number, fields in objects.items() if number not in numbers}
    return (objects, cells) if len(remaining) == len(objects) else (remaining, _cells_of(remaining))


def _set_nested_apart(name: str, numbers: list[int], values: list[Any], misfits: dict[int, _Misfit]) -> None:
    """Add the messages with a field that no table can have."""
    reserved = _is_reserved(name)
    for number, value in zip(numbers, values, strict=True):
        if value is not None and (reserved or type(value) in _NO_VALUES):
            fault = "name" if reserved else "bytes" if type(value) is bytes else "nested"
            misfits.setdefault(number, _Misfit(name, fault))


def _too_wide(objects: _Objects, fields: Collection[str], names: set[str], size: int) -> set[int]:
    """The messages whose new fields do not fit into a table. `names`: those that are there already."""
    most = min(MOST_FIELDS, len(names) + max(_MOST_VALUES, size) // max(len(objects), 1))
    wide: set[int] = set()
    if len(names.union(fields)) <= most:
        return wide
    for number, own in objects.items():
        new = own.keys() - names
        if new and len(names) + len(new) > most:
            wide.add(number)
        else:
            names |= new
    return wide


def _frame(numbers: list[int], cells: _Cells, readings: Mapping[str, Reading]) -> pl.DataFrame:
    """The rows, with one column for each field; one at a time, since few messages may have most of them."""
    places = {number: place for place, number in enumerate(numbers)}
    columns: dict[str, pl.Series] = {}  # by name: the engine gives a column without one another name in a list
    for name in [name for name in cells if not _is_reserved(name)]:
        owners, values = cells.pop(name)
        rows = [places[number] for number in owners] if len(owners) < len(numbers) else range(len(numbers))
        columns[name] = column_of(name, values, rows, len(numbers), readings[name])
    return pl.DataFrame({**columns, MESSAGE: pl.Series(numbers, dtype=pl.Int64())})
