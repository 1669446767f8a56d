"""Checkpoints of the event chain in a background thread of a long-lived process."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError
from cumulant.flows.maintenance.schedule import CHECKPOINTS, tick

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: seconds between two looks at whether one is due, and for which the end waits for one under way
_ROUND, _LAST = 60.0, 2.0


@contextmanager
def sign_in_background(project: Project, report: Callable[[str], object], *, pause: float = _ROUND) -> Iterator[None]:
    """Write a checkpoint whenever one is due, while the block lasts, where the environment has a place for them."""
    if project.endpoints.audit is None:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_run, args=(project, ended, report, pause), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_LAST)


def _run(project: Project, ended: threading.Event, report: Callable[[str], object], pause: float) -> None:
    while not ended.wait(pause):
        try:
            _, error = tick(project, principal=project.principal(), jobs=[CHECKPOINTS])
            if error is not None:
                raise error
        except (CumulantError, OSError, sqlite3.Error) as error:
            report(f"no checkpoint of events: {project.vault.redact(str(error))}")
