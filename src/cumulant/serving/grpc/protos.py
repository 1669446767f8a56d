"""Protocol messages from a compact table, so that serving needs neither generated code nor its compiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

_SCALARS: Mapping[str, FieldDescriptorProto.Type.ValueType] = {
    name: FieldDescriptorProto.Type.Value(f"TYPE_{name.upper()}")
    for name in ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")
}
_ONE, _MANY = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED


class Package:
    """The messages and services of one proto3 package, in a pool of their own.

    `table` has one line a type: `Name: NUMBER NAME TYPE, ...`; a type is a scalar, another type of the package, either
    with `[]` behind it for many, or `{TYPE}` for a map from texts. A field of the message's one choice has `?` behind
    its name. `enum Name: A B C` counts from 0. A dotted name is nested in the message before the dot, which comes
    first. `services` has the methods of each service: (name, request, response, kind), of which the kind is `1-1`,
    `1-n` or `n-n`.
    """

    def __init__(
        self, file: str, name: str, table: str, services: Mapping[str, Sequence[tuple[str, str, str, str]]]
    ) -> None:
        self.name = name
        self._types: dict[str, DescriptorProto | None] = {}
        self._proto = FileDescriptorProto(name=file, package=name, syntax="proto3")
        lines = [line.partition(":") for line in table.strip().splitlines()]
        for head, _, rest in lines:
            self._declare(head.strip(), rest)
        for head, _, rest in lines:
            if not head.startswith("enum "):
                self._fill(head.strip(), rest)
        for service, methods in services.items():
            self._serve(service, methods)
        self._pool = descriptor_pool.DescriptorPool()
        self._pool.Add(self._proto)

    def message(self, name: str) -> Any:
        """The class of a message."""
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(f"{self.name}.{name}"))

    def number(self, message: str, field: str) -> int:
        """The number of a message's field."""
        return int(self.message(message).DESCRIPTOR.fields_by_name[field].number)

    @property
    def file(self) -> str:
        return self._proto.name

    @property
    def described(self) -> bytes:
        """The package's file descriptor, as reflection sends it."""
        return self._proto.SerializeToString()

    def services(self) -> list[str]:
        """Full names."""
        return [f"{self.name}.{service.name}" for service in self._proto.service]

    def holds(self, symbol: str) -> bool:
        """Whether a message, enum, field, service or method of that full name is of this package."""
        try:
            self._pool.FindFileContainingSymbol(symbol)
        except (KeyError, UnicodeError):
            # The pool knows services, yet not their methods.
            return symbol.rpartition(".")[0] in self.services()
        return True

    def _declare(self, head: str, rest: str) -> None:
        name = head.removeprefix("enum ")
        parent, _, own = name.rpartition(".")
        within: Any = self._types[parent] if parent else self._proto
        if head.startswith("enum "):
            enum = within.enum_type.add(name=own)
            for number, value in enumerate(rest.split()):
                enum.value.add(name=value, number=number)
            self._types[name] = None
            return
        self._types[name] = (within.nested_type if parent else within.message_type).add(name=own)

    def _fill(self, name: str, rest: str) -> None:
        message = self._types[name]
        assert message is not None
        for text in filter(None, (part.strip() for part in rest.split(","))):
            number, field, kind = text.split()
            added = message.field.add(name=field.rstrip("?"), number=int(number), label=_ONE)
            if field.endswith("?"):
                if not message.oneof_decl:
                    message.oneof_decl.add(name="choice")
                added.oneof_index = 0
            self._set_type(added, kind, message, name)

    def _set_type(self, field: FieldDescriptorProto, kind: str, message: DescriptorProto, name: str) -> None:
        if kind.startswith("{"):
            entry = message.nested_type.add(name="".join(map(str.capitalize, field.name.split("_"))) + "Entry")
            entry.options.CopyFrom(descriptor_pb2.MessageOptions(map_entry=True))
            entry.field.add(name="key", number=1, label=_ONE, type=_SCALARS["string"])
            self._set_type(entry.field.add(name="value", number=2, label=_ONE), kind[1:-1], message, name)
            field.type_name, field.label = f".{self.name}.{name}.{entry.name}", _MANY
            field.type = FieldDescriptorProto.TYPE_MESSAGE
            return
        if kind.endswith("[]"):
            kind, field.label = kind[:-2], _MANY
        if kind in _SCALARS:
            field.type = _SCALARS[kind]
            return
        field.type_name = f".{self.name}.{kind}"
        of_enum = self._types[kind] is None
        field.type = FieldDescriptorProto.TYPE_ENUM if of_enum else FieldDescriptorProto.TYPE_MESSAGE

    def _serve(self, name: str, methods: Sequence[tuple[str, str, str, str]]) -> None:
        service = self._proto.service.add(name=name)
        for method, request, response, kind in methods:
            service.method.add(
                name=method,
                input_type=f".{self.name}.{request}",
                output_type=f".{self.name}.{response}",
                client_streaming=kind[0] == "n",
                server_streaming=kind[-1] == "n",
            )
