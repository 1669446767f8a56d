"""Messages of Avro as objects of JSON: by the schema that each was written with."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from io import BytesIO
from typing import Any
from uuid import UUID

import msgspec

from cumulant.data.streams.registered.avro_limits import (
    MOST_CHARACTERS,
    UnusableSchemaError,
    check_avro,
    is_deep_text,
)
from cumulant.data.streams.registered.framing import HEAD, FieldPath, Reader
from cumulant.ports.streams import RegisteredSchema

#: what the library raises where bytes do not fit a schema
_FAULTS = (EOFError, LookupError, ValueError, TypeError, ArithmeticError, AttributeError, OSError, struct.error)
#: types whose values JSON has too
_SAME = frozenset({"null", "boolean", "int", "long", "float", "double", "string", "enum"})
#: types that the library reads as times or dates
_TIMES = frozenset(
    {
        *("long-timestamp-millis", "long-timestamp-micros", "int-date", "int-time-millis", "long-time-micros"),
        *("long-local-timestamp-millis", "long-local-timestamp-micros"),
    }
)
#: keys by which the library knows a schema that it has parsed itself, and would not check again
_INTERNAL = ("__fastavro_parsed", "__named_schemas")

#: the rule that a message breaks which is none of its schema
NOT_AVRO = "row:avro"


def avro_reader(schema: RegisteredSchema, texts: frozenset[FieldPath]) -> Reader:
    """What reads messages of a schema. `texts`: the paths at which bytes are UTF-8 and decimals are exact texts.

    Raises:
        UnusableSchemaError: no message can be read by it, or it is no record.
    """
    import fastavro

    parsed, named = _parse(schema)
    if not isinstance(parsed, dict) or parsed.get("type") != "record":
        raise UnusableSchemaError("it is no record")
    check_avro(parsed, named)
    changes = {
        field["name"]: _iso if _is_time(field["type"]) else _change((field["name"],), texts)
        for field in parsed["fields"]
        if not _is_same(field["type"])
    }
    decode = fastavro.schemaless_reader

    def read(value: bytes) -> dict[str, Any] | str:
        stream = BytesIO(value)
        stream.seek(HEAD)
        try:
            record: Any = decode(stream, parsed, None)
            whole = stream.tell() == len(value)
        except _FAULTS:
            return NOT_AVRO
        if not whole:
            return NOT_AVRO
        for name, change in changes.items():
            record[name] = change(record[name])
        return record  # type: ignore[no-any-return]

    return read


def _parse(schema: RegisteredSchema) -> tuple[Any, dict[str, Any]]:
    from fastavro.schema import SchemaParseException, UnknownType, parse_schema

    texts = [text for _, text in schema.imports]
    texts.append(schema.text)
    if sum(map(len, texts)) > MOST_CHARACTERS or any(is_deep_text(text) for text in texts):
        raise UnusableSchemaError("it is too large")
    if any(key in text for key in _INTERNAL for text in texts):
        raise UnusableSchemaError("it has a key that no schema has")
    named: dict[str, Any] = {}
    parsed: Any = None
    try:
        for text in texts:
            parsed = parse_schema(msgspec.json.decode(text), named)
    except (SchemaParseException, UnknownType, msgspec.MsgspecError, RecursionError, *_FAULTS) as error:
        raise UnusableSchemaError(f"it is no schema: {type(error).__name__}") from None
    return parsed, named


def _is_same(schema: Any) -> bool:
    """Whether the values of a type are those of JSON."""
    if isinstance(schema, list):
        return all(_is_same(branch) for branch in schema)
    if isinstance(schema, str):
        return schema in _SAME
    return schema["type"] in _SAME and "logicalType" not in schema


def _is_time(schema: Any) -> bool:
    """Whether the values are times or dates, or null."""
    if isinstance(schema, list):
        return all(branch == "null" or _is_time(branch) for branch in schema)
    return isinstance(schema, dict) and f"{schema['type']}-{schema.get('logicalType')}" in _TIMES


def _iso(value: Any) -> str | None:
    return None if value is None else value.isoformat()


def _change(path: FieldPath, texts: frozenset[FieldPath]) -> Callable[[Any], Any]:
    as_text = path in texts
    below: dict[str, Callable[[Any], Any]] = {}

    def change(value: Any) -> Any:
        if isinstance(value, dict):
            for name, inner in value.items():
                if type(inner) not in _AS_THEY_ARE:
                    own = below.get(name)
                    if own is None:
                        own = _change((*path, name), texts)
                        if len(below) < _MOST_NAMES:
                            below[name] = own
                    value[name] = own(inner)
            return value
        return _plain(value, as_text=as_text)

    return change


_AS_THEY_ARE = frozenset({type(None), bool, int, float, str, list})
#: names of fields, or keys of maps, of which one is kept each
_MOST_NAMES = 10_000


def _plain(value: Any, *, as_text: bool) -> Any:
    """A value as JSON has it. Bytes that are no text stay bytes, which no column takes."""
    match value:
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            if as_text:
                return format(value, "f")
            return int(value) if value.as_tuple().exponent == 0 else float(value)
        case bytes():
            return text_of(value) if as_text else value
        case UUID():
            return str(value)
    return value


def text_of(value: bytes) -> str | bytes:
    """Bytes as the text that they are in UTF-8; as they came where they are none."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
