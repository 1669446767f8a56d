"""One project out of many files: what a project extends, its environment, and what the caller overrides.

From the lowest to the highest: defaults, `extends` files, the project file, the environment's `extends` file, the
environment, overrides. Mappings merge key by key; everything else is replaced whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

from cumulant.core.errors import ProjectFileError, StorageError, UsageError, not_found
from cumulant.ports.plugins import Drivers
from cumulant.project.file.document import (
    Layer,
    Place,
    YamlEntry,
    document_of,
    entry_of,
    file_error,
    merge,
    parse_document,
    read_content,
    relabel,
)
from cumulant.project.file.shared_objects import fetch_shared, join_url
from cumulant.project.file.text_values import masked

FILE = "cumulant.yaml"
LOCAL = "local"
COMMAND_LINE = "command line"
#: the first part of an override that means the environment's own keys: `environment.store=s3://...`
_ENVIRONMENT = "environment"

Overrides = Iterable[str] | Mapping[str, object]


@dataclass(frozen=True)
class Document:
    """One file that was read: a whole or partial project, or the keys of an environment.

    `content`: as it was read, whatever the file holds now. `shared`: it is an object of a store, and `path` this
    machine's copy.
    """

    path: Path
    content: bytes
    root: YamlEntry
    environment: bool
    shared: bool = False


@dataclass(frozen=True)
class Layers:
    """What the files say together. `project` has no environments; `chosen` holds only the environment's own keys.

    `overrides` maps paths of the caller's to plain values, so that another process can load the same.
    """

    project: YamlEntry
    chosen: YamlEntry
    documents: tuple[Document, ...]
    overrides: dict[str, object]


@dataclass
class _Reader:
    root: Path
    drivers: Drivers | None
    documents: list[Document] = field(default_factory=list)
    #: URLs of the files that are in an object store, by how they are shown
    urls: dict[str, str] = field(default_factory=dict)

    def shown(self, path: Path) -> str:
        """How problems and origins name a file: relative to the project's folder."""
        try:
            return Path(os.path.relpath(path, self.root)).as_posix()
        except ValueError:  # another drive
            return str(path)

    def bases(self, extends: YamlEntry | None, place: Place, layer: Layer, name: str | None) -> list[YamlEntry]:
        """The file that `extends` names in the file of `place`, and those that it extends in turn; the lowest first."""
        below: list[YamlEntry] = []
        seen = {self._target(place.file)}
        while extends is not None and isinstance(extends.value, str) and extends.value:
            target = self._target(extends.place.file, extends.value)
            if target in seen:
                raise _extends_error(extends, f'"{extends.value}" extends this file in turn: a circle')
            seen.add(target)
            path, shown = self._fetched(extends, target)
            try:
                content = read_content(path, shown)
                base = document_of(content, shown, layer=layer, name=name)
            except ProjectFileError as error:
                if path.is_file():
                    raise
                raise _extends_error(extends, f'extends "{extends.value}": {error.problems[0][2]}') from None
            self.documents.append(Document(path, content, base, layer == "environment", "://" in target))
            below.insert(0, base)
            extends = base.get("extends")
        return below

    def _target(self, shown: str, extends: str = "") -> str:
        """The URL or absolute path of what a file extends; of the file itself without."""
        if "://" in extends:
            return extends
        if (url := self.urls.get(shown)) is not None:
            return join_url(url, extends) if extends else url
        path = self.root / shown
        return str((path.parent / extends if extends else path).resolve())

    def _fetched(self, extends: YamlEntry, target: str) -> tuple[Path, str]:
        """The file at a target, on this machine, and how problems and origins name it."""
        if "://" not in target:
            return Path(target), self.shown(Path(target))
        try:
            fetched = fetch_shared(target, self.drivers or Drivers.installed())
        except (UsageError, StorageError) as error:
            raise _extends_error(extends, f'extends "{masked(target)}": {error.full_text}') from error
        self.urls[fetched.shown] = target
        return fetched.path, fetched.shown


def _extends_error(extends: YamlEntry, problem: str) -> ProjectFileError:
    return file_error([(extends.place.file, extends.place.line, problem)])


