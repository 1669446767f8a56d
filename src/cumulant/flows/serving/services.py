"""Notes of the folders and online tables that living processes serve from, which `clean` keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.events import Actor
from cumulant.core.ids import digest, short
from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.flows.ledger.processes import Process, is_gone, is_here, process_of
from cumulant.project.host_name import host_name

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: journal rows: processes that serve from online tables which other machines see
TABLE_USE = "table_use"
_ACTOR = Actor("service:serving")


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


class TableUse(msgspec.Struct, frozen=True, kw_only=True):
    """A process, on any machine, and the online table that it serves from."""

    process: Process
    table: str


def share_table_use(project: Project, pid: int, table: str) -> None:
    """Note for all machines that a process of this one serves from an online table, until that process ends.

    Raises:
        CumulantError: the journal does not answer.
    """
    journal, use = project.journal(), TableUse(process=process_of(pid), table=table)
    ended = [row.key for row in journal.rows(TABLE_USE) if _has_ended(msgspec.convert(row.value, TableUse).process)]
    with journal.transaction(actor=_ACTOR) as transaction:
        for key in ended:
            transaction.delete(TABLE_USE, key)
        transaction.put(TABLE_USE, short(digest(use)), msgspec.to_builtins(use))


def shared_tables(project: Project) -> set[str]:
    """The online tables that processes serve from that may run, on any machine: one of a machine that never comes back
    counts as well.
    """
    uses = (msgspec.convert(row.value, TableUse) for row in project.journal().rows(TABLE_USE))
    return {use.table for use in uses if not _has_ended(use.process)}


def _has_ended(process: Process) -> bool:
    """Whether that is certain: also where this machine, by its name, has started again since."""
    return is_gone(process) or (process.host.partition(":")[0] == host_name() and not is_here(process))
