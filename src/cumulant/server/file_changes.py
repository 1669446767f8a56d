"""Projects whose files change while a server runs: their sections and access policies are read again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError
from cumulant.project.file.loading import load

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: seconds between two looks at the files
SECONDS = 2.0
_FileState = tuple[str, int, int, int]


@contextmanager
def follow_files(
    projects: Iterable[Project], report: Callable[[str], object], *, seconds: float = SECONDS
) -> Iterator[None]:
    """While the block lasts, take what changes in the files of the projects.

    Where they have faults, or change what needs a restart, the project stays as it is and `report` gets a sentence.
    """
    ended = threading.Event()
    watches = [FileWatch(project) for project in projects]

    def work() -> None:
        while not ended.wait(seconds):
            for watch in watches:
                if sentence := watch.refresh():
                    report(sentence)

    thread = threading.Thread(target=work, name="files", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(seconds + 10)


class FileWatch:
    """The files of one project, as they were when it was read last."""

    def __init__(self, project: Project) -> None:
        self._project, self._seen = project, _states(project)

    def refresh(self) -> str:
        """Read the project again where a file has changed; what came of it in a sentence, empty where nothing has."""
        project, now = self._project, _states(self._project)
        if now == self._seen:
            return ""
        # As they were before they are read: what changes meanwhile, or comes with a new section, is read once more.
        self._seen = now
        try:
            overrides = project.file.layers.overrides
            project.adopt(load(project.root, environment=project.environment, overrides=overrides, via="http"))
        except CumulantError as error:
            text = error.reworded(project.vault.redact).message
            return f"{project.name}: its files have changed and are not taken: {text}"
        except OSError as error:
            return f"{project.name}: its files have changed and cannot be read: {error.strerror}"
        return f"{project.name}: its files have changed, and were read again"


def _states(project: Project) -> list[_FileState]:
    """Path, inode, time and size of each file that says how the project works: sections, environments, policies."""
    paths = [document.path for document in project.file.layers.documents]
    folder = project.endpoints.access.partition("://")[2]
    if folder:
        paths += sorted(Path(folder).expanduser().rglob("*"))
    return [state for path in paths for state in _state(path)]


def _state(path: Path) -> Iterator[_FileState]:
    with suppress(OSError):
        status = path.stat()
        yield str(path), status.st_ino, status.st_mtime_ns, status.st_size
