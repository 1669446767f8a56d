"""The JSON Schema of the project file, for editors: written beside each new project."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect

from cumulant.project.file.checking import form_of
from cumulant.project.file.loading import sections
from cumulant.project.file.spec import ProjectSpec
from cumulant.project.file.text_values import PATTERNS

SCHEMA_FILE = "cumulant.schema.json"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/"


def json_schema() -> dict[str, Any]:
    """The schema as builtins. It refuses unknown keys and carries each key's description and default.

    It requires what a file alone must say: `extends` files and the folder's name may bring the rest.
    """
    (root,), definitions = msgspec.json.schema_components((ProjectSpec,), ref_template=_REF + "{name}")
    structs = structs_below(inspect.type_info(ProjectSpec))
    complete(definitions, structs)
    own = definitions.pop(root["$ref"].removeprefix(_REF))
    own["properties"]["version"] = {"const": 1, "description": own["properties"]["version"].get("description", "")}
    environment = definitions["EnvironmentSpec"]
    for key, section in sections().items():
        if key in environment["properties"] and "overrides" in _extra(environment_fields(structs)[key]):
            described = environment["properties"][key]["description"]
            partial = _partial(copy.deepcopy(own["properties"][section.encode_name]), definitions)
            partial.pop("default", None)
            environment["properties"][key] = {**partial, "description": described}
    return {"$schema": _DIALECT, "title": "cumulant.yaml", **own, "$defs": dict(sorted(definitions.items()))}


def schema_text() -> str:
    """The schema as the file that new projects get."""
    return msgspec.json.format(msgspec.json.encode(json_schema()), indent=1).decode() + "\n"


def complete(definitions: dict[str, Any], structs: Mapping[str, inspect.StructType]) -> None:
    """Add to the definitions of structs what msgspec does not know: patterns of texts, keys that may be left out."""
    for name, struct in structs.items():
        _finish(definitions[name], struct)


def structs_below(type_: inspect.Type) -> dict[str, inspect.StructType]:
    """Every Struct that a type holds, by its name in the schema."""
    structs: dict[str, inspect.StructType] = {}
    pending: list[inspect.Type] = [type_]
    while pending:
        inner = pending.pop()
        if isinstance(inner, inspect.StructType):
            if inner.cls.__name__ not in structs:
                structs[inner.cls.__name__] = inner
                pending += [each.type for each in inner.fields]
        else:
            pending += inner_types(inner)
    return structs


def inner_types(type_: inspect.Type) -> list[inspect.Type]:
    """What a wrapping, union or collection holds."""
    if isinstance(type_, inspect.Metadata):
        return [type_.type]
    if isinstance(type_, inspect.UnionType):
        return list(type_.types)
    if isinstance(type_, inspect.DictType):
        return [type_.key_type, type_.value_type]
    if isinstance(type_, inspect.TupleType):
        return list(type_.item_types)
    item = getattr(type_, "item_type", None)
    return [] if item is None else [item]


def environment_fields(structs: dict[str, inspect.StructType]) -> dict[str, inspect.Field]:
    return {field.encode_name: field for field in structs["EnvironmentSpec"].fields}


def _finish(definition: dict[str, Any], struct: inspect.StructType) -> None:
    for field in struct.fields:
        form = form_of(field, struct)
        if form is not None:
            patterns = [PATTERNS[name] for name in form.split("|") if name in PATTERNS]
            if patterns:
                definition["properties"][field.encode_name]["pattern"] = "|".join(patterns)
    derived = {field.encode_name for field in struct.fields if "derived" in _extra(field)}
    definition["required"] = [name for name in definition.get("required", []) if name not in derived]
    if not definition["required"]:
        del definition["required"]


def _extra(field: inspect.Field) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    type_ = field.type
    while isinstance(type_, inspect.Metadata):
        extra |= type_.extra or {}
        type_ = type_.type
    return extra


def _partial(node: Any, definitions: dict[str, Any]) -> Any:
    """`node` with nothing required, down to the last definition that it refers to."""
    if isinstance(node, list):
        return [_partial(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    copied_node = {key: _partial(value, definitions) if key != "default" else value for key, value in node.items()}
    name = copied_node["$ref"].removeprefix(_REF) if isinstance(copied_node.get("$ref"), str) else None
    if name is None or name.endswith("Override"):
        return copied_node
    target = f"{name}Override"
    if target not in definitions:
        definitions[target] = {}  # a definition that refers to itself finds this
        copied = _partial({key: value for key, value in definitions[name].items() if key != "required"}, definitions)
        definitions[target] = copied
    return {**copied_node, "$ref": _REF + target}
