"""Delivery of alerts in a background thread of a long-lived process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cumulant.flows.alerting.alerts import advance
from cumulant.flows.alerting.dispatcher import Dispatcher
from cumulant.flows.maintenance.rounds import repeat_in_background

if TYPE_CHECKING:
    from cumulant.project.project import Project

_ROUND, _ADVANCE = 1.0, 60.0
#: seconds for which the end waits for a message under way; what is not taken by then is sent again by the next
_LAST = 2.0


@contextmanager
def deliver_in_background(project: Project, report: Callable[[str], None]) -> Iterator[None]:
    """Deliver what waits, about every second, while the block lasts. Errors go to `report`."""
    dispatcher, due = Dispatcher(project, report=report), 0.0

    def deliver() -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + _ADVANCE
            advance(project)
        dispatcher.round()

    try:
        with repeat_in_background(project, deliver, report, failure="messages wait", pause=_ROUND):
            yield
    finally:
        dispatcher.wait(_LAST)
