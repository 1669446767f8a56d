"""Rows that a killed log process left in journals become readable."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

from cumulant.serving.log import place
from cumulant.serving.log.durable import sync
from cumulant.serving.log.journal import Row, claimed
from cumulant.serving.log.parts import SCHEMA, Part, size_of

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_WORKER, _SEQUENCE = SCHEMA.get_field_index("worker"), SCHEMA.get_field_index("sequence")


def recover(folder: Path, seen: Callable[[str, int], object] | None = None) -> None:
    """Write the parts of journals that no process writes to, and remove these journals.

    `seen` is called with the worker and the number of each row, also where its part cannot be written.

    Raises:
        OSError: the disk is full or cannot be written; the journals that are left stay as they are.
    """
    failed: OSError | None = None
    for name in place.journals(folder):
        with claimed(name.path) as rows:
            if rows is None:
                continue
            if seen is not None:
                for row in rows:
                    seen(row[_WORKER], row[_SEQUENCE])
            try:
                _publish(folder, name, rows)
            except OSError as error:
                failed = error
            except (TypeError, ValueError):  # of another release, as a damaged file
                name.path.rename(name.path.with_suffix(".damaged"))
    if failed is not None:
        raise failed


def _publish(folder: Path, name: place.File, rows: list[Row]) -> None:
    # A kill between the part's renaming and the journal's removal leaves both.
    parts = place.listed(folder, name.day)
    written = any(part.life == name.life and part.first <= name.first <= part.last for part in parts)
    if rows and not written:
        part = Part(folder, name.day.toordinal() - _EPOCH_ORDINAL, name.life, name.first)
        try:
            for row in rows:
                part.add(row, size_of(row))
            part.close()
        except BaseException:
            part.discard()
            raise
        sync(name.path.parent)
    name.path.unlink(missing_ok=True)
