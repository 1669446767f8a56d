"""A folder that a step writes and stores as one object."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.ports.objects import ObjectStore


@contextmanager
def stored_folder(objects: ObjectStore, key: str, name: str) -> Iterator[Path]:
    """A new folder of that name, to be filled; it is stored under `key` when the block ends without an error."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        yield folder
        objects.put(key, folder)
