"""The prediction log: what was asked and answered, written off the request's path by a process of its own.

`LogClient` stands in a worker and never waits, `ConfirmedClient` is for answers that wait for their rows; `command`
starts the process; `find`, `recent`, `gaps`, `scan` and `stored` read. pyarrow is imported in the process and by
readers only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.serving.log.client import LogClient
    from cumulant.serving.log.confirmed import ConfirmedClient
    from cumulant.serving.log.durable import sync
    from cumulant.serving.log.entry import Entry, Like, Tensor
    from cumulant.serving.log.hiding import as_held, personal_fields
    from cumulant.serving.log.parts import SCHEMA, Part
    from cumulant.serving.log.place import days, files, is_journal
    from cumulant.serving.log.reading import (
        Gap,
        Rows,
        find,
        gaps,
        numbered,
        recent,
        requests_by_second,
        stored,
    )
    from cumulant.serving.log.scanning import batches, batches_of, scan
    from cumulant.serving.log.starting import command

_HOMES = {
    "ConfirmedClient": "confirmed",
    "Entry": "entry",
    "Gap": "reading",
    "Like": "entry",
    "LogClient": "client",
    "Part": "parts",
    "Rows": "reading",
    "SCHEMA": "parts",
    "Tensor": "entry",
    "as_held": "hiding",
    "batches": "scanning",
    "batches_of": "scanning",
    "command": "starting",
    "days": "place",
    "files": "place",
    "find": "reading",
    "gaps": "reading",
    "is_journal": "place",
    "numbered": "reading",
    "personal_fields": "hiding",
    "recent": "reading",
    "requests_by_second": "reading",
    "scan": "scanning",
    "stored": "reading",
    "sync": "durable",
}

__all__ = [
    "SCHEMA",
    "ConfirmedClient",
    "Entry",
    "Gap",
    "Like",
    "LogClient",
    "Part",
    "Rows",
    "Tensor",
    "as_held",
    "batches",
    "batches_of",
    "command",
    "days",
    "files",
    "find",
    "gaps",
    "is_journal",
    "numbered",
    "personal_fields",
    "recent",
    "requests_by_second",
    "scan",
    "stored",
    "sync",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
