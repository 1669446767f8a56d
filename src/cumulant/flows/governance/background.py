"""Checkpoints of the event chain in a background thread of a long-lived process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from cumulant.flows.maintenance.rounds import repeat_in_background
from cumulant.flows.maintenance.schedule import CHECKPOINTS, tick

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: seconds between two looks at whether one is due
_ROUND = 60.0


def sign_in_background(
    project: Project, report: Callable[[str], object], *, pause: float = _ROUND
) -> AbstractContextManager[None]:
    """Write a checkpoint whenever one is due, while the block lasts, where the environment has a place for them."""
    if project.endpoints.audit is None:
        return nullcontext()

    def sign() -> None:
        _, error = tick(project, principal=project.principal(), jobs=[CHECKPOINTS])
        if error is not None:
            raise error

    return repeat_in_background(project, sign, report, failure="no checkpoint of events", pause=pause)
