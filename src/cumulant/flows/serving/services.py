"""Notes of the folders and online tables that living processes serve from, which `clean` keeps."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cumulant.core.ids import digest, short
from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.flows.ledger.processes import Process, is_gone, process_of


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """A process and what it serves from: the servable's folder and, where features are stored, their table."""

    process: Process
    folder: str
    table: str | None = None


def note_use(uses: Path, pid: int, *, folder: str, table: str | None) -> None:
    """Note in the folder `uses` that a process of this machine serves from these, until that process ends.

    Raises:
        StorageError: the folder cannot be written.
    """
    use = Use(process=process_of(pid), folder=folder, table=table)
    path = uses / f"{pid}-{short(digest(use))}.json"
    with storage_errors(path):
        uses.mkdir(parents=True, exist_ok=True)
        replace_file(path, msgspec.json.encode(use), durable=False)


def list_uses(uses: Path) -> list[Use]:
    """What processes that have not certainly ended serve from; notes of ended ones are removed."""
    living = []
    for path in sorted(uses.glob("[!.]*.json")):
        try:
            use = msgspec.json.decode(path.read_bytes(), type=Use)
        except FileNotFoundError:  # another process tidied first
            continue
        if is_gone(use.process):
            path.unlink(missing_ok=True)
        else:
            living.append(use)
    return living
