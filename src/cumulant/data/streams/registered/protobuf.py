"""Messages of Protobuf as objects of JSON: by the message type that each names."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from cumulant.data.formats.json_limits import DEPTH, MOST_FIELDS, MOST_LEVELS
from cumulant.data.streams.registered.avro import text_of
from cumulant.data.streams.registered.avro_limits import UnusableSchemaError
from cumulant.data.streams.registered.framing import FieldPath, Reader, message_type
from cumulant.ports.streams import RegisteredSchema

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
    from google.protobuf.descriptor_pool import DescriptorPool

#: the rules that a message breaks which is none of its schema, and one with too many values
NOT_PROTOBUF, _FIELDS = "row:protobuf", "row:fields"
_ROOT = "(schema)"
#: what the library raises for bytes that are no descriptor, or one of files that are not there
_FAULTS = (TypeError, KeyError, ValueError)
_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_TEXTS = frozenset(f"google.protobuf.{name}" for name in ("Timestamp", "Duration", "FieldMask"))


class _RefusedMessageError(Exception):
    """A message that breaks the rule which is the argument."""


class _Field(NamedTuple):
    """`implicit`: whether a message always has a value there. `change`: what makes it one of JSON; None: it is one."""

    name: str
    implicit: bool
    change: Callable[[Any], Any] | None


def protobuf_reader(schema: RegisteredSchema, texts: frozenset[FieldPath]) -> Reader:
    """What reads messages of a schema. `texts`: the paths at which bytes are UTF-8.

    Raises:
        UnusableSchemaError: it is no schema of Protobuf.
    """
    from google.protobuf.message import DecodeError
    from google.protobuf.message_factory import GetMessageClass

    file = _file(schema)
    types: dict[tuple[int, ...], tuple[Callable[[bytes], Any], _Messages]] = {}

    def read(value: bytes) -> dict[str, Any] | str:
        place = message_type(value)
        if place is None:
            return NOT_PROTOBUF
        if place.indexes not in types:
            descriptor = _descriptor(file, place.indexes)
            if descriptor is None:
                return NOT_PROTOBUF
            own: Any = GetMessageClass(descriptor)
            types[place.indexes] = (own.FromString, _Messages(descriptor, texts))
        parse, messages = types[place.indexes]
        try:
            return messages.object_of(parse(value[place.begin :]))
        except _RefusedMessageError as error:
            return str(error)
        except (DecodeError, ValueError, OverflowError):  # times that are none, and texts that are no UTF-8
            return NOT_PROTOBUF

    return read


def _file(schema: RegisteredSchema) -> FileDescriptor:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import DecodeError

    pool = DescriptorPool()
    known: set[str] = set()
    try:
        for name, text in [*schema.imports, (_ROOT, schema.text)]:
            proto = FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
            proto.name = name
            for needed in proto.dependency:
                if needed not in known and needed.startswith("google/protobuf/"):
                    _add_standard(pool, needed, known)
            pool.AddSerializedFile(proto.SerializeToString())
            known.add(name)
        return pool.FindFileByName(_ROOT)
    except (DecodeError, binascii.Error, RecursionError, *_FAULTS) as error:
        raise UnusableSchemaError(f"it is no schema of Protobuf: {type(error).__name__}") from None


def _add_standard(pool: DescriptorPool, name: str, known: set[str]) -> None:
    """Add one of the files that come with Protobuf, and those that it needs."""
    from google.protobuf import (  # noqa: F401  # each adds its file to the pool of all
        any_pb2,
        descriptor_pb2,
        descriptor_pool,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        struct_pb2,
        timestamp_pb2,
        wrappers_pb2,
    )

    file = descriptor_pool.Default().FindFileByName(name)
    for needed in file.dependencies:
        if needed.name not in known:
            _add_standard(pool, needed.name, known)
    pool.AddSerializedFile(file.serialized_pb)
    known.add(name)


def _descriptor(file: FileDescriptor, indexes: tuple[int, ...]) -> Descriptor | None:
    types = list(file.message_types_by_name.values())
    descriptor: Descriptor | None = None
    for index in indexes:
        if index >= len(types):
            return None
        descriptor = types[index]
        types = list(descriptor.nested_types)
    return descriptor


class _Messages:
    """Makes objects of messages of one type. For one thread."""

    def __init__(self, descriptor: Descriptor, texts: frozenset[FieldPath]) -> None:
        self._texts, self._left = texts, 0
        self._fields_by_path: dict[tuple[FieldPath, str], list[_Field]] = {}
        self._root = descriptor

    def object_of(self, message: Any) -> dict[str, Any]:
        """Raises _RefusedMessageError: it has too many levels or values."""
        self._left = MOST_FIELDS
        return self._object(message, self._root, ())

    def _object(self, message: Any, descriptor: Descriptor, path: FieldPath) -> dict[str, Any]:
        fields = self._fields_by_path.get((path, descriptor.full_name))
        if fields is None:
            if len(path) >= MOST_LEVELS:
                raise _RefusedMessageError(DEPTH)
            fields = list(self._fields(descriptor, path))
            if len(self._fields_by_path) < MOST_FIELDS:
                self._fields_by_path[path, descriptor.full_name] = fields
        self._left -= len(fields)
        if self._left < 0:
            raise _RefusedMessageError(_FIELDS)
        result = {}
        for name, implicit, change in fields:
            if implicit or message.HasField(name):
                value = getattr(message, name)
                if change is not None:
                    value = change(value)
                if value is not None:  # a list without items, say, which JSON would not have
                    result[name] = value
        return result

    def _fields(self, descriptor: Descriptor, path: FieldPath) -> Iterator[_Field]:
        for field in descriptor.fields:
            implicit = field.is_repeated or not field.has_presence
            yield _Field(field.name, implicit, self._change(field, (*path, field.name)))

    def _change(self, field: FieldDescriptor, path: FieldPath) -> Callable[[Any], Any] | None:
        if field.is_repeated:
            kind = field.message_type
            return self._map_change(kind, path) if kind is not None and kind.GetOptions().map_entry else _list
        return self._single_change(field, path)

    def _single_change(self, field: FieldDescriptor, path: FieldPath) -> Callable[[Any], Any] | None:
        if field.type == field.TYPE_BYTES:
            return self._bytes_change(path)
        if field.enum_type is not None:
            names = {value.number: value.name for value in field.enum_type.values}
            return lambda number: names.get(number, number)
        return None if field.message_type is None else self._message_change(field.message_type, path)

    def _message_change(self, kind: Descriptor, path: FieldPath) -> Callable[[Any], Any]:
        name = kind.full_name
        if name in _WRAPPERS:
            inner = self._bytes_change(path) if name.endswith("BytesValue") else None
            return lambda message: message.value if inner is None else inner(message.value)
        if name in _TEXTS:
            return lambda message: message.ToJsonString()
        if name == "google.protobuf.Struct":
            return self._struct
        if name == "google.protobuf.Value":
            return self._struct_value
        return lambda message: self._object(message, kind, path)

    def _bytes_change(self, path: FieldPath) -> Callable[[Any], Any]:
        as_text = path in self._texts
        return lambda value: text_of(value) if as_text else (value or None)

    def _map_change(self, entry: Descriptor, path: FieldPath) -> Callable[[Any], Any]:
        def change(items: Any) -> dict[str, Any] | None:
            self._left -= len(items)
            if self._left < 0:
                raise _RefusedMessageError(_FIELDS)
            result = {}
            for key in items:
                name = str(key).lower() if isinstance(key, bool) else str(key)
                own = self._single_change(entry.fields_by_name["value"], (*path, name))
                result[name] = items[key] if own is None else own(items[key])
            return result or None

        return change

    def _struct(self, message: Any) -> dict[str, Any]:
        self._left -= len(message.fields)
        if self._left < 0:
            raise _RefusedMessageError(_FIELDS)
        return {name: self._struct_value(value) for name, value in message.fields.items()}

    def _struct_value(self, message: Any) -> Any:
        kind = message.WhichOneof("kind")
        if kind == "struct_value":
            return self._struct(message.struct_value)
        if kind == "list_value":
            return []
        return None if kind in (None, "null_value") else getattr(message, kind)


def _list(items: Any) -> list[Any] | None:
    """A list, which no column takes, whatever is in it; one without items is not in a message."""
    return [] if len(items) else None
