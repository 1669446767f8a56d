"""The copies of servables on this machine that servers read."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.flows.registry.version_servable import copy_name, open_servable

if TYPE_CHECKING:
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project

#: the folder of this machine with these copies
SERVING = "serving"


def served_folder(project: Project, version: ModelVersion) -> Path:
    """Where on this machine the copy of the servable is that its servers read."""
    return project.state / SERVING / version.name / copy_name(version)


def copy_with_version(project: Project, version: ModelVersion) -> Path:
    """A copy of the servable that carries the registry's version number, so that answers name it."""
    target = served_folder(project, version)
    if (target / "servable.json").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
    with open_servable(project, version) as source:
        shutil.copytree(source, draft, dirs_exist_ok=True)
    (draft / "servable.json").chmod(0o644)
    from cumulant.servable.folder import with_salt, with_version

    with_version(draft, version.version)
    # The project itself gives the salt, and it may be one of another environment than that of the training.
    with_salt(draft, "")
    try:
        draft.rename(target)
    except OSError:  # another process was first, with the same content
        shutil.rmtree(draft, ignore_errors=True)
    return target
