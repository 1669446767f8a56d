"""Where the API and the console of a project answer on this machine, for the links that sign its user in."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from cumulant.core.errors import StorageError, UsageError
from cumulant.core.network.hosts import is_loopback
from cumulant.core.network.urls import is_secure_url
from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.flows.ledger.processes import Process, is_gone, process_of
from cumulant.flows.stack.desired_state import FOLDER

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: that of `cumulant api` without `--http`
DEFAULT = "http://127.0.0.1:8700"


class _Note(msgspec.Struct, frozen=True):
    process: Process
    url: str


def note_address(project: Project, url: str) -> None:
    """Note where this process serves the project. A read-only state has no such note."""
    path = _path(project)
    with suppress(StorageError), storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, msgspec.json.encode(_Note(process_of(os.getpid()), url)), durable=False)


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
    """Where a server on loopback serves the project now; empty: none does."""
    try:
        note = msgspec.json.decode(_path(project).read_bytes(), type=_Note)
    except (OSError, msgspec.DecodeError):
        return ""
    return "" if is_gone(note.process) else note.url


def _path(project: Project) -> Path:
    return project.state / FOLDER / "api.json"
