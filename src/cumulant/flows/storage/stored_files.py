"""Every file that a project stores, with its size and age, and what it belongs to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args
from urllib.parse import parse_qsl, unquote

from cumulant.data.storage.cost import StoredKind, StoredSize
from cumulant.data.storage.policy import LifecycleKind
from cumulant.ports.plugins import scheme_of
from cumulant.project.file.text_values import masked
from cumulant.project.project import LogName

if TYPE_CHECKING:
    from cumulant.ports.objects import Artifacts
    from cumulant.project.project import Project

#: the first part of the key of a table or object that is not `training`
_TABLES: dict[str, StoredKind] = {"data": "data", "streams": "data", "features": "features"}
_OBJECTS: dict[str, StoredKind] = {"models": "artifacts", "servables": "artifacts"}
_LOGS: tuple[LogName, ...] = get_args(LogName)
#: ports whose stores may be a server
_SERVERS: tuple[Literal["journal", "online", "registry"], ...] = ("journal", "online", "registry")
_BUCKETS = ("s3", "gs", "az")
#: how many times classes are asked for across the whole list of a place, of other files each time
_PASSES = 32


class StorePlace(NamedTuple):
    """A store's files of this project: below `prefix` of `url`, in a folder of this machine or in a bucket."""

    port: str
    url: str
    prefix: str
    folder: Path | None

    @property
    def scheme(self) -> str:
        return scheme_of(self.url) or ""

    @property
    def bucket(self) -> str:
        return self.url.partition("://")[2].partition("?")[0].partition("/")[0]

    @property
    def key_prefix(self) -> str:
        """The beginning of the keys in the bucket, with a `/` at its end unless it is empty."""
        path = self.url.partition("://")[2].partition("?")[0].partition("/")[2].strip("/")
        return f"{path}/{self.prefix}" if path else self.prefix


class Unmeasured(NamedTuple):
    """A store whose size cannot be read from here, and what knows it."""

    store: str
    reason: str


def places_of(project: Project) -> dict[str, StorePlace]:
    """Where tables, objects and each log are, by port or name of the log."""
    places = {}
    for port in ("tables", "objects"):
        places[port] = _place(project, port, project.endpoints.of(port), project.scope.prefix, project.scope.folder)
    for name in _LOGS:  # the scope is a part of the URL already
        places[name] = _place(project, "log", project.log_url(name), "", "")
    return places


def kind_prefixes(project: Project) -> dict[LifecycleKind, list[tuple[StorePlace, str]]]:
    """Where files of each kind are whose class may be declared: the place, and the prefix of their keys in a bucket."""
    places = places_of(project)
    prefixes: dict[LifecycleKind, list[tuple[StorePlace, str]]] = {kind: [] for kind in get_args(LifecycleKind)}
    for port, kinds in (("tables", _TABLES), ("objects", _OBJECTS)):
        for first, kind in kinds.items():
            prefixes[kind].append((places[port], f"{places[port].key_prefix}{first}/"))  # type: ignore[index]
    # Logs are beside each other below the scope, which is a part of their URL.
    logs = _place(project, "log", project.endpoints.log, "", "")
    prefixes["logs"].append((logs, logs.key_prefix))
    return prefixes


def list_stored_files(
    project: Project, *, classes: int = 0, warn: Callable[[str], None] | None = None
) -> Iterator[StoredSize]:
    """Every file of the stores whose size can be read; a file that several tables share counts once.

    `classes`: of so many files of each place in a bucket the storage class is read, spread evenly over the list;
    `warn`: told why it could not be, or of fewer only. A bucket that says none then is not asked again.

    Raises:
        CredentialsError, StorageError, EngineUnavailableError: as the stores do.
    """
    silent: set[str] = set()

    def read_classes(files: Artifacts, place: StorePlace, paths: list[str]) -> dict[str, str]:
        bucket = f"{place.scheme}://{place.bucket}"
        if bucket in silent or not paths:
            return {}
        chosen = paths[:: max(1, -(-len(paths) // classes))] if classes else []
        chosen = [path for number in range(_PASSES) for path in chosen[number::_PASSES]]
        names, cause = files.classes(chosen)
        read = sum(map(bool, names))
        if cause and not read:
            silent.add(bucket)
        if cause and warn is not None:
            warn(f"the class of {read:,} of {len(chosen):,} files below {bucket}/{place.key_prefix} was read: {cause}")
        return dict(zip(chosen, names, strict=True))

    for name, place in places_of(project).items():
        for path, size, modified, read_class in _files(project, place, read_classes):
            kind, owner = _owner(place.port, name, path)
            yield StoredSize(kind, owner, place.scheme, size, modified, read_class)
    for port in _SERVERS:
        for local in project.stored(port):
            yield from (StoredSize(port, "", "file", size, modified) for _, size, modified, _ in _walk(local))
    if project.endpoints.audit is not None:
        place = _place(project, "objects", project.endpoints.audit, project.scope.prefix, project.scope.folder)
        yield from (
            StoredSize("audit", "", place.scheme, size, modified, read_class)
            for _, size, modified, read_class in _files(project, place, read_classes)
        )


def unmeasured(project: Project) -> list[Unmeasured]:
    """Stores that servers keep, whose size the list of files does not have."""
    return [
        Unmeasured(masked(url), f"the {port} is on a server: its own tools know its size")
        for port in _SERVERS
        if project.drivers.path(url := project.endpoints.of(port)) is None
    ]


def _place(project: Project, port: str, url: str, prefix: str, folder: str) -> StorePlace:
    path = project.drivers.path(url)
    return StorePlace(port, url, prefix, None if path is None else path / folder)


def _files(
    project: Project, place: StorePlace, read_classes: Callable[[Artifacts, StorePlace, list[str]], dict[str, str]]
) -> Iterator[tuple[str, int, float, str]]:
    """Path below the place, bytes, when it was written, and its class where that was read."""
    if place.folder is not None:
        yield from _walk(place.folder)
    elif place.scheme in _BUCKETS:
        address, _, options = place.url.partition("?")
        region = dict(parse_qsl(options)).get("region")
        files = project.artifacts(f"{address}?region={region}" if region else address)
        entries = [*files.entries(place.prefix)]
        known = read_classes(files, place, [entry.path for entry in entries])
        for entry in entries:
            path = entry.path.removeprefix(place.prefix)
            yield path, entry.bytes, entry.modified, known.get(entry.path, "")


def _walk(place: Path) -> Iterator[tuple[str, int, float, str]]:
    """The files of a folder, or the file itself; a file with several names is given once."""
    known: set[tuple[int, int]] = set()
    paths = (
        [place] if place.is_file() else (Path(folder) / name for folder, _, names in os.walk(place) for name in names)
    )
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            status = path.stat()
            if (identity := (status.st_dev, status.st_ino)) not in known:
                known.add(identity)
                yield path.relative_to(place).as_posix(), status.st_size, status.st_mtime, ""


def _owner(port: str, name: str, path: str) -> tuple[StoredKind, str]:
    """What a file belongs to, and the name of its source or log."""
    if port == "log":
        return "logs", name
    first, _, rest = path.partition("/")
    if first.startswith("."):  # drafts
        return "other", ""
    kind = (_TABLES if port == "tables" else _OBJECTS).get(first, "training")
    source = unquote(rest.partition("/")[0].replace("!", "%")) if kind == "data" else ""
    return kind, source
