"""Delivery of alerts in a background thread of a long-lived process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError
from cumulant.flows.alerting.alerts import advance
from cumulant.flows.alerting.dispatcher import Dispatcher

if TYPE_CHECKING:
    from cumulant.project.project import Project

_ROUND, _ADVANCE = 1.0, 60.0
#: seconds for which the end waits for a message under way; what is not taken by then is sent again by the next
_LAST = 2.0


@contextmanager
def deliver_in_background(project: Project, report: Callable[[str], None]) -> Iterator[None]:
    """Deliver what waits, about every second, while the block lasts. Errors go to `report`."""
    ended = threading.Event()
    thread = threading.Thread(target=_run, args=(project, ended, report), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_LAST + _ROUND)


def _run(project: Project, ended: threading.Event, report: Callable[[str], None]) -> None:
    dispatcher, due = Dispatcher(project, report=report), 0.0
    while not ended.wait(_ROUND):
        try:
            if time.monotonic() >= due:
                due = time.monotonic() + _ADVANCE
                advance(project)
            dispatcher.round()
        except CumulantError as error:
            report(f"messages wait: {project.vault.redact(error.message)}")
        except Exception as error:  # noqa: BLE001 - the edge: requests go on, and the next round tries again
            fault = project.vault.redact(str(error))
            report(f"a fault of the delivery of messages, which tries again: {type(error).__name__}: {fault}")
    dispatcher.wait(_LAST)
