"""What texts for callers leave out: values of secrets, and where on its machine a project lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cumulant.core.system.shown_paths import without_folder

if TYPE_CHECKING:
    from cumulant.project.project import Project


def redaction_of(project: Project) -> Callable[[str], str]:
    """Replaces secrets by their references, and names files as they are named from the project's folder."""

    def redact(text: str) -> str:
        return without_folder(project.vault.redact(text), project.root)

    return redact


def redacted_value(redact: Callable[[str], str], value: Any) -> Any:
    """A value of a setting, with `redact` applied to each text in it."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {name: redacted_value(redact, each) for name, each in value.items()}
    return [redacted_value(redact, each) for each in value] if isinstance(value, list | tuple) else value
