"""Messages that name registered schemas as objects, each by its own schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cumulant.core.errors import DataError, NotFoundError
from cumulant.data.column_paths import paths_of
from cumulant.data.spec import SourceSpec
from cumulant.data.streams.registered.avro import NOT_AVRO, avro_reader
from cumulant.data.streams.registered.avro_limits import UnusableSchemaError
from cumulant.data.streams.registered.framing import FieldPath, Reader, schema_number
from cumulant.data.streams.registered.protobuf import NOT_PROTOBUF, protobuf_reader
from cumulant.ports.streams import RegisteredSchema, SchemaKind, Schemas

#: the rule that a message breaks whose schema is not there, or cannot be used
SCHEMA = "row:schema"
#: the most schemas of which a reader is kept
_MOST_READERS = 1000
_READERS: Mapping[SchemaKind, Callable[[RegisteredSchema, frozenset[FieldPath]], Reader]] = {
    "avro": avro_reader,
    "protobuf": protobuf_reader,
}
_NOT_READ: Mapping[SchemaKind, str] = {"avro": NOT_AVRO, "protobuf": NOT_PROTOBUF}


class RegisteredDecoder:
    """Decodes the messages of one source. Schemas are asked for once; those that are not there once in each batch."""

    def __init__(self, schemas: Schemas, kind: SchemaKind, spec: SourceSpec) -> None:
        self._schemas, self._kind = schemas, kind
        paths = paths_of(spec.columns)
        self._texts = frozenset(paths.get(name, (name,)) for name, rule in spec.rules.items() if rule.type == "str")
        self._readers: dict[int, Reader | None] = {}

    def objects_of(self, values: Mapping[int, bytes], refused: dict[int, str]) -> dict[int, dict[str, Any]]:
        """The fields of each message; those that have none are `refused`.

        Raises:
            EngineUnavailableError, CredentialsError, StorageError: the registry does not answer as one.
        """
        objects = {}
        absent: set[int] = set()
        readers, not_read = self._readers, _NOT_READ[self._kind]
        for number, value in values.items():
            schema = schema_number(value)
            if schema is None:
                refused[number] = not_read
                continue
            if schema not in readers and schema not in absent:
                self._add_reader(schema, absent)
            reader = readers.get(schema)
            result = SCHEMA if reader is None else reader(value)
            if type(result) is str:
                refused[number] = result
            else:
                objects[number] = result
        return objects  # type: ignore[return-value]

    def _add_reader(self, number: int, absent: set[int]) -> None:
        try:
            schema = self._schemas.schema(number, self._kind)
        except (NotFoundError, DataError):
            absent.add(number)
            return
        reader: Reader | None = None
        if schema.kind == self._kind:
            try:
                reader = _READERS[self._kind](schema, self._texts)
            except UnusableSchemaError:
                reader = None
        if len(self._readers) >= _MOST_READERS:
            del self._readers[next(iter(self._readers))]
        self._readers[number] = reader
