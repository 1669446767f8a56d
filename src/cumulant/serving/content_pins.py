"""Content pins: a worker that starts later serves the same content as the others, whatever is on disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path

import msgspec

from cumulant.core.errors import CumulantError, IntegrityError, UsageError
from cumulant.core.ids import file_digest
from cumulant.core.servable import UNREGISTERED
from cumulant.servable.folder import DESCRIPTION, load_description

#: a larger file is linked rather than copied
_LARGE = 256 * 1024 * 1024


class Pin(msgspec.Struct, frozen=True):
    """One version's folder and its content: the description, which holds the SHA-256 of every other file."""

    name: str
    folder: str
    digest: str
    #: private folder with the same content; None: there is none
    copy: str | None = None

    @property
    def place(self) -> Path:
        """Folder to read from."""
        return Path(self.copy or self.folder)


def pin(folder: Path) -> Pin:
    """The servable in `folder` as it is now.

    Raises:
        NotFoundError, IntegrityError: as `load_description`.
    """
    name = load_description(folder, verify=False).name
    return Pin(name, str(folder), file_digest(folder / DESCRIPTION))


def refuse_duplicates(pins: Iterable[Pin]) -> None:
    """Raises UsageError where two folders hold the same version of a model, naming both."""
    seen: dict[tuple[str, str], str] = {}
    for pinned in pins:
        version = load_description(pinned.place, verify=False).version or UNREGISTERED
        other = seen.setdefault((pinned.name, version), pinned.folder)
        if other != pinned.folder:
            raise UsageError(
                f"model {pinned.name} version {version} is given twice: in {other} and in {pinned.folder}",
                subject=pinned.name,
                hint="remove one, or package it under another --name",
            )


def check(pinned: Pin, hint: str = "load the model again to serve what the folder holds now") -> None:
    """Raises IntegrityError where the folder holds another content by now."""
    try:
        same = file_digest(pinned.place / DESCRIPTION) == pinned.digest
    except OSError:
        same = False
    if not same:
        raise IntegrityError(
            f"{pinned.folder} no longer holds the content that is served", subject=pinned.folder, hint=hint
        )


def copy_content(pinned: Pin, place: Path) -> Pin:
    """Pin with a private copy of the content under `place`; `pinned` itself where the disk is full.

    Small files are copied, as some write over them in place; large ones are linked where the disk is the same.

    Raises:
        IntegrityError: the folder was changed while it was read.
    """
    folder, out = Path(pinned.folder), place / pinned.digest
    if not _is_whole(out):
        draft = place / f".{uuid.uuid4().hex}"
        try:
            for name in (DESCRIPTION, *load_description(folder, verify=False).files):
                _link(folder / name, draft / name)
            _put(draft, out)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            sys.stderr.write(f"{folder} is served without a copy: {error.strerror or error}; do not change it\n")
            return pinned
    copied = msgspec.structs.replace(pinned, copy=str(out))
    check(copied)
    return copied


def _put(draft: Path, out: Path) -> None:
    try:
        draft.rename(out)
    except OSError:  # another worker has just stored it, and it may be read already
        shutil.rmtree(draft if _is_whole(out) else out, ignore_errors=True)
        if draft.exists():
            draft.rename(out)


def _is_whole(folder: Path) -> bool:
    try:
        load_description(folder)
    except CumulantError:  # there is none, or a file that is linked was written over
        return False
    return True


def _link(path: Path, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    real = path.resolve()
    if real.stat().st_size > _LARGE:
        with contextlib.suppress(OSError):  # another disk, or one without links
            os.link(real, out)
            return
    shutil.copyfile(real, out)


def remove_unserved(before: Iterable[Pin], now: Iterable[Pin]) -> None:
    """Remove the copies of `before` that are not served any more."""
    served = {pinned.copy for pinned in now}
    for pinned in before:
        if pinned.copy is not None and pinned.copy not in served:
            shutil.rmtree(pinned.copy, ignore_errors=True)
