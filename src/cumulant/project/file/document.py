"""YAML 1.2 text as a tree of values that know their place.

The events of ruamel.yaml are read and composed here, so that each fault has a line: duplicate keys are refused,
plain text is typed by the YAML 1.2 core schema whatever a directive says (`on`, `NO` and `2018-05-01` stay text),
tags that would build objects are refused, and aliases are expanded under a bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cumulant.core.errors import ProjectFileError
from cumulant.project.file.yaml_faults import excerpt, yaml_fault

#: an event of ruamel.yaml, whose classes declare no attributes
Event = Any

#: A project file is a page or two; these bounds stop one that was made to exhaust memory.
MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_VALUES = 50_000

Layer = Literal["file", "extends", "environment", "override", "derived"]
Scalar = bool | int | float | str | None
Problem = tuple[str, int | None, str]


@dataclass(frozen=True)
class Place:
    """Where a value was written: the file, its line (from 1) and the layer that the file stood for."""

    file: str
    line: int | None
    layer: Layer = "file"
    name: str | None = None
    column: int | None = None


@dataclass(frozen=True)
class YamlEntry:
    """A value and its place. Under a key, the place is the key's. `blank`: nothing stands there, not even `null`."""

    value: Scalar | list[YamlEntry] | dict[str, YamlEntry]
    place: Place
    blank: bool = False

    def get(self, key: str) -> YamlEntry | None:
        return self.value.get(key) if isinstance(self.value, dict) else None

    def at(self, path: tuple[str | int, ...]) -> YamlEntry | None:
        """The entry under `path` of keys and positions, or None."""
        entry: YamlEntry | None = self
        for part in path:
            if entry is None:
                return None
            if isinstance(entry.value, list):
                inside = isinstance(part, int) and part < len(entry.value)
                entry = entry.value[part] if inside and isinstance(part, int) else None
            else:
                entry = entry.get(str(part))
        return entry

    def plain(self) -> Any:
        """The value alone, as Python builtins."""
        if isinstance(self.value, dict):
            return {key: entry.plain() for key, entry in self.value.items()}
        if isinstance(self.value, list):
            return [entry.plain() for entry in self.value]
        return self.value


def entry_of(value: Any, place: Place) -> YamlEntry:
    """Python builtins as entries that all stand at `place`."""
    if isinstance(value, dict):
        return YamlEntry({str(key): entry_of(inner, place) for key, inner in value.items()}, place)
    if isinstance(value, (list, tuple)):
        return YamlEntry([entry_of(inner, place) for inner in value], place)
    return YamlEntry(value, place)


def merge(below: YamlEntry, above: YamlEntry) -> YamlEntry:
    """`above` over `below`: mappings key by key, everything else replaced whole. An empty section says nothing."""
    if above.blank and isinstance(below.value, dict):
        return below
    if not isinstance(below.value, dict) or not isinstance(above.value, dict):
        return above
    merged = dict(below.value)
    for key, entry in above.value.items():
        merged[key] = merge(merged[key], entry) if key in merged else entry
    return YamlEntry(merged, below.place if above.place.line is None else above.place)


def relabel(entry: YamlEntry, layer: Layer, name: str | None) -> YamlEntry:
    """`entry` with every place assigned to another layer."""
    place = replace(entry.place, layer=layer, name=name)
    if isinstance(entry.value, dict):
        return YamlEntry({key: relabel(inner, layer, name) for key, inner in entry.value.items()}, place)
    if isinstance(entry.value, list):
        return YamlEntry([relabel(inner, layer, name) for inner in entry.value], place)
    return YamlEntry(entry.value, place)


class _Fault(Exception):  # noqa: N818  # internal: becomes a ProjectFileError with its place
    def __init__(self, line: int | None, text: str, *, column: int | None = None, hint: str | None = None) -> None:
        super().__init__(text)
        self.line, self.column = line, column
        self.text, self.hint = text, hint


