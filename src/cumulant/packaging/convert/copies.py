"""A servable that exists already, under another name or in another place."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from cumulant.core.servable import GraphServable, Servable
from cumulant.servable.folder import load_description, new_folder, write_sealed


def copy_servable(source: Path, out: Path, *, name: str | None = None) -> Servable | GraphServable:
    """Copy the files that the servable in `source` lists, once each is found unaltered; `name` renames the copy.

    Raises:
        NotFoundError, IntegrityError: there is no servable, or a file was altered.
        StorageError: the folder cannot be written.
    """
    description = load_description(source)
    with new_folder(out) as folder:
        for path in description.files:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, folder / path)
        named = description if name is None else msgspec.structs.replace(description, name=name, version="")
        return write_sealed(folder, named)
