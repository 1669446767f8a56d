"""The memory that a command may take, and where it sets rows aside that do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.core.system.memory import memory_limit

if TYPE_CHECKING:
    from pathlib import Path

    from cumulant.data.parts.spill import MemoryBudget
    from cumulant.project.project import Project

#: the folder of the state in which rows are set aside meanwhile
SPILL = "spill"


def scratch_folder(project: Project) -> Path:
    """The folder of this machine for rows that do not fit into memory; they go with their command."""
    return project.state / SPILL


def memory_budget(project: Project) -> MemoryBudget:
    """What `resources.memory` allows, and the project's folder for rows that do not fit."""
    from cumulant.data.parts.spill import MemoryBudget

    return MemoryBudget(memory_limit(project.policies.memory), scratch_folder(project))
