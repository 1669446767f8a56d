"""Overrides of a command for a step that may run on another machine: an object of its own, named at random.

They may hold what the journal must not: passwords in URLs, names of people. A queued step names the object. It is
deleted when nobody waits for the step any more, by its command, and where that was killed by a worker.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, IntegrityError
from cumulant.ports.step_queue import QUEUED_STEP, is_settled, readable

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal
    from cumulant.ports.objects import ObjectStore

OVERRIDES = "overrides"
"""The first part of the objects' keys."""


def store_overrides(objects: ObjectStore, overrides: dict[str, object]) -> str:
    """Store overrides; the object's key, "" where there are none."""
    if not overrides:
        return ""
    key = f"{OVERRIDES}/{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "overrides.json"
        file.write_bytes(msgspec.json.encode(overrides))
        objects.put(key, file)
    return key


@contextmanager
def overrides_for_step(
    objects: ObjectStore, journal: Journal, overrides: dict[str, object], *, step: str
) -> Iterator[str]:
    """The key of stored overrides while the block lasts, and as long as another caller waits for the queued step."""
    key = store_overrides(objects, overrides)
    try:
        yield key
    finally:
        with suppress(CumulantError):  # `cumulant data clean` deletes what is left
            if key and not _is_needed(journal, key, step):
                delete_overrides(objects, key)


def _is_needed(journal: Journal, key: str, step: str) -> bool:
    row = journal.get(QUEUED_STEP, step)
    if row is None or key not in msgspec.json.encode(row.value).decode():
        return False
    return not any(is_settled(queued) for _, queued in readable([row]))


def read_overrides(objects: ObjectStore, key: str) -> dict[str, object]:
    """The stored overrides of a step; none where it names no object.

    Raises:
        NotFoundError: the object is gone.
        IntegrityError: it cannot be read, or the key is of another object.
    """
    if not key:
        return {}
    _check(key)
    with objects.open(key) as file:
        try:
            return msgspec.json.decode(file.read_bytes(), type=dict[str, object])
        except msgspec.DecodeError:
            raise _damaged(key) from None


def delete_overrides(objects: ObjectStore, key: str) -> None:
    """Delete the overrides of a step, if it has any. Raises IntegrityError: the key is of another object."""
    if key:
        _check(key)
        objects.delete(key)


def _check(key: str) -> None:
    if not key.startswith(f"{OVERRIDES}/"):
        raise _damaged(key)


def _damaged(key: str) -> IntegrityError:
    return IntegrityError(
        f"the stored overrides {key} cannot be read", subject=key, hint="run the command again, which stores its own"
    )
