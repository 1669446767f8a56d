"""Structs: made from others with fields of the same names, decoded by several threads, encoded with values of users."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

Struct = TypeVar("Struct", bound=msgspec.Struct)


def struct_from(kind: type[Struct], source: object, **values: object) -> Struct:
    """A struct with these `values`; every other field is the attribute of `source` with its name.

    Raises:
        AttributeError: `source` has no attribute of that name.
    """
    names = (name for name in kind.__struct_fields__ if name not in values)
    return kind(**{name: getattr(source, name) for name in names}, **values)


def prepare_decoding(*kinds: type[msgspec.Struct]) -> None:
    """Build what decodes these types, before threads use them: msgspec 0.22 crashes where several threads build it."""
    for kind in kinds:
        msgspec.json.Decoder(kind)


def json_value(value: Any) -> object:
    """What is encoded in place of `value`: numpy and Polars scalars and series as Python's, all else as text.

    An `enc_hook` of msgspec.
    """
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "to_list"):
        return value.to_list()
    return str(value)
