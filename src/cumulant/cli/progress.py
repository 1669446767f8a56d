"""Live progress of a flow on standard error, driven by the flow's own progress calls.

A text without a share begins a step: a flow reports a step's name before it works on it. A text with a share is a
detail of the step that runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cumulant.core.progress import Progress, begins_step, silent
from cumulant.flows.reports.terminal import clean
from cumulant.flows.reports.wording import duration as seconds

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

    from cumulant.cli.output import CommandOutput

BAR = 24
#: seconds without a line after which the detail of a step is one
QUIET = 15.0


@contextmanager
def show_progress(title: str, output: CommandOutput) -> Iterator[Progress]:
    """A `Progress` that is shown on standard error as that allows: live, as lines, or not at all."""
    console = output.notices()
    if console.is_terminal and not console.is_dumb_terminal:
        from rich.live import Live

        steps = Steps(title)
        with Live(steps, console=console, refresh_per_second=8, transient=True, redirect_stdout=False):
            yield steps.say
    elif output.json:
        yield silent
    else:
        yield ProgressLines(console).say


class ProgressLines:
    """One plain line for each step, when it begins, and the detail of a long one after each `QUIET` seconds."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._last, self._step = "", ""
        self._at = clock()

    def say(self, text: str, share: float | None = None) -> None:
        if begins_step(text, share):
            if text != self._step:
                self._step = text
                self._print(text)
        elif text not in (self._step, self._last) and self._clock() - self._at >= QUIET:
            self._print(text)

    def _print(self, text: str) -> None:
        self._last, self._at = text, self._clock()
        self._console.print(clean(text), style="dim")


class Steps:
    """The steps so far with their times; the one that runs with its detail and a bar."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._begun = time.monotonic()
        self._done: list[tuple[str, float]] = []
        self._now: str | None = None
        self._since = self._begun
        self._detail = ""
        self._share: float | None = None

    def say(self, text: str, share: float | None = None) -> None:
        """Record the step or its detail. Called from the thread that works, read by the one that draws."""
        if not begins_step(text, share):
            self._detail, self._share = text if text != self._now else "", share
        elif text != self._now:
            moment = time.monotonic()
            if self._now is not None:
                self._done.append((self._now, moment - self._since))
            self._now, self._since, self._detail, self._share = text, moment, "", None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        moment, width = time.monotonic(), options.max_width
        yield Text.assemble((clean(self._title), "bold"), ("  " + seconds(moment - self._begun), "dim"))
        lines = max(1, (options.height or console.height) - 4)
        for step, spent in self._done[-lines:]:
            yield _line(("✓ ", "green"), clean(step), f"  {seconds(spent)}", width)
        if self._now is not None or self._detail:
            text = " · ".join(part for part in (clean(self._now or ""), clean(self._detail)) if part)
            yield _line((_spinner(moment), "cyan"), text, f"  {seconds(moment - self._since)}", width)
            if self._share is not None:
                yield _bar(self._share, max(4, min(BAR, width - 10)))


def _spinner(moment: float) -> str:
    frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
    return frames[int(moment * 10) % len(frames)] + " "


def _line(mark: tuple[str, str], text: str, tail: str, width: int) -> Text:
    from rich.text import Text

    limit = max(8, width - len(tail) - 4)
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return Text.assemble(mark, text, (tail, "dim"), no_wrap=True)


def _bar(share: float, width: int) -> Text:
    from rich.text import Text

    full = round(min(max(share, 0.0), 1.0) * width)
    return Text.assemble("  ", ("━" * full, "cyan"), ("━" * (width - full), "bright_black"), f" {share:>4.0%}")
