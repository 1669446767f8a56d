"""The files of a project's backup, in the order in which they are read.

The desired state comes first, then the journal, then what these name: a file that changes meanwhile is at most newer
than what refers to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import DataError
from cumulant.flows.data.memory_budget import SPILL
from cumulant.flows.observe.programs import FOLDER as OBSERVE
from cumulant.flows.serving.predictions import FOLDER as PREDICTIONS
from cumulant.flows.serving.serve import USES
from cumulant.flows.stack.desired_state import FOLDER as STACK
from cumulant.ports.plugins import scheme_of
from cumulant.serving.prediction_log.storage.log_folder import is_journal

if TYPE_CHECKING:
    from cumulant.project.project import Project

_GATEWAY, _MONITORING = "gateway", "monitoring"
#: ports whose content belongs to a backup, in the order in which it is read
_STORES = ("journal", "registry", "online", "tables", "objects")
#: of the state folder: read first
_DESIRED_STATE = f"{STACK}/desired_state.json"
#: of processes, of searches that are made again, of other environments, or secret
_NOT = frozenset({"environments", "secrets", "search", SPILL, USES, STACK, OBSERVE, _GATEWAY})
#: read last, in this order: a record of the join names parts of the logs, and posts become labels
_LOGS = ("joined", PREDICTIONS, "inbox", "labels")
#: content that bears any name
_CONTENT = frozenset({"objects", "tables", "mlartifacts"})
#: of the folder of monitoring: results that are made again from the log, the labels and the models
_MADE_AGAIN = frozenset({"rows", "estimators"})
_DATABASE, _BESIDE = ".db", ("-wal", "-shm", "-journal")
_PLAIN = ("cumulant.schema.json", ".gitignore", "README.md", "pyproject.toml", "requirements.txt")
#: why a link is not in the archive
LINK = "a link, which is not followed"
_FOREIGN = frozenset({"__pycache__", "node_modules", "site-packages"})


class BackupSelection(msgspec.Struct, frozen=True):
    """Paths below the project's folder, and what belongs to the project but lies elsewhere."""

    in_force: tuple[Path, ...]
    databases: tuple[Path, ...]
    #: listed when they are read: they grow, and logs merge files
    folders: tuple[Path, ...]
    #: those of them whose files may have any name
    contents: frozenset[Path]
    #: what SQLite keeps beside a database: it does not fit the copy
    beside: frozenset[Path]
    project: tuple[Path, ...]
    left_out: tuple[str, ...]


def select_files(project: Project, *, sources: bool = True) -> BackupSelection:
    """What to read; with `sources`, also the source files in the project's folder."""
    state = project.state
    stored = [part for port in _STORES for part in project.stored(port).items()]
    gateway = list(project.stored("traffic").items())
    files = [path for path, kind in [*gateway, *stored] if kind == "file"]
    databases = [path for path, kind in stored if kind == "sqlite"]
    contents = [path for path, kind in stored if kind == "folder"]
    if project.policies.serving.fallback.servable is not None:
        contents.append(project.root / project.policies.serving.fallback.servable)
    folders = _state_folders(state, [path for path, kind in gateway if kind == "folder"])
    salt = project.salt_source.path()
    area = _Area(project)
    source_files = {name: _files_of(project, name) for name in project.file.spec.data} if sources else {}
    broken = [link for link in _links(state) if not link.exists()]
    skipped = dict.fromkeys(
        _skipped(project, link, "a link that leads nowhere: is the disk mounted?") for link in broken
    )
    code = list(_code(project, area, lambda path, why: skipped.setdefault(_skipped(project, path, why))))
    read_last = [*([] if salt is None else [Path(salt)]), *code, *chain.from_iterable(source_files.values())]
    return BackupSelection(
        in_force=area.files([state / _DESIRED_STATE, *files, *sorted(state.glob("*.json"))]),
        databases=area.files([*databases, *sorted(state.glob(f"*{_DATABASE}"))]),
        folders=tuple(path for path in dict.fromkeys([*contents, *folders]) if path.is_dir() and area.holds(path)),
        contents=frozenset(contents),
        beside=frozenset(path.with_name(path.name + suffix) for path in databases for suffix in _BESIDE),
        project=area.files(read_last),
        left_out=(*_left_out(project, area, source_files), *skipped),
    )


