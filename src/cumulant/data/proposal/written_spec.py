"""A source as it is written in a project file."""

import msgspec

from cumulant.data.spec import SourceSpec


def to_declaration(spec: SourceSpec) -> dict[str, object]:
    """`spec` as it would be written in a project file: without whatever is a default."""
    return _without_defaults(spec)


def _without_defaults(value: msgspec.Struct) -> dict[str, object]:
    written: dict[str, object] = {}
    for field in msgspec.structs.fields(value):
        own = getattr(value, field.name)
        default = field.default if field.default is not msgspec.NODEFAULT else _default(field)
        if own == default:
            continue
        if isinstance(own, msgspec.Struct):
            own = _without_defaults(own)
        elif isinstance(own, dict):
            own = {
                key: _without_defaults(item) if isinstance(item, msgspec.Struct) else item for key, item in own.items()
            }
        written[field.encode_name] = own
    return written


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else msgspec.NODEFAULT
