"""Does a tree of entries fit a spec? Every fault is found in one pass, each with its line and what would fit.

The walk follows `msgspec.inspect`, so that the Structs of the sections are the only description of the project file.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import inspect

from cumulant.core.errors import did_you_mean
from cumulant.project.file.document import Place, Problem, YamlEntry
from cumulant.project.file.text_values import FORMS, placeholder_fault, text_fault

Path = tuple[str, ...]


@dataclass(frozen=True)
class Shape:
    """A type without its wrappings: what it admits, and what its `Meta(extra=...)` adds."""

    type: inspect.Type
    extra: Mapping[str, Any] = field(default_factory=dict)


def shape(type_: inspect.Type) -> Shape:
    extra: dict[str, Any] = {}
    while isinstance(type_, inspect.Metadata):
        extra |= type_.extra or {}
        type_ = type_.type
    return Shape(type_, extra)


def members(type_: inspect.Type) -> list[Shape]:
    """The members of a union, or the type itself; the extras of the union belong to each."""
    outer = shape(type_)
    if not isinstance(outer.type, inspect.UnionType):
        return [outer]
    inner = [shape(member) for member in outer.type.types]
    return [Shape(member.type, {**outer.extra, **member.extra}) for member in inner]


@dataclass
class Checker:
    """Collects the problems of entries against types. `sections` are the fields of the whole project file."""

    sections: Mapping[str, inspect.Field]
    problems: list[Problem] = field(default_factory=list)
    _noted: set[object] = field(default_factory=set)

    def check(self, entry: YamlEntry, type_: inspect.Type, path: Path = (), *, partial: bool = False) -> Any:
        """Note every fault of `entry`, and return its value with empty sections as mappings.

        With `partial`, keys that another layer may bring can be missing.
        """
        options = members(type_)
        admitted = [option for option in options if _admits(option.type, type(entry.value))]
        mappings = [option for option in options if isinstance(option.type, _MAPPINGS)]
        if entry.value is None and not admitted and mappings:
            admitted, entry = mappings, YamlEntry({}, entry.place)  # `data:` with nothing below it is an empty section
        if not admitted:
            self._wrong_type(entry, options, path)
            return entry.plain()
        if isinstance(entry.value, dict):
            return self._mapping(entry, admitted[0], path, partial=partial)
        if isinstance(entry.value, list):
            return self._list(entry, admitted[0], path, partial=partial)
        value = entry.value
        if isinstance(value, str) and "${" in value and (placeholder := placeholder_fault(value)):
            self.note(entry.place, f"{_named(path)}: {placeholder}")
            return value
        faults = [fault for option in admitted if (fault := _scalar_fault(value, option)) is not None]
        if len(faults) == len(admitted):  # no member of the union takes it
            self._note_scalar(entry, faults, options, path)
        return value

    def note(self, place: Place, text: str) -> None:
        # The same value occurs again where layers are put together; it is reported once, where it occurred first.
        met = (place.file, place.line, place.column or text)
        if met not in self._noted:
            self._noted.add(met)
            self.problems.append((place.file, place.line, text))

    def _mapping(self, entry: YamlEntry, option: Shape, path: Path, *, partial: bool) -> Any:
        type_, extra = option.type, option.extra
        if "overrides" in extra and not isinstance(type_, inspect.StructType):
            return self.check(entry, self.sections[extra["overrides"]].type, path, partial=True)
        if not isinstance(type_, _MAPPINGS):
            return entry.plain()
        assert isinstance(entry.value, dict)
        fields = {field.encode_name: field for field in getattr(type_, "fields", ())}
        values: dict[str, Any] = {}
        for key, inner in entry.value.items():
            if isinstance(type_, inspect.DictType):
                self.check(YamlEntry(key, inner.place), type_.key_type, (*path, "a key"))
                values[key] = self.check(inner, type_.value_type, (*path, key), partial=partial)
            elif key in fields:
                values[key] = self.check(inner, _with_form(fields[key], type_), (*path, key), partial=partial)
            else:
                self.note(inner.place, self._unknown(key, fields, path, _absent(type_)))
        missing = [name for name, field in fields.items() if field.required and name not in entry.value]
        if missing and not partial:
            where = f" in {'.'.join(path)}" if path else ""
            names = ", ".join(f'"{name}"' for name in missing)
            self.note(entry.place, f"{names} {'is' if len(missing) == 1 else 'are'} missing{where}")
        return values

    def _unknown(self, key: str, fields: Iterable[str], path: Path, absent: Mapping[str, str]) -> str:
        known = list(fields)
        where = f" in {'.'.join(path)}" if path else ""
        near = did_you_mean(key, known)
        elsewhere = [] if near else [name for name in _homes(key, self.sections) if (name,) != path[:1]]
        advice = absent.get(key) or near or (f"it belongs under {elsewhere[0]}" if elsewhere else None)
        text = f'unknown key "{key}"{where}'
        return f"{text}; {advice}" if advice else f"{text}; allowed: {', '.join(known)}"

    def _list(self, entry: YamlEntry, option: Shape, path: Path, *, partial: bool) -> list[Any]:
        assert isinstance(entry.value, list)
        type_, items = option.type, []
        for number, inner in enumerate(entry.value):
            items.append(self.check(inner, _item_type(type_, number), (*path, str(number)), partial=partial))
        least = getattr(type_, "min_length", None)
        most = getattr(type_, "max_length", None)
        if least is not None and len(entry.value) < least:
            self.note(entry.place, f"{_named(path)} needs at least {least} item{'s' * (least != 1)}")
        if most is not None and len(entry.value) > most:
            self.note(entry.place, f"{_named(path)} takes at most {most} items")
        return items

    def _note_scalar(self, entry: YamlEntry, faults: list[str | _Choices], options: list[Shape], path: Path) -> None:
        choices = [fault for fault in faults if isinstance(fault, _Choices)]
        text = _not_chosen(entry.value, choices, options, path) if choices else f"{_named(path)}: {faults[0]}"
        self.note(entry.place, text)

    def _wrong_type(self, entry: YamlEntry, options: list[Shape], path: Path) -> None:
        wanted = " or ".join(dict.fromkeys(words(option) for option in options if words(option)))
        hint = ""
        if isinstance(entry.value, (bool, int, float)) and any(isinstance(o.type, inspect.StrType) for o in options):
            forms = [option.extra["text"] for option in options if "text" in option.extra]
            fault = text_fault(forms[0], entry.value) if forms and not isinstance(entry.value, bool) else None
            hint = f"; {fault}" if fault else "; put it in quotes"
        advice = next((option.extra["advice"] for option in options if "advice" in option.extra), None)
        hint = f"; {advice}" if advice and isinstance(entry.value, (list, dict)) else hint
        self.note(entry.place, f"{_named(path)} must be {wanted}, not {_shown(entry.value)}{hint}")


@dataclass(frozen=True)
class _Choices:
    values: tuple[Any, ...]


def _scalar_fault(value: Any, option: Shape) -> str | _Choices | None:
    form = option.extra.get("text")
    match option.type:
        case (inspect.LiteralType() | inspect.EnumType()) as type_:
            return _choice_fault(value, type_)
        case inspect.StrType(pattern=str(pattern)) if re.search(pattern, value) is None:
            return f'"{value}" is not {option.extra.get("says", f"text of the form {pattern}")}'
        case inspect.StrType(min_length=int(least)) if len(value) < least:
            return "may not be empty" if least == 1 else f"needs at least {least} characters"
        case inspect.StrType(max_length=int(most)) if len(value) > most:
            return f"takes at most {most} character{'s' * (most != 1)}"
        case (inspect.IntType() | inspect.FloatType()) as type_ if fault := _bound_fault(value, type_):
            return fault
    is_text = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    return text_fault(form, value) if form is not None and is_text else None


def _choice_fault(value: Any, type_: inspect.LiteralType | inspect.EnumType) -> _Choices | None:
    values = type_.values if isinstance(type_, inspect.LiteralType) else [member.value for member in list(type_.cls)]
    fits = any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in values)
    return None if fits else _Choices(tuple(values))


def _bound_fault(value: float, type_: inspect.IntType | inspect.FloatType) -> str | None:
    bounds: tuple[tuple[float | None, Callable[[float, float], bool], str], ...] = (
        (type_.ge, operator.ge, "at least"),
        (type_.gt, operator.gt, "above"),
        (type_.le, operator.le, "at most"),
        (type_.lt, operator.lt, "below"),
    )
    for bound, holds, relation in bounds:
        if bound is not None and not holds(value, bound):
            return f"must be {relation} {bound:g}, not {value:g}"
    return None


_LISTS = (inspect.ListType, inspect.VarTupleType, inspect.TupleType, inspect.SetType, inspect.FrozenSetType)
_MAPPINGS = (inspect.StructType, inspect.DictType)
#: what a written value can be
_ADMITTED: dict[type, tuple[type[inspect.Type], ...]] = {
    dict: _MAPPINGS,
    list: _LISTS,
    type(None): (inspect.NoneType,),
    bool: (inspect.BoolType,),
    int: (inspect.IntType, inspect.FloatType),
    float: (inspect.FloatType,),
    str: (inspect.StrType, inspect.EnumType),
}


def _admits(type_: inspect.Type, kind: type) -> bool:
    """Whether a value of the kind can be of the type at all."""
    if isinstance(type_, inspect.AnyType):
        return True
    if isinstance(type_, inspect.LiteralType):
        return any(type(choice) is kind for choice in type_.values)
    return isinstance(type_, _ADMITTED[kind])


def form_of(field: inspect.Field, owner: inspect.StructType) -> str | None:
    """The form of a field's text (`duration`, `share`...): as its spec names it, or as `FORMS` lists it."""
    return shape(field.type).extra.get("text") or FORMS.get((owner.cls.__name__, field.encode_name))


