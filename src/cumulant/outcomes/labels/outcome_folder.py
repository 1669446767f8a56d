"""The folder of outcomes by names: which batches of labels are in it, and what is known of each. No tables."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from cumulant.core.errors import StorageError

#: how often files are listed again that are merged while they are read
LISTINGS = 100
LABELS, WRITING, INBOX, CLAIMED = "labels", "writing", "inbox", "claimed"
MERGED, POSTED = "merged-", "posted-"


def vanishing(folder: Path, what: str = "files of the prediction log") -> StorageError:
    """What `LISTINGS` lists in a row that did not hold mean."""
    return StorageError(
        f"{what} vanish while they are read", subject=str(folder), hint="look for a program that deletes files there"
    )


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    """What one file said. `rows` were read; `problems` counts those that cannot be used, by reason."""

    name: str
    content: str
    received: datetime
    rows: int
    problems: dict[str, int] = {}
    #: of a merged one: how often its rows were merged, and what it is made of: as it was known, and by name
    level: int = 0
    covers: tuple[Ingested, ...] = ()
    made_of: tuple[str, ...] = ()


def ingested(folder: Path, content: str) -> Ingested | None:
    """What is known of the file with that content, if it was taken in."""
    found = _told(folder, content)
    if found is not None:
        return found
    return next((one for merged in merges(folder) for one in merged.covers if one.content == content), None)


def merges(folder: Path) -> list[Ingested]:
    """The merged batches."""
    found = (_told(folder, path.name) for path in (folder / LABELS).glob(f"{MERGED}*"))
    return [one for one in found if one is not None]


def batches(folder: Path) -> list[str]:
    """The names of all that was taken in, each row once."""
    try:
        names = [path.name for path in (folder / LABELS).iterdir() if path.is_dir()]
    except OSError:
        return []
    covered = {one.content for merged in merges(folder) for one in merged.covers}
    return sorted(set(names) - covered)


def _told(folder: Path, content: str) -> Ingested | None:
    try:
        return msgspec.json.decode((folder / LABELS / content / "file.json").read_bytes(), type=Ingested)
    except (OSError, msgspec.MsgspecError):
        return None


def parts(folder: Path, batch: str) -> list[Path]:
    return sorted((folder / LABELS / batch).glob("[0-9]*.parquet"))