def read_content(path: Path, shown: str) -> bytes:
    """Raises ProjectFileError: unreadable, or too large."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise file_error([(shown, None, "the file does not exist")]) from None
    except IsADirectoryError:
        raise file_error([(shown, None, "this is a folder, not a file")]) from None
    except OSError as error:
        raise file_error([(shown, None, f"the file cannot be read: {error.strerror or error}")]) from None
    if len(raw) > MAX_BYTES:
        raise file_error(
            [(shown, None, f"the file is larger than {MAX_BYTES // 1000} kB, which no project file needs")]
        )
    return raw


def document_of(raw: bytes, shown: str, *, layer: Layer = "file", name: str | None = None) -> YamlEntry:
    """The content of a file as an entry tree.

    Raises:
        ProjectFileError: not UTF-8, not YAML, empty or no mapping; with line and column.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise file_error([(shown, line, "the file is not UTF-8 text")]) from None
    entry = parse_document(text, shown, layer=layer, name=name)
    hint = "" if layer == "environment" else "; a project file starts with `version: 1`"
    if entry.value is None:
        raise file_error([(shown, None, f"the file is empty{hint}")])
    if not isinstance(entry.value, dict):
        raise file_error([(shown, entry.place.line, f"the file must hold keys and values{hint}")])
    return entry


def parse_document(text: str, shown: str, *, layer: Layer = "file", name: str | None = None) -> YamlEntry:
    """YAML text as an entry tree.

    Raises:
        ProjectFileError: not YAML, several documents, a duplicate key, an object tag, a bound exceeded.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml import events as kinds
    from ruamel.yaml.error import YAMLError

    root: YamlEntry | None = None
    start = Place(shown, 1, layer, name)
    try:
        events = iter(YAML(typ="safe", pure=True).parse(text))
        composer = _Composer(events, start)
        for event in events:  # the composer takes those inside a value
            if isinstance(event, kinds.NodeEvent):
                root = composer.value(event, 0)
            elif isinstance(event, kinds.DocumentStartEvent):
                composer.start_document(event)
    except (_Fault, YAMLError, ValueError) as error:
        raise _error_in(text, shown, error) from None
    return root if root is not None else YamlEntry(None, start)


def _error_in(text: str, shown: str, error: Exception) -> ProjectFileError:
    """The error that names the place of a fault in `text`."""
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    if isinstance(error, _Fault):
        fault_text = error.text + excerpt(text, error.line or 0, error.column)
        return file_error([(shown, error.line, fault_text)], hint=error.hint)
    if isinstance(error, MarkedYAMLError):
        wrong = yaml_fault(error)
        fault_text = f"not valid YAML in column {wrong.column}: {wrong.text}{excerpt(text, wrong.line, wrong.column)}"
        return file_error([(shown, wrong.line, fault_text)], hint=wrong.hint)
    if isinstance(error, ReaderError):
        at = error.position if isinstance(error.position, int) else 0
        line = text.count("\n", 0, at) + 1
        return file_error([(shown, line, "not valid YAML: a control character that YAML does not allow")])
    fault_text = next(iter(str(error).splitlines()), type(error).__name__)
    return file_error([(shown, None, f"not valid YAML: {fault_text}")])


def file_error(problems: list[Problem], *, hint: str | None = None) -> ProjectFileError:
    """The error for `problems`, whose message can be read on a terminal as it stands."""
    lines = []
    for file, line, text in problems:
        where = file if line is None else f"{file}:{line}"
        lines.append(f"{where}: {text}")
    message = lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} problems in the project file", *lines])
    return ProjectFileError(message, problems=problems, hint=hint)


_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INT64 = 2**63


def plain_scalar(text: str, line: int | None) -> Scalar:
    """Unquoted text by the core schema of YAML 1.2 (section 10.3.2)."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if _NOT_FINITE.fullmatch(text):
        raise _Fault(line, f"{text} is not a number that a setting can have; leave the key out, or quote the text")
    if _INT.fullmatch(text):
        base = 0 if text[1:2] in ("o", "x") else 10
        whole = int(text, base) if base == 0 or len(text) < 25 else _INT64
        if not -_INT64 <= whole < _INT64:
            raise _Fault(line, "this whole number does not fit in 64 bits; quote it if it is text")
        return whole
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise _Fault(line, "this number is too large for a float")
        return number
    return text


_TEXT_TAG = "tag:yaml.org,2002:str"
_PLAIN_TAGS = {
    None,
    "!",
    _TEXT_TAG,
    "tag:yaml.org,2002:map",
    "tag:yaml.org,2002:seq",
    "tag:yaml.org,2002:int",
    "tag:yaml.org,2002:float",
    "tag:yaml.org,2002:bool",
    "tag:yaml.org,2002:null",
}