def _absent(type_: inspect.Type) -> Mapping[str, str]:
    """Keys that a section does not have, each with what to write instead (`absent` of its Struct)."""
    names: Mapping[str, str] = getattr(getattr(type_, "cls", None), "absent", {})
    return names


def _with_form(field: inspect.Field, owner: inspect.StructType) -> inspect.Type:
    form = form_of(field, owner)
    return field.type if form is None else inspect.Metadata(field.type, extra={"text": form})


def _item_type(type_: inspect.Type, number: int) -> inspect.Type:
    if isinstance(type_, inspect.TupleType):
        return type_.item_types[min(number, len(type_.item_types) - 1)]
    item_type = getattr(type_, "item_type", None)
    return item_type if item_type is not None else inspect.AnyType()


def _homes(key: str, sections: Mapping[str, inspect.Field]) -> list[str]:
    """The sections that have `key`, for a key that stands in the wrong one."""
    return [
        name for name, section in sections.items() if any(key in _keys(option.type) for option in members(section.type))
    ]


def _keys(type_: inspect.Type) -> set[str]:
    return {field.encode_name for field in type_.fields} if isinstance(type_, inspect.StructType) else set()


def _not_chosen(value: Any, choices: list[_Choices], options: list[Shape], path: Path) -> str:
    values = [str(choice) for group in choices for choice in group.values]
    closed = (inspect.LiteralType, inspect.EnumType, inspect.NoneType)
    others = [words(option) for option in options if not isinstance(option.type, closed)]
    near = did_you_mean(str(value), values)
    listed = ", ".join([*values, *dict.fromkeys(word for word in others if word)])
    return f"{_named(path)} may not be {_shown(value)}; {near + ' ' if near else ''}allowed: {listed}"


_WORDS: tuple[tuple[type[inspect.Type], str], ...] = (
    (inspect.StrType, "text"),
    (inspect.BoolType, "true or false"),
    (inspect.IntType, "a whole number"),
    (inspect.FloatType, "a number"),
    (inspect.ListType, "a list"),
    (inspect.VarTupleType, "a list"),
    (inspect.TupleType, "a list"),
    (inspect.StructType, "a mapping"),
    (inspect.DictType, "a mapping"),
)


def words(option: Shape) -> str:
    if isinstance(option.type, inspect.LiteralType):
        return "one of " + ", ".join(str(value) for value in option.type.values)
    if isinstance(option.type, inspect.EnumType):
        return "one of " + ", ".join(str(member.value) for member in list(option.type.cls))
    if isinstance(option.type, inspect.StrType) and "text" in option.extra:
        return f"text ({option.extra['text'].replace('|', ' or ')})"
    return next((word for kind, word in _WORDS if isinstance(option.type, kind)), "")


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"' if len(value) < 60 else f'"{value[:57]}..."'
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return "a mapping" if isinstance(value, dict) else "a list"


def _named(path: Path) -> str:
    return ".".join(path) if path else "the project file"
