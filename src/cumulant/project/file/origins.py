"""Every resolved value and where it came from: what `plan --resolved` shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from cumulant.project.file.document import Place, YamlEntry
from cumulant.project.file.text_values import masked

Kind = Literal["default", "file", "extends", "environment", "override", "derived"]


class ValueOrigin(msgspec.Struct, frozen=True):
    """Where a value was set. `name` is the environment's, or says what a derived value was made from."""

    kind: Kind
    file: str | None = None
    line: int | None = None
    name: str | None = None

    def __str__(self) -> str:
        at = self.file if self.line is None else f"{self.file}:{self.line}"
        match self.kind:
            case "default":
                return "default"
            case "derived":
                return f"default ({self.name})"
            case "override":
                return "command line"
            case "extends":
                return f"extends {at}"
            case "environment":
                return f"environment {self.name} ({at})"
            case _:
                return str(at)


class ResolvedRow(msgspec.Struct, frozen=True):
    """One value of the resolved project: its path of keys, the value with passwords masked, its origin."""

    path: str
    value: Any
    origin: ValueOrigin


DEFAULT = ValueOrigin("default")


def origin_of(place: Place | None) -> ValueOrigin:
    if place is None:
        return DEFAULT
    if place.layer == "derived":
        return ValueOrigin("derived", name=place.name)
    return ValueOrigin(place.layer, place.file, place.line, place.name)


def rows(value: Any, entry: YamlEntry | None, path: tuple[str, ...] = ()) -> Iterator[ResolvedRow]:
    """The leaves of `value` (builtins of a whole spec) with the origin that `entry` (what was written) gives each.

    A list is one leaf: it is replaced as a whole.
    """
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from rows(inner, None if entry is None else entry.get(key), (*path, str(key)))
        return
    yield ResolvedRow(".".join(path), without_passwords(value), origin_of(None if entry is None else entry.place))


def without_passwords(value: Any) -> Any:
    """`value` as it may be printed: passwords inside URLs are masked."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {key: without_passwords(inner) for key, inner in value.items()}
    return [without_passwords(inner) for inner in value] if isinstance(value, list) else value
