"""Files that are replaced in one step: readers, also after a crash, see the old content or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from cumulant.core.errors import StorageError

#: bytes of a hash
_HASH = 32


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Raises:
        OSError: they do not get there.
    """
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder; its renames are durable by themselves
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_draft(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A draft beside `path`, to be written in the block; it then replaces `path`, or is removed where anything failed.

    `durable`: content and name are on the disk after the block.

    Raises:
        OSError: it cannot be written; the old content stays.
    """
    draft = path.with_name(f".{path.name}.{threading.get_native_id()}")
    try:
        yield draft
        if durable:
            sync(draft)
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def replace_file(path: Path, content: bytes, *, durable: bool = True, private: bool = False) -> None:
    """Replace a file whose folder exists; as `atomic_draft`. `private`: only its owner can read and write it."""
    with atomic_draft(path, durable=durable) as draft:
        draft.unlink(missing_ok=True)  # of a killed thread of the same number
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)


def write_checked(path: Path, content: bytes) -> None:
    """Replace a file, with a hash of its content for `read_checked`, and make its folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, hashlib.sha256(content).digest() + content)


def read_checked(path: Path) -> bytes | None:
    """What `write_checked` wrote; None where it is not there or damaged."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    content = stored[_HASH:]
    return content if stored[:_HASH] == hashlib.sha256(content).digest() else None


def file_version(path: Path) -> list[object]:
    """What is another once a file is written or replaced, whatever time it is given. Raises FileNotFoundError."""
    stat = path.stat()
    return [path.parent.name, path.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


@contextlib.contextmanager
def storage_errors(path: Path, *, hint: str | None = None) -> Iterator[None]:
    """Raise a system error of writing `path` as a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}", subject=str(path), hint=hint
        ) from error
