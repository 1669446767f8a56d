"""Does a tree of entries fit a spec? Every fault is found in one pass, each with its line and what would fit.

The walk follows `msgspec.inspect`, so that the rooms' Structs are the only description of the project file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import inspect

from cumulant.core.errors import did_you_mean
from cumulant.project.document import Entry, Place, Problem
from cumulant.project.texts import FORMS, placeholder_fault, text_fault

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

    def check(self, entry: Entry, type_: inspect.Type, path: Path = (), *, partial: bool = False) -> Any:
        """Note every fault of `entry`, and return its value with empty sections as mappings.

        With `partial`, keys that another layer may bring can be missing.
        """
        options = members(type_)
        admitted = [option for option in options if _admits(option.type, entry)]
        if entry.value is None and not admitted:
            admitted = [option for option in options if _is_mapping(option.type)]
            entry = Entry({}, entry.place)  # `data:` with nothing below it is an empty section
        if not admitted:
            self._wrong_type(entry, options, path)
            return entry.plain()
        if isinstance(entry.value, dict):
            return self._mapping(entry, admitted[0], path, partial=partial)
        if isinstance(entry.value, list):
            return self._list(entry, admitted[0], path, partial=partial)
        self._scalar(entry, admitted, options, path)
        return entry.value

    def note(self, place: Place, text: str) -> None:
        problem = (place.file, place.line, text)
        if problem not in self.problems:
            self.problems.append(problem)

    def _mapping(self, entry: Entry, option: Shape, path: Path, *, partial: bool) -> Any:
        if isinstance(option.type, inspect.StructType):
            return self._struct(entry, option.type, path, partial=partial)
        if "overrides" in option.extra:
            return self.check(entry, self.sections[option.extra["overrides"]].type, path, partial=True)
        if not isinstance(option.type, inspect.DictType):
            return entry.plain()
        found = {}
        for key, inner in _items(entry):
            self.check(Entry(key, inner.place), option.type.key_type, (*path, "a key"))
            found[key] = self.check(inner, option.type.value_type, (*path, key), partial=partial)
        return found

    def _struct(self, entry: Entry, type_: inspect.StructType, path: Path, *, partial: bool) -> dict[str, Any]:
        fields = {one.encode_name: one for one in type_.fields}
        found: dict[str, Any] = {}
        for key, inner in _items(entry):
            if key in fields:
                wanted = _with_form(fields[key], type_)
                found[key] = self.check(inner, wanted, (*path, key), partial=partial)
            else:
                self.note(inner.place, self._unknown(key, fields, path))
        missing = [name for name, one in fields.items() if one.required and entry.get(name) is None]
        if missing and not partial:
            where = f" in {'.'.join(path)}" if path else ""
            names = ", ".join(f'"{name}"' for name in missing)
            self.note(entry.place, f"{names} {'is' if len(missing) == 1 else 'are'} missing{where}")
        return found

    def _unknown(self, key: str, fields: Iterable[str], path: Path) -> str:
        known = list(fields)
        where = f" in {'.'.join(path)}" if path else ""
        near = did_you_mean(key, known)
        elsewhere = [] if near else [name for name in _homes(key, self.sections) if (name,) != path[:1]]
        advice = near or (f"it belongs under {elsewhere[0]}" if elsewhere else None)
        text = f'unknown key "{key}"{where}'
        return f"{text}; {advice}" if advice else f"{text}; allowed: {', '.join(known)}"

    def _list(self, entry: Entry, option: Shape, path: Path, *, partial: bool) -> list[Any]:
        assert isinstance(entry.value, list)
        type_, found = option.type, []
        for number, inner in enumerate(entry.value):
            found.append(self.check(inner, _item_type(type_, number), (*path, str(number)), partial=partial))
        least = getattr(type_, "min_length", None)
        most = getattr(type_, "max_length", None)
        if least is not None and len(entry.value) < least:
            self.note(entry.place, f"{_named(path)} needs at least {least} item{'s' * (least != 1)}")
        if most is not None and len(entry.value) > most:
            self.note(entry.place, f"{_named(path)} takes at most {most} items")
        return found

    def _scalar(self, entry: Entry, admitted: list[Shape], options: list[Shape], path: Path) -> None:
        value = entry.value
        if isinstance(value, str) and (said := placeholder_fault(value)):
            self.note(entry.place, f"{_named(path)}: {said}")
            return
        faults = [fault for option in admitted if (fault := _scalar_fault(value, option)) is not None]
        if len(faults) < len(admitted):
            return  # one member of the union takes it
        choices = [fault for fault in faults if isinstance(fault, _Choices)]
        if choices:
            self.note(entry.place, _not_chosen(value, choices, options, path))
        else:
            self.note(entry.place, f"{_named(path)}: {faults[0]}")

    def _wrong_type(self, entry: Entry, options: list[Shape], path: Path) -> None:
        wanted = " or ".join(dict.fromkeys(words(option) for option in options if words(option)))
        hint = ""
        if isinstance(entry.value, (bool, int, float)) and any(isinstance(o.type, inspect.StrType) for o in options):
            hint = "; put it in quotes"
        self.note(entry.place, f"{_named(path)} must be {wanted}, not {_shown(entry.value)}{hint}")


@dataclass(frozen=True)
class _Choices:
    values: tuple[Any, ...]


def _scalar_fault(value: Any, option: Shape) -> str | _Choices | None:
    type_ = option.type
    if isinstance(type_, inspect.LiteralType):
        fits = any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in type_.values)
        return None if fits else _Choices(tuple(type_.values))
    if isinstance(type_, inspect.EnumType):
        values = tuple(member.value for member in type_.cls)
        return None if value in values else _Choices(values)
    if isinstance(type_, inspect.StrType):
        if type_.pattern is not None and re.search(type_.pattern, value) is None:
            return f'"{value}" is not {option.extra.get("says", f"text of the form {type_.pattern}")}'
        if type_.min_length is not None and len(value) < type_.min_length:
            return "may not be empty" if type_.min_length == 1 else f"needs at least {type_.min_length} characters"
    if isinstance(type_, (inspect.IntType, inspect.FloatType)) and (said := _bound_fault(value, type_)):
        return said
    if "text" in option.extra and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return text_fault(option.extra["text"], value)
    return None


def _bound_fault(value: float, type_: inspect.IntType | inspect.FloatType) -> str | None:
    bounds = (
        (type_.ge, lambda bound: value >= bound, "at least"),
        (type_.gt, lambda bound: value > bound, "above"),
        (type_.le, lambda bound: value <= bound, "at most"),
        (type_.lt, lambda bound: value < bound, "below"),
    )
    for bound, holds, words in bounds:
        if bound is not None and not holds(bound):
            return f"must be {words} {bound:g}, not {value:g}"
    return None


def _admits(type_: inspect.Type, entry: Entry) -> bool:
    value = entry.value
    if isinstance(type_, inspect.AnyType):
        return True
    if isinstance(value, dict):
        return _is_mapping(type_)
    if isinstance(value, list):
        return isinstance(type_, (inspect.ListType, inspect.VarTupleType, inspect.TupleType, inspect.SetType, inspect.FrozenSetType))
    if value is None:
        return isinstance(type_, inspect.NoneType) or (isinstance(type_, inspect.LiteralType) and None in type_.values)
    if isinstance(value, bool):
        return isinstance(type_, inspect.BoolType) or _literal_of(type_, bool)
    if isinstance(value, int):
        return isinstance(type_, (inspect.IntType, inspect.FloatType)) or _literal_of(type_, int)
    if isinstance(value, float):
        return isinstance(type_, inspect.FloatType)
    return isinstance(type_, (inspect.StrType, inspect.EnumType)) or _literal_of(type_, str)


def form_of(one: inspect.Field, owner: inspect.StructType) -> str | None:
    """The form of a field's text (`duration`, `share`...): as its spec says it, or as listed for its room."""
    return shape(one.type).extra.get("text") or FORMS.get((owner.cls.__name__, one.encode_name))


