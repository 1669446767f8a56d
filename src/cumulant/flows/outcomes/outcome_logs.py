"""The logs of a project's outcomes, and the lease of what one process at a time does with them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cumulant.core.errors import LeaseHeldError
from cumulant.core.events import Actor
from cumulant.flows.ledger.lease import LeaseWatch, holder_of, take_lease
from cumulant.outcomes.logs import OutcomeLogs

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: the lease of what one process at a time does: ingestion of posts, the join, merging. Messages name it
LABELS_LEASE = "labels"
#: seconds; a dead holder's lease ends while the next one waits for it
_TTL, _PATIENCE = 20.0, 60.0
_POLL = 0.05


def logs_of(project: Project) -> OutcomeLogs:
    """The logs of the project's outcomes, with what an earlier version kept in files of this machine."""
    from cumulant.flows.outcomes.earlier_files import has_earlier_files, move_earlier_files

    logs = OutcomeLogs(labels=project.log("labels"), joined=project.log("joined"), inbox=project.log("inbox"))
    if has_earlier_files(project.state):
        with exclusive(project, LABELS_LEASE):
            move_earlier_files(project.state, logs, project.log())
    return logs


@contextmanager
def exclusive(project: Project, name: str, *, patience: float = _PATIENCE) -> Iterator[None]:
    """Hold the lease of that name among all processes of the environment, on any machine.

    Raises:
        LeaseHeldError: another one has held it for `patience` seconds.
        CumulantError: the journal does not answer.
    """
    watch, until = LeaseWatch(), time.monotonic() + patience
    actor = Actor(project.principal().id)
    while (lease := take_lease(project.journal(), name, ttl=_TTL, actor=actor, watch=watch)) is None:
        if time.monotonic() >= until:
            holder = holder_of(project.journal(), name) or "another process"
            raise LeaseHeldError(
                f"{holder} is working on {name}", subject=project.name, hint="try again when it is done"
            )
        time.sleep(_POLL)
    with lease.renewed():
        yield
