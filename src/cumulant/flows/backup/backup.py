"""`backup`: a project with its state in one archive, written while everything runs."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec

from cumulant.core.errors import StorageError, UsageError
from cumulant.core.events import Fact
from cumulant.core.progress import Progress, silent
from cumulant.core.version import __version__
from cumulant.flows.backup.archive import COMPRESSED, ArchiveWriter, open_archive
from cumulant.flows.backup.backup_files import LINK, BackupSelection, files_below, select_files
from cumulant.flows.backup.databases import copy_database
from cumulant.flows.backup.manifest import BackupManifest
from cumulant.flows.backup.working_folder import open_draft, put_in_place
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.serving.predictions import FOLDER as PREDICTIONS
from cumulant.flows.serving.serve import USES
from cumulant.flows.serving.services import list_uses

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: an answered request is in a file of the prediction log so many seconds later
LOG_SECONDS = 3.0
#: how often a folder is listed again, because files in it were merged while they were read
_LISTINGS = 20


class BackupWritten(Fact, frozen=True, kw_only=True):
    """A backup was written; the events up to `head_seq` are in it."""

    kind: ClassVar[str] = "backup.written"
    archive: str
    files: int
    bytes: int
    head_seq: int
    head_hash: str


class BackupResult(msgspec.Struct, frozen=True, kw_only=True):
    archive: Path
    #: bytes of the archive
    bytes: int
    manifest: BackupManifest


@verb("project.backup", personal=True)
def back_up(
    project: Project,
    target: Path,
    *,
    principal: Principal,
    sources: bool = True,
    log_seconds: float = LOG_SECONDS,
    progress: Progress = silent,
) -> BackupResult:
    """Write a new archive at `target`, or in the folder `target` under a name with the time.

    It holds every label that was accepted, every request that was answered and every event that was committed before
    the start. `log_seconds`: the longest that rows of answered requests take into a file; waited for while a server
    runs.

    Raises:
        UsageError: the file exists, or lies in the project's state.
        IntegrityError: a database is damaged.
        StorageError: it cannot be written or read; nothing is left of it.
        EngineUnavailableError: another process has locked a database for a minute.
    """
    begun = time.monotonic()
    # Before the run, which on a read-only disk writes to a copy of the journal.
    head = project.journal().head()
    with open_run(project, "backup", writes=False, principal=principal, progress=progress) as context:
        archive = _place(project, target, context.begun)
        until = begun + (log_seconds if list_uses(project.state / USES) else 0.0)
        with open_draft(archive.parent) as folder:
            selection = select_files(project, sources=sources)
            with open_archive(folder / "archive", compressed=archive.name.endswith(COMPRESSED)) as writer:
                copy = _Copy(project, writer, folder / "database.db", progress, until)
                copy.all(selection)
                manifest = BackupManifest(
                    version=__version__,
                    project=project.name,
                    environment=project.environment,
                    created=context.begun,
                    head_seq=head.seq,
                    head_hash=head.hash,
                    files=tuple(writer.stored.values()),
                    left_out=(*selection.left_out, *copy.links),
                )
                writer.finish(msgspec.json.encode(manifest))
            put_in_place(folder / "archive", archive)
        written = BackupResult(archive=archive, bytes=archive.stat().st_size, manifest=manifest)
        _report(context, written)
    return written


def _place(project: Project, target: Path, at: datetime) -> Path:
    target = target.expanduser().absolute()
    archive = target / f"{project.name}-{at:%Y%m%dT%H%M%SZ}.tar" if target.is_dir() else target
    if not archive.name.endswith((".tar", *COMPRESSED)):
        raise UsageError(
            f"there is no folder {archive}, and the name of an archive ends in .tar, .tar.gz or .tgz",
            subject=str(archive),
            hint="make the folder first (is the disk mounted?), or name a file",
        )
    if not archive.parent.is_dir():
        raise UsageError(
            f"there is no folder {archive.parent}", subject=str(archive), hint="make it first (is the disk mounted?)"
        )
    if archive.exists():
        raise UsageError(
            f"{archive} exists, and a backup never replaces another file",
            subject=str(archive),
            hint="name a new file, or a folder: each backup gets a name with its time there",
        )
    if archive.parent.resolve().is_relative_to(project.state.resolve()):
        raise UsageError(
            f"{archive} lies in the state that is backed up",
            subject=str(archive),
            hint="name a file outside of it, best on another disk",
        )
    return archive


def _report(context: Context, written: BackupResult) -> None:
    manifest = written.manifest
    context.emit(
        BackupWritten(
            archive=written.archive.name,
            files=len(manifest.files),
            bytes=written.bytes,
            head_seq=manifest.head_seq,
            head_hash=manifest.head_hash,
        )
    )


class _Copy:
    def __init__(
        self, project: Project, writer: ArchiveWriter, database: Path, progress: Progress, until: float
    ) -> None:
        self._project, self._writer, self._database, self._progress = project, writer, database, progress
        self._until = until
        #: links in the state, which are not followed
        self.links: dict[str, None] = {}

    def all(self, selection: BackupSelection) -> None:
        for path in selection.in_force:
            self._add(path)
        for path in selection.databases:
            self._progress(f"copying {self._name(path)}")
            copy_database(path, self._database)
            self._writer.add(self._database, self._name(path))
            self._database.unlink()
        for path in selection.project:
            self._add(path)
        for folder in selection.folders:
            self._progress(f"copying {self._name(folder)}")
            self._add_folder(folder, selection)

    def _add_folder(self, folder: Path, selection: BackupSelection) -> None:
        """All files of a folder; where one is gone when it is read, the one that it was merged into is listed next."""
        if folder == self._project.state / PREDICTIONS and (seconds := self._until - time.monotonic()) > 0:
            self._progress("waiting until answered requests are in the prediction log")
            time.sleep(seconds)
        for _ in range(_LISTINGS):
            complete = True
            for path in files_below(folder, self._skip, content=folder in selection.contents):
                if self._name(path) not in self._writer.stored and path not in selection.beside:
                    complete = self._add(path) and complete
            if complete:
                return
        raise StorageError(
            f"files of {folder} are moved faster than they can be read", subject=str(folder), hint="run it again"
        )

    def _skip(self, link: Path) -> None:
        self.links[f"{self._name(link)}: {LINK}"] = None

    def _add(self, path: Path) -> bool:
        name = self._name(path)
        if name in self._writer.stored:
            return True
        try:
            self._writer.add(path, name)
        except FileNotFoundError:
            return False
        return True

    def _name(self, path: Path) -> str:
        return path.relative_to(self._project.root).as_posix()