def read_layers(
    root: Path, *, environment: str = LOCAL, overrides: Overrides = (), drivers: Drivers | None = None
) -> Layers:
    """Read a project's files and put them together for one environment. `drivers` fetch those of an object store.

    Raises:
        ProjectFileError: a file that is missing, empty, not YAML, or extends itself.
        NotFoundError: no such environment.
        UsageError: an override that is not `section.key=value`.
        EngineUnavailableError: the object store of a file does not answer.
    """
    file = root / FILE
    content = read_content(file, FILE)
    whole = document_of(content, FILE)
    reader = _Reader(root, drivers, [Document(file, content, whole, environment=False)])
    project = reduce(merge, [*reader.bases(whole.get("extends"), Place(FILE, None), "extends", None), whole])
    sections, own = _chosen(reader, project.get("environments"), environment)
    project = merge(_without(project, "environments"), sections)
    entries = override_entries(overrides)
    for path, entry in entries:
        target = path[1:] if path[0] == _ENVIRONMENT else path
        wrapped = _nested(target, entry)
        if path[0] == _ENVIRONMENT:
            own = merge(own, wrapped)
        else:
            project = merge(project, wrapped)
    plain = {".".join(path): entry.plain() for path, entry in entries}
    return Layers(_named(project, root), own, tuple(reader.documents), plain)


def _chosen(reader: _Reader, environments: YamlEntry | None, name: str) -> tuple[YamlEntry, YamlEntry]:
    """An environment's overrides of sections, and its own keys."""
    from cumulant.project.file.spec import SECTIONS

    known = environments.value if environments is not None and isinstance(environments.value, dict) else {}
    entry = known.get(name)
    if entry is None:
        if name != LOCAL:
            raise not_found("environment", name, {*known, LOCAL})
        entry = YamlEntry({}, Place(FILE, None, "environment", LOCAL))
    if not isinstance(entry.value, dict):
        entry = YamlEntry({}, entry.place)  # a mistake that the check will name
    # `extends` is relative to the file that says it, which may be one that the project extends.
    extends = entry.get("extends")
    bases = reader.bases(extends, extends.place if extends is not None else entry.place, "environment", name)
    chosen = reduce(merge, [*bases, relabel(entry, "environment", name)])
    assert isinstance(chosen.value, dict)
    sections = {key: entry for key, entry in chosen.value.items() if key in SECTIONS and entry.value is not None}
    own = {key: entry for key, entry in chosen.value.items() if key not in SECTIONS}
    return YamlEntry(sections, chosen.place), YamlEntry(own, chosen.place)


def _without(entry: YamlEntry, key: str) -> YamlEntry:
    assert isinstance(entry.value, dict)
    return YamlEntry({name: inner for name, inner in entry.value.items() if name != key}, entry.place)


def _named(project: YamlEntry, root: Path) -> YamlEntry:
    """`project` with the folder's name as the model's, where it has none."""
    model = project.get("model")
    if model is not None and model.value is not None:
        if not isinstance(model.value, dict) or model.get("name") is not None:
            return project
    elif model is not None:
        project = _without(project, "model")
    name = YamlEntry(folder_name(root), Place(FILE, None, "derived", "the folder's name"))
    return merge(_nested(("model", "name"), name), project)


def folder_name(root: Path) -> str:
    """A model name made from the folder's: what does not fit becomes a dash."""
    name = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in root.name)
    name = "-".join(part for part in name.split("-") if part).lower()[:63].rstrip("-")
    return name if name[:1].isalpha() else f"model-{name}"[:63].rstrip("-")


def override_entries(overrides: Overrides) -> list[tuple[tuple[str, ...], YamlEntry]]:
    """Overrides as paths and entries. Text is read as YAML: `training.trials=5`, `evaluation.slices=[origin]`.

    Raises:
        UsageError: without `=`, with an empty part, or a value that is not YAML.
    """
    if isinstance(overrides, str):
        overrides = [overrides]
    if isinstance(overrides, Mapping):
        place = Place(COMMAND_LINE, None, "override")
        return [(_path(key), entry_of(value, place)) for key, value in overrides.items()]
    entries = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f'"{text}" is not an override', hint="write section.key=value: training.trials=5")
        try:
            entry = parse_document(value, COMMAND_LINE, layer="override")
        except ProjectFileError as error:
            raise UsageError(f"the value of {key} cannot be read: {error.problems[0][2]}", subject=key) from None
        entries.append((_path(key), entry_of(entry.plain(), Place(COMMAND_LINE, None, "override"))))
    return entries


def _path(key: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in key.split("."))
    if not all(parts) or parts in (("environment",), ("environments",)) or parts[0] == "environments":
        raise UsageError(
            f'"{key}" does not name a key of the project file',
            subject=key,
            hint="write section.key, as `cumulant plan --resolved` shows it",
        )
    return parts


def _nested(path: tuple[str, ...], entry: YamlEntry) -> YamlEntry:
    for part in reversed(path):
        entry = YamlEntry({part: entry}, entry.place)
    return entry
