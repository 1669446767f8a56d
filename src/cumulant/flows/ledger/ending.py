"""The end of a process that works with the journal, which may not answer just then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from cumulant.core.errors import CumulantError
from cumulant.ports.journal import Journal

#: seconds for the work to end by itself, and for the journal to answer where it does not
_GRACE, _ANSWER = 2.0, 2.0
#: seconds for the work to end while the journal answers: a write may wait for a lock, or for a replica that is gone
_LONGEST = 10.0
#: seconds between two looks for a signal: one that comes just before a wait begins does not end the wait
_LOOK = 0.5
_AWAY = "the journal does not answer: this process ends without it"


def run_until_ended(
    work: Callable[[], object], ended: threading.Event, journal: Journal, report: Callable[[str], object]
) -> bool:
    """Run `work`, which returns soon after `ended` is set; whether it did and the journal answers, which other threads
    of the process may wait for. For work that may be killed at any point.

    Where the journal does not answer, a client may wait for it for a minute. Then, or after `_LONGEST` seconds, the
    work is left to its thread, which ends with the process, and `report` is given the reason. What `work` raises is
    raised here.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
            failures.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=run, name="cumulant-work", daemon=True)
    thread.start()
    while not ended.wait(_LOOK):
        pass
    deadline = time.monotonic() + _LONGEST
    thread.join(_GRACE)
    while thread.is_alive():
        if not _answers(journal):
            report(_AWAY)
            return False
        if time.monotonic() > deadline:
            report(f"what is under way has not ended within {_LONGEST:.0f} s: this process ends without it")
            return False
        thread.join(_GRACE)
    if failures:
        raise failures[0]
    if not _answers(journal):
        report(_AWAY)
        return False
    return True


def _answers(journal: Journal) -> bool:
    answered = threading.Event()

    def read() -> None:
        with suppress(CumulantError):
            journal.head()
            answered.set()

    threading.Thread(target=read, name="cumulant-journal", daemon=True).start()
    return answered.wait(_ANSWER)
