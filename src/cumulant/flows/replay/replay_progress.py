"""The state of a replay as a file, from which an interrupted one resumes."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path

import msgspec

from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.core.system.json_files import read_json

_FILE = "replay.json"


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The replay that is requested: a different one begins anew. Times are microseconds since 1970 UTC."""

    model: str
    since: int
    until: int


class ReplayState(msgspec.Struct, kw_only=True):
    """`id` begins the ids that its requests send. Rows before `sent` were requested, `labels_sent` labels posted."""

    request: ReplayRequest
    id: str
    sent: int = 0
    labels_sent: int = 0
    #: request ids of answered rows whose labels were not posted yet, by the number of the row
    ids: dict[int, str] = {}


def load_or_begin(state: Path, request: ReplayRequest, *, again: bool = False) -> ReplayState:
    """Where the same replay was cut off, or its beginning."""
    stored = read_json(state / _FILE, ReplayState)
    if stored is None or again or stored.request != request:
        return ReplayState(request=request, id=f"replay-{secrets.token_hex(4)}")
    return stored


def write_state(state: Path, reached: ReplayState) -> None:
    """Write the state atomically.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = state / _FILE
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, msgspec.json.encode(reached), durable=False)


def delete_state(state: Path) -> None:
    with contextlib.suppress(OSError):
        (state / _FILE).unlink()
