"""JSON files of this program, which may be missing or damaged."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

Content = TypeVar("Content")


def read_json(path: Path, kind: type[Content]) -> Content | None:
    """The content of a file; None where it is missing, cannot be read, or holds no such value."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
