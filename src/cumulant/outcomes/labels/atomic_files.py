"""Files that are written whole and durable, or not at all. Without Arrow, whose import takes 0.1 CPU s."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from cumulant.serving.prediction_log.storage.durable import sync

#: bytes of a hash
_HASH = 32


@contextlib.contextmanager
def atomic_draft(path: Path) -> Iterator[Path]:
    """A draft that is at `path` after the block, whole and durable, or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        sync(draft)
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Put a file in place whole. Raises OSError."""
    with atomic_draft(path) as draft:
        draft.write_bytes(content)


def write_checked(path: Path, content: bytes) -> None:
    """Put a file in place whole, with a hash of its content for `read_checked`. Raises OSError."""
    write_bytes(path, hashlib.sha256(content).digest() + content)


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
