"""Where the API and the console of a project answer on this machine, for the links that sign its user in."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from cumulant.core.errors import IntegrityError, StorageError, UsageError
from cumulant.core.network.hosts import is_loopback
from cumulant.core.network.urls import is_secure_url
from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.flows.ledger.processes import Process, is_gone, is_here, process_of
from cumulant.flows.stack.desired_state import FOLDER
from cumulant.flows.stack.status import read_status

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: that of `cumulant api` without `--http`
DEFAULT = "http://127.0.0.1:8700"


class _Note(msgspec.Struct, frozen=True):
    process: Process
    url: str


def note_address(project: Project, url: str) -> None:
    """Note where this process serves the project, in a file of its own: other servers of the project have theirs.

    Those of ended servers are removed. A read-only state has no such note.
    """
    for ended in [path for path, note in _notes(project) if is_gone(note.process)]:
        with suppress(OSError):
            ended.unlink()
    path = _own_path(project)
    with suppress(StorageError), storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, msgspec.json.encode(_Note(process_of(os.getpid()), url)), durable=False)


def remove_address(project: Project) -> None:
    """Remove the note of this process, whose server ends."""
    with suppress(OSError):
        _own_path(project).unlink()


def console_url(project: Project, given: str = "") -> str:
    """The console's address: `given`, or the declared one, that of the server that runs here, or the default.

    Raises:
        UsageError: `given` is neither an address of this machine nor `sign_in.url`: links are secret.
    """
    declared = project.sign_in.url
    if not given:
        return declared or running_url(project) or DEFAULT
    url = given.rstrip("/")
    if url == declared or (is_secure_url(url, path=False) and is_loopback(urlsplit(url).hostname or "")):
        return url
    raise UsageError(
        "a link signs its holder in: it leads to this machine, or to `sign_in.url`", subject=given[:200], hint=DEFAULT
    )


def running_url(project: Project) -> str:
    """Where a server on loopback serves the project now, the newest of several; empty: none does."""
    living = [(path, note) for path, note in _notes(project) if is_here(note.process) and not is_gone(note.process)]
    return max(living, key=lambda each: _modified(each[0]))[1].url if living else _stack_url(project)


def _stack_url(project: Project) -> str:
    """That of the stack's console, which has begun and not noted it yet."""
    try:
        status = read_status(project.state)
    except IntegrityError:
        return ""
    for child in () if status is None else status.children:
        is_running = child.process is not None and is_here(child.process) and not is_gone(child.process)
        if child.kind == "console" and is_running and is_loopback(urlsplit(child.url or "").hostname or ""):
            return child.url or ""
    return ""


def _notes(project: Project) -> list[tuple[Path, _Note]]:
    notes = []
    for path in (project.state / FOLDER).glob("api-*.json"):
        with suppress(OSError, msgspec.DecodeError):  # it was removed meanwhile, or is damaged
            notes.append((path, msgspec.json.decode(path.read_bytes(), type=_Note)))
    return notes


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # removed meanwhile
        return 0


def _own_path(project: Project) -> Path:
    return project.state / FOLDER / f"api-{os.getpid()}.json"
