"""Messages that name registered schemas as objects, each by its own schema."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
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
#: how many numbers of which there is no schema are asked for in one batch, and for how many seconds they are not again
_MOST_ABSENT, _ABSENT_SECONDS = 300, 60.0
_READERS: Mapping[SchemaKind, Callable[[RegisteredSchema, frozenset[FieldPath]], Reader]] = {
    "avro": avro_reader,
    "protobuf": protobuf_reader,
}
_NOT_READ: Mapping[SchemaKind, str] = {"avro": NOT_AVRO, "protobuf": NOT_PROTOBUF}


class RegisteredDecoder:
    """Decodes the messages of one source. Schemas are asked for once; those that are not there once a minute, and
    few of them in each batch, so that messages of no schema hold no others up.
    """

    def __init__(
        self,
        schemas: Schemas,
        kind: SchemaKind,
        spec: SourceSpec,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._schemas, self._kind, self._steady = schemas, kind, steady
        paths = paths_of(spec.columns)
        self._texts = frozenset(paths.get(name, (name,)) for name, rule in spec.rules.items() if rule.type == "str")
        self._readers: dict[int, Reader | None] = {}
        #: numbers without a schema, and when they may be asked for again, the first ones first
        self._absent: dict[int, float] = {}

    def objects_of(self, values: Mapping[int, bytes], refused: dict[int, str]) -> dict[int, dict[str, Any]]:
        """The fields of each message; those that have none are `refused`.

        Raises:
            EngineUnavailableError, CredentialsError, StorageError: the registry does not answer as one.
        """
        objects = {}
        schemas = {number: schema_number(value) for number, value in values.items()}
        unasked = self._ask(schemas.values())
        readers, not_read = self._readers, _NOT_READ[self._kind]
        for number, value in values.items():
            schema = schemas[number]
            if schema is None:
                refused[number] = not_read
                continue
            if schema not in readers and schema not in self._absent and schema not in unasked:
                self._add_reader(schema)
            reader = readers.get(schema)
            result = SCHEMA if reader is None else reader(value)
            if type(result) is str:
                refused[number] = result
            else:
                objects[number] = result
        return objects  # type: ignore[return-value]

    def _ask(self, schemas: Iterable[int | None]) -> set[int]:
        """Ask for those that are not known, and return those that are taken for absent without asking. Those that many
        messages name come first, then the lowest: a registry counts from 1, and what is no message names any number.
        """
        self._forget_absent()
        unknown = Counter(number for number in schemas if number is not None and number not in self._readers)
        for number in self._absent.keys() & unknown.keys():
            del unknown[number]
        most, order = len(self._absent) + _MOST_ABSENT, sorted(unknown, key=lambda number: (-unknown[number], number))
        for place, number in enumerate(order):
            if len(self._absent) >= most:
                return set(order[place:])
            self._add_reader(number)
        return set()

    def _forget_absent(self) -> None:
        now = self._steady()
        for number in [number for number, until in self._absent.items() if until <= now]:
            del self._absent[number]
        for number in list(self._absent)[:-_MOST_READERS]:
            del self._absent[number]

    def _add_reader(self, number: int) -> None:
        try:
            schema = self._schemas.schema(number, self._kind)
        except (NotFoundError, DataError):
            self._absent[number] = self._steady() + _ABSENT_SECONDS
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
