"""The reference page of the project file, from the specs themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from cumulant.project.file.checking import Shape, form_of, members, shape, words
from cumulant.project.file.spec import ProjectSpec

_HEAD = """# The project file

Generated from the specs themselves. `cumulant.yaml` is YAML 1.2, strict: unknown keys, wrong types and unknown
values are refused with file and line. Any section may be left out. `cumulant plan --resolved` shows every value
of a project and where it came from.

- Durations are written `90s`, `15m`, `2h`, `30d`, `4w`; sizes `64MiB`, `10GB`; shares `5%` or `0.05`;
  counts `1200`, `500k`, `2M`; rates `100/day`, `2/month`; times `2013-04-01` or `2013-04-01T06:00:00Z`.
- Paths are relative to the project's folder; `extends` is relative to the file that says it.
- `${secret:NAME}` stands for a secret. It is filled in when it is used, and never stored or printed.
- From the lowest to the highest: defaults, `extends` files, the project file, the environment's `extends` file, the
  environment, the command line. Mappings merge key by key; everything else is replaced whole.
"""


def reference_markdown() -> str:
    """One page: a table for each section and each mapping inside it."""
    root = inspect.type_info(ProjectSpec)
    assert isinstance(root, inspect.StructType)
    lines = [_HEAD, *_table("Top level", root, "##")]
    for field in root.fields:
        for path, struct in _below(field.type, field.encode_name):
            lines += _table(f"`{path}`", struct, "##" if "." not in path else "###")
    return "\n".join(lines).rstrip() + "\n"


def _below(type_: inspect.Type, path: str) -> Iterator[tuple[str, inspect.StructType]]:
    """The mappings under `path`, outer ones first. A mapping with free keys shows as NAME or COLUMN."""
    for option in members(type_):
        if isinstance(option.type, inspect.StructType):
            yield path, option.type
            for field in option.type.fields:
                yield from _below(field.type, f"{path}.{field.encode_name}")
        elif isinstance(option.type, inspect.DictType) and "overrides" not in option.extra:
            yield from _below(option.type.value_type, f"{path}.{_free_key(path)}")
        elif isinstance(option.type, (inspect.ListType, inspect.VarTupleType)):
            yield from _below(option.type.item_type, f"{path}[]")


def _free_key(path: str) -> str:
    if path == "monitoring.alerts.rules":
        return "RULE"
    return "NAME" if "." not in path else {"rules": "COLUMN", "gate": "METRIC"}.get(path.rpartition(".")[2], "KEY")


def _table(title: str, struct: inspect.StructType, mark: str) -> list[str]:
    about = (struct.cls.__doc__ or "").strip().splitlines()
    lines = [f"{mark} {title}", "", *([about[0].strip(), ""] if about else [])]
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    for field in struct.fields:
        row = (f"`{field.encode_name}`", _value(field, struct), _default(field), description_of(field.type))
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |")
    return [*lines, ""]


def description_of(type_: inspect.Type) -> str:
    """The description that a field's `Meta` carries."""
    while isinstance(type_, inspect.Metadata):
        description = (type_.extra_json_schema or {}).get("description")
        if description:
            return str(description)
        type_ = type_.type
    return ""


def _value(field: inspect.Field, owner: inspect.StructType) -> str:
    form = form_of(field, owner)
    texts = [_word(option, form) for option in members(field.type) if not isinstance(option.type, inspect.NoneType)]
    return " or ".join(dict.fromkeys(texts))


def _word(option: Shape, form: str | None) -> str:
    if isinstance(option.type, inspect.LiteralType):
        return ", ".join(f"`{value}`" for value in option.type.values)
    if isinstance(option.type, inspect.StrType) and form is not None:
        return form.replace("|", " or ")
    if isinstance(option.type, inspect.ListType):
        inner = [_word(item, None) for item in members(option.type.item_type)]
        return f"a list of {' or '.join(dict.fromkeys(inner))}"
    if isinstance(option.type, inspect.DictType) and "overrides" not in option.extra:
        if isinstance(shape(option.type.value_type).type, inspect.StructType):
            return "a mapping"
        inner = [_word(item, None) for item in members(option.type.value_type)]
        return f"a mapping to {' or '.join(dict.fromkeys(inner))}"
    return words(option)


def _default(field: inspect.Field) -> str:
    if field.required:
        return str(shape(field.type).extra.get("derived", "**required**"))
    value: Any = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else None
    if value is None or isinstance(value, msgspec.Struct) or value in ("", [], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