class _Composer:
    """Parser events to entries: one document, bounded in depth and in the number of values."""

    def __init__(self, events: Iterator[Event], start: Place) -> None:
        self._events = events
        self._start = start
        self._anchors: dict[str, YamlEntry | None] = {}
        self._sizes: dict[str, int] = {}
        self._count = 0

    def start_document(self, event: Event) -> None:
        if self._count:
            raise _Fault(_line(event), "a second document starts here; a project file holds one")

    def _place(self, event: Event) -> Place:
        start = self._start
        return Place(start.file, _line(event), start.layer, start.name, int(event.start_mark.column) + 1)

    def value(self, event: Event, depth: int) -> YamlEntry:
        from ruamel.yaml import events as kinds

        if depth > MAX_DEPTH:
            raise _Fault(_line(event), f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, kinds.AliasEvent):
            return self._alias(event)
        self._grow(1, event)
        tag = None if event.tag is None else str(event.tag)
        if tag not in _PLAIN_TAGS:
            raise _Fault(_line(event), f"the tag {tag} is refused; a project file holds text, numbers, lists, mappings")
        anchor, before = event.anchor, self._count
        if anchor is not None:
            self._anchors[anchor] = None
        if isinstance(event, kinds.MappingStartEvent):
            entry = self._mapping(event, depth)
        elif isinstance(event, kinds.SequenceStartEvent):
            entry = self._sequence(event, depth)
        else:
            plain = not event.style if tag is None else tag not in ("!", _TEXT_TAG)
            value = plain_scalar(event.value, _line(event)) if plain else _text(event)
            entry = YamlEntry(value, self._place(event), blank=plain and not event.value)
        if anchor is not None:
            self._anchors[anchor] = entry
            self._sizes[anchor] = self._count - before + 1
        return entry

    def _alias(self, event: Event) -> YamlEntry:
        name = event.anchor
        if name not in self._anchors:
            raise _Fault(_line(event), f"*{name} refers to an anchor that is not set above")
        entry = self._anchors[name]
        if entry is None:
            raise _Fault(_line(event), f"*{name} stands inside its own anchor")
        self._grow(self._sizes[name], event)
        return entry

    def _grow(self, values: int, event: Event) -> None:
        self._count += values
        if self._count > MAX_VALUES:
            raise _Fault(_line(event), f"the file expands to more than {MAX_VALUES} values")

    def _sequence(self, event: Event, depth: int) -> YamlEntry:
        from ruamel.yaml import events as kinds

        items: list[YamlEntry] = []
        while not isinstance(inner := next(self._events), kinds.SequenceEndEvent):
            items.append(self.value(inner, depth + 1))
        return YamlEntry(items, self._place(event))

    def _mapping(self, event: Event, depth: int) -> YamlEntry:
        from ruamel.yaml import events as kinds

        own: dict[str, YamlEntry] = {}
        merged: dict[str, YamlEntry] = {}
        lines: dict[str, int] = {}
        while not isinstance(inner := next(self._events), kinds.MappingEndEvent):
            key, line = self._key(inner), _line(inner)
            value = self.value(next(self._events), depth + 1)
            if key == "<<":
                for other in _merged_mappings(value, line):
                    merged = {**other, **merged}
                continue
            if key in own:
                raise _Fault(
                    line,
                    f'the key "{key}" is set twice; the first time in line {lines[key]}',
                    column=inner.start_mark.column + 1,
                    hint="keep one of them, with all that both hold",
                )
            lines[key] = line
            own[key] = YamlEntry(value.value, self._place(inner), value.blank)  # readers look for the key's line
        return YamlEntry({**merged, **own}, self._place(event))

    def _key(self, event: Event) -> str:
        from ruamel.yaml import events as kinds

        self._grow(1, event)
        if isinstance(event, kinds.AliasEvent):
            key = self._alias(event).value
        elif isinstance(event, kinds.ScalarEvent):
            key = _text(event)
            if event.anchor is not None:
                self._anchors[event.anchor] = YamlEntry(key, self._place(event))
                self._sizes[event.anchor] = 1
        else:
            raise _Fault(_line(event), "a key must be text; this one is a list or a mapping")
        if not isinstance(key, str):
            raise _Fault(_line(event), "a key must be text")
        return key


def _text(event: Event) -> str:
    """Quoted text. JSON writes characters beyond 16 bits as two halves, which belong together."""
    text = str(event.value)
    if text.isascii():
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise _Fault(_line(event), "the text holds half a character (a lone surrogate)") from None


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1


def _merged_mappings(value: YamlEntry, line: int) -> list[dict[str, YamlEntry]]:
    """What `<<` brings in: one mapping, or a list of them, of which earlier ones win."""
    parts = value.value if isinstance(value.value, list) else [value]
    mappings = [part.value for part in parts if isinstance(part.value, dict)]
    if len(mappings) != len(parts):
        raise _Fault(line, "<< takes a mapping or a list of mappings")
    return mappings
