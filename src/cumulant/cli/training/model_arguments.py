"""Models that a command's words name: folders, or a project's versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import NotFoundError, did_you_mean

if TYPE_CHECKING:
    from cumulant.cli.invocation import Invocation


def in_project(call: Invocation) -> bool:
    """Whether there is a project in this folder, or one that the command names."""
    return call.given is not None or (call.directory / "cumulant.yaml").is_file()


def check_named(call: Invocation, name: str) -> None:
    """Raises NotFoundError for a name that is no folder, where there is no project that could have such a model."""
    if name and not Path(name).is_dir() and not in_project(call):
        hint = nearest(name) or "name a folder that `cumulant package` wrote, or work in a project"
        raise NotFoundError(f'there is no folder or model "{name}"', subject=name, hint=hint)


def nearest(name: str) -> str | None:
    """The folder beside `name` that it may be a slip of."""
    path = Path(name)
    try:
        beside = [str(path.parent / entry.name) for entry in path.parent.iterdir() if entry.is_dir()]
    except OSError:
        return None
    return did_you_mean(str(path), beside)
