"""The files of a project's backup, in the order in which they are read.

What says what should be in force (book, routes) comes first, then the journal, then all that these name: a file that
is written meanwhile is at most newer than what names it, as after a crash.

Secrets are left out, except the salt: without it, hashes of personal values match none of those that are stored.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from cumulant.core.errors import DataError
from cumulant.flows.data.memory_budget import SPILL
from cumulant.flows.outcomes.labels import FOLDER as LABELS
from cumulant.flows.review.service import FOLDER as REVIEW
from cumulant.flows.serving.predictions import FOLDER as PREDICTIONS
from cumulant.flows.serving.serve import USES
from cumulant.flows.stack.desired_state import FOLDER as STACK
from cumulant.serving.prediction_log.storage.log_folder import is_journal

if TYPE_CHECKING:
    from cumulant.project.project import Project

_GATEWAY, _MONITORING = "gateway", "monitoring"
#: of the state folder: read first
_IN_FORCE = (f"{STACK}/desired_state.json", f"{_GATEWAY}/state.json")
#: of processes, of searches that are made again, of other environments, or secret
_NOT = frozenset({"environments", "secrets", "search", SPILL, USES, STACK, _GATEWAY})
#: copied under the lock of whoever moves files in them, and at the end, when requests before the start are logged
GUARDED = (LABELS, REVIEW)
#: content that bears any name
_CONTENT = frozenset({"objects", "tables", "mlartifacts"})
#: of the folder of monitoring: results that are made again from the log, the labels and the models
_MADE_AGAIN = frozenset({"rows", "estimators"})
_DATABASE, _BESIDE = ".db", (".db-wal", ".db-shm", ".db-journal")
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
    project: tuple[Path, ...]
    left_out: tuple[str, ...]


def select_files(project: Project, *, sources: bool = True) -> BackupSelection:
    """What to read; with `sources`, also the source files in the project's folder."""
    state = project.state
    journal = _local(project.endpoints.journal)
    heads = () if journal is None else (journal, journal.with_name(f"{journal.name}.head"))
    others = [path for path in (_local(url) for url in _database_urls(project)) if path is not None]
    databases = [*heads[:1], *others, *sorted(state.glob(f"*{_DATABASE}"))]
    folders = dict.fromkeys([*_stores(project), *_state_folders(state)])
    salt = project.salt_path()
    area = _Area(project)
    source_files = {name: _files_of(project, name) for name in project.spec.data} if sources else {}
    broken = [link for link in _links(state) if not link.exists()]
    skipped = dict.fromkeys(
        _skipped(project, link, "a link that leads nowhere: is the disk mounted?") for link in broken
    )
    code = list(_code(project, area, lambda path, why: skipped.setdefault(_skipped(project, path, why))))
    files = [*([] if salt is None else [Path(salt)]), *code, *chain.from_iterable(source_files.values())]
    return BackupSelection(
        in_force=area.files([*(state / name for name in _IN_FORCE), *sorted(state.glob("*.json")), *heads[1:]]),
        databases=area.files(databases),
        folders=tuple(path for path in folders if path.is_dir() and area.holds(path)),
        project=area.files(files),
        left_out=(*_left_out(project, area, source_files), *skipped),
    )


def files_below(folder: Path, link: Callable[[Path], object]) -> Iterator[Path]:
    """Files of the state that are whole: no draft, no lock, no database, and no link, which is given to `link`; and
    journals of the prediction log, whose rows a log process recovers up to the last whole record.

    Raises:
        OSError: a folder cannot be read.
    """
    for current, folders, names in os.walk(folder, onerror=_unless_gone):
        if Path(current) == folder and folder.name == _MONITORING:
            folders[:] = [name for name in folders if name not in _MADE_AGAIN]
        inside = bool(_CONTENT & set(Path(current).relative_to(folder.parent).parts))
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
    return not name.startswith(".") and not name.endswith((".lock", ".sock", _DATABASE, *_BESIDE))


def _state_folders(state: Path) -> list[Path]:
    """Logs and labels last: they are the newest then."""
    last = [PREDICTIONS, *GUARDED]
    folders = sorted(path for path in state.glob("[!.]*") if path.is_dir() and path.name not in _NOT)
    return [
        *(path for path in folders if path.name not in last),
        state / _GATEWAY / "exchanges",
        *(state / name for name in dict.fromkeys(last)),
    ]


