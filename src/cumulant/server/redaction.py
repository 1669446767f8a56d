"""What texts for callers leave out: values of secrets, and where on its machine a project lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.project.project import Project


def redaction_of(project: Project) -> Callable[[str], str]:
    """Replaces secrets by their references, and names files as they are named from the project's folder."""
    folder = str(project.root)

    def redact(text: str) -> str:
        return project.vault.redact(text).replace(f"{folder}/", "").replace(folder, ".")

    return redact
