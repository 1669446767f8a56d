"""A background task of the controller: a registry or receiver that hangs does not block its rounds."""

from __future__ import annotations

import threading
from collections.abc import Callable

from cumulant.core.errors import CumulantError


class BackgroundTask:
    """One piece of work at a time, in a thread that ends with the process.

    Args:
        what: begins the sentence that tells of a failure.
        redact: takes secrets out of that sentence.
    """

    def __init__(self, what: str, report: Callable[[str], None], redact: Callable[[str], str]) -> None:
        self._what, self._report, self._redact = what, report, redact
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def begin(self, work: Callable[[], None]) -> threading.Thread:
        """The thread that does it; call this only while it is not busy."""
        self._thread = threading.Thread(target=self._do, args=(work,), daemon=True)
        self._thread.start()
        return self._thread

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except CumulantError as error:
            self._report(f"{self._what}: {self._redact(error.message)}")
        except Exception as error:  # noqa: BLE001 - the edge: a driver's fault is told, and tried again
            self._report(f"{self._what}: {self._redact(f'{type(error).__name__}: {error}')}")
