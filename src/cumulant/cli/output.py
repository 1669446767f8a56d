"""The output of a command: text, or one JSON document."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console


class CommandOutput:
    """Standard output and error of one command; in JSON mode, all but the document goes to standard error."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.documents = 0
        #: what to tell where the command is interrupted
        self.interrupted = "run the same command again to continue from the last finished step"
        #: removes secret values from the texts of errors; a loaded project sets its own
        self.redact: Callable[[str], str] = str
        self._before: IO[str] = sys.stdout
        self._stream: IO[str] = sys.stdout
        self._saved: int | None = None

    def __enter__(self) -> Self:
        self._before = self._stream = sys.stdout
        if self.json:
            self.flush()
            if _descriptor(sys.stdout) == 1:
                self._saved = os.dup(1)
                os.dup2(2, 1)
                self._stream = os.fdopen(os.dup(self._saved), "w", encoding="utf-8")
            sys.stdout = sys.stderr
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self.flush()
        sys.stdout = self._before
        if self._saved is not None:
            os.dup2(self._saved, 1)
            os.close(self._saved)
            with suppress(BrokenPipeError):
                self._stream.close()

    def flush(self) -> None:
        for stream in (self._stream, sys.stderr):
            stream.flush()

    def document(self, value: object, *, compact: bool = False) -> None:
        """Write one JSON document: indented, or on one line where documents follow each other."""
        import msgspec

        from cumulant.core.structs import json_value

        text = msgspec.json.encode(value, enc_hook=json_value)
        text = text if compact else msgspec.json.format(text, indent=2)
        self._stream.write(text.decode() + "\n")
        self._stream.flush()
        self.documents += 1

    def console(self) -> Console:
        return _console(self._stream)

    def notices(self) -> Console:
        """A console on standard error: progress, warnings, errors."""
        return _console(sys.stderr)

    def detach(self) -> None:
        """Discard the rest of the output, whose reader has closed it."""
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device
            for stream in (self._before, self._stream):
                number = _descriptor(stream)
                if number is not None:
                    os.dup2(nowhere.fileno(), number)


def print_rest(console: Console, count: int, total: int | None, *, option: str = "--limit N") -> None:
    """Print `20 of 1,234; --limit N for more` where a list is cut. `total`: None where there are more, not counted."""
    if total is None:
        console.print(f"the newest {count:,}; {option} for more", style="dim")
    elif count < total:
        console.print(f"{count:,} of {total:,}; {option} for more", style="dim")


def wants_colour(stream: IO[str]) -> bool:
    """Whether `stream` is a terminal and plain text is not requested (`NO_COLOR`, `TERM=dumb`)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _console(stream: IO[str]) -> Console:
    from rich.console import Console

    terminal = stream.isatty()
    # A pipe or file has no width: let tables be wide instead of cutting what a program may grep for.
    width = None if terminal else int(os.environ.get("COLUMNS", "0") or 0) or 160
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def _descriptor(stream: IO[str]) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):  # a test's buffer has none
        return None