def _with_form(one: inspect.Field, owner: inspect.StructType) -> inspect.Type:
    form = form_of(one, owner)
    return one.type if form is None else inspect.Metadata(one.type, extra={"text": form})


def _literal_of(type_: inspect.Type, kind: type) -> bool:
    return isinstance(type_, inspect.LiteralType) and any(type(value) is kind for value in type_.values)


def _is_mapping(type_: inspect.Type) -> bool:
    return isinstance(type_, (inspect.StructType, inspect.DictType))


def _item_type(type_: inspect.Type, number: int) -> inspect.Type:
    if isinstance(type_, inspect.TupleType):
        return type_.item_types[min(number, len(type_.item_types) - 1)]
    found = getattr(type_, "item_type", None)
    return found if found is not None else inspect.AnyType()


def _items(entry: Entry) -> Iterator[tuple[str, Entry]]:
    assert isinstance(entry.value, dict)
    yield from entry.value.items()


def _homes(key: str, sections: Mapping[str, inspect.Field]) -> list[str]:
    """The sections that have `key`, for a key that stands in the wrong one."""
    found = []
    for name, section in sections.items():
        for option in members(section.type):
            if isinstance(option.type, inspect.StructType) and key in {one.encode_name for one in option.type.fields}:
                found.append(name)
    return found


def _not_chosen(value: Any, choices: list[_Choices], options: list[Shape], path: Path) -> str:
    values = [str(choice) for group in choices for choice in group.values]
    others = [words(option) for option in options if not isinstance(option.type, (inspect.LiteralType, inspect.NoneType, inspect.EnumType))]
    near = did_you_mean(str(value), values)
    listed = ", ".join([*values, *dict.fromkeys(word for word in others if word)])
    return f'{_named(path)} may not be {_shown(value)}; {near + " " if near else ""}allowed: {listed}'


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
        return "one of " + ", ".join(str(member.value) for member in option.type.cls)
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
