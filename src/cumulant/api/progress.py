"""Progress in a notebook: one line that changes, gone at the end; nothing anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from cumulant.core.progress import Progress, silent
from cumulant.flows.reports import rendering

EVERY = 0.2


@contextmanager
def notebook_progress(title: str) -> Iterator[Progress]:
    """A line in a notebook, nothing elsewhere."""
    shell = _notebook()
    if shell is None:
        yield silent
        return
    line = ProgressLine(title)
    try:
        yield line.show
    finally:
        line.close()


class ProgressPage(msgspec.Struct, frozen=True):
    line: str


class ProgressLine:
    """One line below the cell: the step, its share and the time."""

    def __init__(self, title: str) -> None:
        from IPython import display

        self._html: Any = display.HTML
        self._title = title
        self._begun = time.monotonic()
        self._shown = 0.0
        self._handle: Any = display.display(self._html(""), display_id=True)  # type: ignore[no-untyped-call]

    def show(self, text: str, share: float | None = None) -> None:
        moment = time.monotonic()
        if moment - self._shown < EVERY:
            return
        self._shown = moment
        part = "" if share is None else f"{share:.0%}"
        spent = f"{moment - self._begun:.0f} s"
        line = " · ".join(item for item in (self._title, text, part, spent) if item)
        self._handle.update(self._html(rendering.render("notebook/progress.html.jinja", ProgressPage(line))))

    def close(self) -> None:
        self._handle.update(self._html(""))


def _notebook() -> object | None:
    """The running notebook kernel's shell; None where nothing has imported IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if shell is not None and hasattr(shell, "kernel") else None
