"""Paths as texts show them: named from a project's folder, so that nobody learns where that lies."""

from __future__ import annotations

import re
from pathlib import Path


def without_folder(text: str, folder: Path) -> str:
    """`text` with paths in `folder` named from it, and `.` for the folder itself; other paths stay as they are."""
    path = str(folder)
    if path == folder.anchor:  # everything is in it
        return text
    # neither the end of a longer path, the bucket of a URL, nor the beginning of another name
    pattern = rf"(?<![\w.~-])(?<!:/){re.escape(path)}(/|(?![\w-]|\.\w))"
    return re.sub(pattern, lambda match: "" if match[1] else ".", text)