def files_below(folder: Path, link: Callable[[Path], object], *, content: bool = False) -> Iterator[Path]:
    """Complete files of the state: no draft, lock or database; links go to `link`; journals of the prediction log.

    `content`: the folder of a store, whose files may have any name.

    Raises:
        OSError: a folder cannot be read.
    """
    for current, folders, names in os.walk(folder, onerror=_unless_gone):
        if Path(current) == folder and folder.name == _MONITORING:
            folders[:] = [name for name in folders if name not in _MADE_AGAIN]
        inside = content or bool(_CONTENT & set(Path(current).relative_to(folder.parent).parts))
        folders[:] = sorted(name for name in folders if name != ".writing" and (inside or not name.startswith(".")))
        links = [name for name in folders if Path(current, name).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(current, name)
            if not (inside or _is_whole(name) or (folder.name == PREDICTIONS and is_journal(name))):
                continue
            if path.is_symlink():
                link(path)
            elif path.is_file():
                yield path


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _skipped(project: Project, path: Path, why: str) -> str:
    return f"{path.relative_to(project.root)}: {why}"


def _is_whole(name: str) -> bool:
    databases = (_DATABASE, *(_DATABASE + suffix for suffix in _BESIDE))
    return not name.startswith(".") and not name.endswith((".lock", ".sock", *databases))


def _state_folders(state: Path, gateway: list[Path]) -> list[Path]:
    """Logs and labels last: they are the newest then."""
    folders = sorted(path for path in state.glob("[!.]*") if path.is_dir() and path.name not in _NOT)
    return [
        *(path for path in folders if path.name not in _LOGS),
        *gateway,
        *(state / name for name in _LOGS),
    ]


class _Area:
    """The project's folder, links followed; the state folder and its direct content may be links."""

    def __init__(self, project: Project) -> None:
        links = [link for link in _links(project.state) if link.name not in _NOT - {STACK, _GATEWAY}]
        self._root = project.root
        self._places = [place.resolve() for place in (project.root, project.state, *links)]

    def holds(self, path: Path) -> bool:
        if not path.is_relative_to(self._root):
            return False
        real = path.resolve()
        return any(real.is_relative_to(place) for place in self._places)

    def files(self, paths: Iterable[Path]) -> tuple[Path, ...]:
        return tuple(path for path in dict.fromkeys(paths) if path.is_file() and self.holds(path))


def _links(state: Path) -> list[Path]:
    return [path for path in sorted(state.glob("[!.]*")) if path.is_symlink()]


def _code(project: Project, area: _Area, skip: Callable[[Path, str], object]) -> Iterator[Path]:
    """Project files, contracts and every module of Python that the project may import; `skip` gets what is left out."""

    def unreadable(error: OSError) -> None:
        if isinstance(error, PermissionError):  # whoever runs the project cannot import from there either
            skip(Path(str(error.filename)), "a folder that cannot be read")
        else:
            _unless_gone(error)

    root = project.root
    yield from (path for path in project.file.paths if path.is_relative_to(root))
    yield from (root / name for name in _PLAIN)
    yield from (root / spec.contract for spec in project.file.spec.data.values() if spec.contract)
    for current, folders, names in os.walk(root, onerror=unreadable):
        folders[:] = [name for name in folders if not _is_foreign(Path(current, name))]
        modules = [name for name in sorted(names) if name.endswith(".py")]
        for path in (Path(current, name) for name in [*folders, *modules]):
            if path.is_symlink() and not area.holds(path):
                skip(path, LINK)
            elif path.name in modules:
                yield path


def _is_foreign(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name in _FOREIGN or (folder / "pyvenv.cfg").exists()


def _files_of(project: Project, name: str) -> list[Path]:
    spec = project.file.spec.data[name]
    try:
        from cumulant.data.files.listing import find_files

        files = find_files(spec, source=name, root=project.root, files=project.files())
    except DataError:
        return []
    return [path for file in files if (path := Path(file.url)).is_absolute()]


def _is_stored_here(project: Project, area: _Area, port: str) -> bool:
    parts = project.stored(port)
    return bool(parts) and all(map(area.holds, parts))


def _left_out(project: Project, area: _Area, source_files: Mapping[str, list[Path]]) -> Iterator[str]:
    root = project.root
    ports = ("journal", "tables", "objects", "online", "registry")
    elsewhere = [port for port in ports if not _is_stored_here(project, area, port)]
    log = project.drivers.path(project.endpoints.log)
    if log is None or not log.is_relative_to(project.state):
        elsewhere.append("log")
    for port in elsewhere:
        url = project.endpoints.of(port)
        tools = project.drivers.driver(url, port).own_backup
        yield f"{port} at {scheme_of(url)}://: back it up with {tools}"
    for path in project.file.paths:
        if not path.is_relative_to(root):
            yield f"project file {path.name}, which lies outside of the project's folder"
    snapshots = "" if "tables" in elsewhere else "; their snapshots are in it"
    topics = project.drivers.path(project.endpoints.streams)
    topics_here = topics is not None and topics.is_relative_to(project.state) and area.holds(topics)
    for name, spec in project.file.spec.data.items():
        files = dict.fromkeys(source_files.get(name, ()))
        stored = len(area.files(files))
        if spec.stream and not topics_here:
            yield f"topic {spec.stream} of source {name}; the rows that were ingested are tables"
        elif spec.path and not stored:
            yield f"files of source {name}{snapshots}"
        elif stored < len(files):
            yield f"{len(files) - stored} files of source {name} outside of the folder{snapshots}"
    servable = project.policies.serving.fallback.servable
    if servable is not None and not area.holds(root / servable):
        yield f"the fallback's servable {servable}"
