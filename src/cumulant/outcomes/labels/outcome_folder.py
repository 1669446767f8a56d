"""The folder of outcomes by names: which batches of labels are in it, and what is known of each. No tables."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from cumulant.core.errors import StorageError
from cumulant.core.system.json_files import read_json

#: how often files are listed again that are merged while they are read
LISTINGS = 100
LABELS, WRITING, INBOX, CLAIMED = "labels", "writing", "inbox", "claimed"
MERGED, POSTED = "merged-", "posted-"


def vanishing_files_error(place: Path | str, what: str = "files of the prediction log") -> StorageError:
    """The error for files that vanished in each of `LISTINGS` lists."""
    return StorageError(
        f"{what} vanish while they are read", subject=str(place), hint="check for a program that deletes files there"
    )


class IngestedFile(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one file. `rows` were read; `problems` counts those that cannot be used, by reason."""

    name: str
    content: str
    received: datetime
    rows: int
    problems: dict[str, int] = {}
    #: of a merged one: how often its rows were merged, and what it is made of: as it was known, and by name
    level: int = 0
    covers: tuple[IngestedFile, ...] = ()
    made_of: tuple[str, ...] = ()


def find_ingested(folder: Path, content: str) -> IngestedFile | None:
    """The facts of the file with that content, if it was ingested."""
    ingested = _read_ingested(folder, content)
    if ingested is not None:
        return ingested
    return next((part for merged in list_merged(folder) for part in merged.covers if part.content == content), None)


def list_merged(folder: Path) -> list[IngestedFile]:
    """The merged batches."""
    ingested = (_read_ingested(folder, path.name) for path in (folder / LABELS).glob(f"{MERGED}*"))
    return [batch for batch in ingested if batch is not None]


def list_batches(folder: Path) -> list[str]:
    """The names of all ingested batches, each row once."""
    try:
        names = [path.name for path in (folder / LABELS).iterdir() if path.is_dir()]
    except OSError:
        return []
    covered = {part.content for merged in list_merged(folder) for part in merged.covers}
    return sorted(set(names) - covered)


def _read_ingested(folder: Path, content: str) -> IngestedFile | None:
    return read_json(folder / LABELS / content / "file.json", IngestedFile)


def list_parts(folder: Path, batch: str) -> list[Path]:
    return sorted((folder / LABELS / batch).glob("[0-9]*.parquet"))