class _Area:
    """The project's folder, links followed.

    The state folder and what lies directly in it may be links, to another disk.
    """

    def __init__(self, project: Project) -> None:
        links = [link for link in _links(project.state) if link.name not in _NOT - {STACK, _GATEWAY}]
        self._root = project.root
        self._places = [place.resolve() for place in (project.root, project.state, *links)]

    def holds(self, path: Path) -> bool:
        """Whether a path lies below the folder."""
        if not path.is_relative_to(self._root):
            return False
        real = path.resolve()
        return any(real.is_relative_to(place) for place in self._places)

    def files(self, paths: Iterable[Path]) -> tuple[Path, ...]:
        """Those that are files of the folder, each once, links out of it left out."""
        return tuple(path for path in dict.fromkeys(paths) if path.is_file() and self.holds(path))


def _links(state: Path) -> list[Path]:
    return [path for path in sorted(state.glob("[!.]*")) if path.is_symlink()]


def _database_urls(project: Project) -> tuple[str, str]:
    return project.endpoints.registry, project.endpoints.online


def _local(url: str) -> Path | None:
    """The file of a database on this machine."""
    scheme, _, rest = url.partition("://")
    return Path(rest.partition("?")[0]).expanduser() if scheme in ("sqlite", "mlflow+sqlite") else None


def _stores(project: Project) -> list[Path]:
    """Folders of the store, of the embedded registry's artifacts and of the fallback, which may lie anywhere."""
    urls = [urlsplit(url) for url in (project.endpoints.tables, project.endpoints.objects)]
    registry = _local(project.endpoints.registry)
    folders = [Path(parts.path) for parts in urls if parts.scheme == "file"]
    folders += [] if registry is None else [registry.parent / "mlartifacts"]
    servable = project.spec.serving.fallback.servable
    return folders if servable is None else [*folders, project.root / servable]


def _code(project: Project, area: _Area, skip: Callable[[Path, str], object]) -> Iterator[Path]:
    """Project files, contracts and every module of Python that the project may import; `skip` gets what is left out."""

    def unreadable(error: OSError) -> None:
        if isinstance(error, PermissionError):  # whoever runs the project cannot import from there either
            skip(Path(str(error.filename)), "a folder that cannot be read")
        else:
            _unless_gone(error)

    root = project.root
    yield from (path for path in project.files_read if path.is_relative_to(root))
    yield from (root / name for name in _PLAIN)
    yield from (root / spec.contract for spec in project.spec.data.values() if spec.contract)
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
    """Files of a source on this machine; none where it has no path or its files are gone."""
    spec = project.spec.data[name]
    try:
        from cumulant.data.files.listing import find_files

        files = find_files(spec, source=name, root=project.root, files=project.files())
    except DataError:
        return []
    return [Path(file.url.removeprefix("file://")) for file in files if file.url.startswith(("/", "file:"))]


def _left_out(project: Project, area: _Area, source_files: Mapping[str, list[Path]]) -> Iterator[str]:
    root = project.root
    for port in ("journal", "tables", "objects", "online", "registry"):
        url = project.endpoints.of(port)
        path = Path(urlsplit(url).path)
        if urlsplit(url).scheme not in ("file", "sqlite", "mlflow+sqlite") or not area.holds(path):
            yield f"{port} at {urlsplit(url).scheme}://: back it up with its own tools"
    for path in project.files_read:
        if not path.is_relative_to(root):
            yield f"project file {path.name}, which lies outside of the project's folder"
    for name, spec in project.spec.data.items():
        files = dict.fromkeys(source_files.get(name, ()))
        stored = len(area.files(files))
        if spec.path and not stored:
            yield f"files of source {name}; their snapshots are in it"
        elif stored < len(files):
            yield f"{len(files) - stored} files of source {name} outside of the folder; their snapshots are in it"
    servable = project.spec.serving.fallback.servable
    if servable is not None and not area.holds(root / servable):
        yield f"the fallback's servable {servable}"
