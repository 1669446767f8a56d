"""`restore`: a project from an archive into a new folder: whole, checked, with its own identity."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar

import msgspec

from cumulant.core.errors import CumulantError, UsageError
from cumulant.core.events import Actor, Fact
from cumulant.core.progress import Progress, silent
from cumulant.core.system.atomic_files import sync
from cumulant.flows.backup.archive import copy_member, damaged_error, read_archive
from cumulant.flows.backup.manifest import BackupManifest, StoredFile, decode_manifest
from cumulant.flows.backup.working_folder import open_draft, put_in_place
from cumulant.flows.identities.revocation import revoke_everything
from cumulant.flows.ledger.actions import check
from cumulant.flows.stack.folder_claim import claim_folder
from cumulant.project.file.loading import load

if TYPE_CHECKING:
    from cumulant.project.project import Project


class BackupRestored(Fact, frozen=True, kw_only=True):
    """The state continues from a backup of `created`, in another folder than the one that was backed up."""

    kind: ClassVar[str] = "backup.restored"
    archive: str
    created: datetime
    head_seq: int
    head_hash: str


class RestoreResult(msgspec.Struct, frozen=True, kw_only=True):
    """`notes`: what became of the original's identity, and what could not be done yet."""

    folder: Path
    manifest: BackupManifest
    notes: tuple[str, ...]


def restore(archive: Path, folder: Path, *, progress: Progress = silent) -> RestoreResult:
    """Put the project of an archive into `folder`, which is new or empty, after every file's hash was checked.

    Folders get mode 0700 and files 0600. The state gets an identity of its own, as a copy or a moved project does.

    Raises:
        UsageError: the folder holds something, or there is no archive.
        IntegrityError: the archive is damaged, incomplete or none of ours; nothing is in place.
        StorageError: the disk is full or cannot be written; nothing is in place.
    """
    archive, folder = archive.expanduser().absolute(), folder.expanduser().absolute()
    _check_places(archive, folder)
    with open_draft(folder.parent) as work:
        content = work / "content"
        content.mkdir(mode=0o700)
        manifest = _extract(archive, content, progress)
        for current, _, _ in os.walk(content):
            sync(Path(current))
        put_in_place(content, folder)
    notes: list[str] = []
    _settle_state(folder, archive, manifest, notes.append)
    return RestoreResult(folder=folder, manifest=manifest, notes=tuple(notes))


def _check_places(archive: Path, folder: Path) -> None:
    if not archive.is_file():
        raise UsageError(f"there is no file {archive}", subject=str(archive), hint="name what `cumulant backup` wrote")
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise UsageError(
            f"{folder} is not an empty folder",
            subject=str(folder),
            hint="name a new folder: nothing is ever restored over a project",
        )


def _extract(archive: Path, content: Path, progress: Progress) -> BackupManifest:
    """Write every file below `content`; the manifest that they agree with."""
    extracted: dict[str, tuple[int, str]] = {}

    def take(path: str, stream: IO[bytes]) -> None:
        if path in extracted:
            raise damaged_error(archive, f"the archive holds {path} twice")
        try:
            _make_folders(content, (content / path).parent)
            extracted[path] = copy_member(stream, content / path)
        except (FileExistsError, NotADirectoryError):
            raise damaged_error(archive, f"the archive holds {path} as a file and as a folder") from None

    progress("reading the archive")
    written = read_archive(archive, take)
    if written is None:
        last = next(reversed(extracted), "its beginning")
        raise damaged_error(archive, f"the archive is incomplete: it ends after {last}, without a manifest")
    manifest = decode_manifest(written, str(archive))
    _check(archive, {file.path: file for file in manifest.files}, extracted)
    for file in manifest.files:
        try:
            os.utime(content / file.path, ns=(file.modified_ns, file.modified_ns))
        except OverflowError:
            raise damaged_error(archive, f"the manifest gives {file.path} a time that no file can have") from None
    return manifest


def _make_folders(root: Path, folder: Path) -> None:
    for parent in reversed([folder, *folder.parents][: len(folder.relative_to(root).parts)]):
        parent.mkdir(mode=0o700, exist_ok=True)


def _check(archive: Path, listed: dict[str, StoredFile], extracted: dict[str, tuple[int, str]]) -> None:
    for path, (size, sha256) in extracted.items():
        file = listed.get(path)
        if file is None:
            raise damaged_error(archive, f"the archive holds {path}, which its manifest does not list")
        if (file.bytes, file.sha256) != (size, sha256):
            raise damaged_error(archive, f"{path} is damaged in the archive: it is not what its manifest says")
    for path in listed:
        if path not in extracted:
            raise damaged_error(archive, f"{path} is missing in the archive")


def _settle_state(folder: Path, archive: Path, manifest: BackupManifest, note: Callable[[str], None]) -> None:
    try:
        with load(folder, environment=manifest.environment) as project:
            _revoke_identities(project, note)
            claim_folder(project, note)
            _report(project, archive, manifest)
            _note_missing_sources(project, note)
    except CumulantError as error:
        note(f"restored, but {error.full_text}")


def _revoke_identities(project: Project, note: Callable[[str], None]) -> None:
    """End what was valid when the backup was written: since then it may have been revoked.

    A journal outside of the restored folder, such as of a server, is in no archive, and stays as it is.
    """
    if not any(path.is_relative_to(project.root) for path in project.stored("journal")):
        return
    actor = Actor(project.principal().id, "the state was restored from a backup")
    if count := revoke_everything(project.journal(), actor):
        note(f"{count:,} API tokens and sessions of the backup are revoked: create new ones (`cumulant token create`)")


def _note_missing_sources(project: Project, note: Callable[[str], None]) -> None:
    """Note the paths that lead to no file from the new folder; `plan` and `train` need them."""
    from cumulant.data.files.listing import find_files  # loads Polars

    for name, spec in project.file.spec.data.items():
        if not spec.path or "://" in spec.path:
            continue
        try:
            find_files(spec, source=name, root=project.root, files=project.files())
        except CumulantError:
            note(
                f"warning: source {name}: no file matches {spec.path} from {project.root}: put the data there, or "
                f"correct data.{name}.path in cumulant.yaml; until then it cannot be planned or trained"
            )


def _report(project: Project, archive: Path, manifest: BackupManifest) -> None:
    who = project.principal()
    check(project, who, "project.backup")
    fact = BackupRestored(
        archive=archive.name, created=manifest.created, head_seq=manifest.head_seq, head_hash=manifest.head_hash
    )
    with project.journal().transaction(actor=Actor(who.id)) as transaction:
        transaction.emit(fact)
