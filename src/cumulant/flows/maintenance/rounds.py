"""Work that a long-lived process repeats in a background thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: seconds for which the end waits for a round under way
_LAST = 2.0


@contextmanager
def repeat_in_background(
    project: Project, work: Callable[[], object], report: Callable[[str], object], *, failure: str, pause: float
) -> Iterator[None]:
    """Call `work` each `pause` seconds while the block lasts. Errors go to `report`, after the words of `failure`."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(pause):
            try:
                work()
            except Exception as error:  # noqa: BLE001 - the edge: the process goes on, and the next round tries again
                text = str(error) if isinstance(error, CumulantError) else f"{type(error).__name__}: {error}"
                report(f"{failure}: {project.vault.redact(text)}")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_LAST)
