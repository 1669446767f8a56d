"""A section as it is written in a project file."""

from __future__ import annotations

from typing import Any

import msgspec


def to_declaration(spec: msgspec.Struct) -> dict[str, Any]:
    """`spec` as it would be written in a project file: without whatever is a default."""
    written = {}
    for field in msgspec.structs.fields(spec):
        value = getattr(spec, field.name)
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if value != default:
            written[field.encode_name] = _written(value)
    return written


def _written(value: object) -> Any:
    if isinstance(value, msgspec.Struct):
        return to_declaration(value)
    if isinstance(value, dict):
        return {key: _written(inner) for key, inner in value.items()}
    return msgspec.to_builtins(value)
