"""Structs made from others that have fields of the same names."""

from __future__ import annotations

from typing import TypeVar

import msgspec

Struct = TypeVar("Struct", bound=msgspec.Struct)


def struct_from(kind: type[Struct], source: object, **values: object) -> Struct:
    """A struct with these `values`; every other field is the attribute of `source` with its name.

    Raises:
        AttributeError: `source` has no attribute of that name.
    """
    names = (name for name in kind.__struct_fields__ if name not in values)
    return kind(**{name: getattr(source, name) for name in names}, **values)
