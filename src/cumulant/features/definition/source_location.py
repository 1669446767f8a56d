"""Locations in a user's file, so that an error can name the line."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from cumulant.core.errors import DefinitionError


class SourceLine(msgspec.Struct, frozen=True):
    """A line of a user's file; shown as `features.py:23`."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


def caller_line() -> SourceLine:
    """The innermost line outside this package: where the user called it."""
    frame = sys._getframe(1)  # noqa: SLF001  (inspect.currentframe is the same call, and inspect is slow to import)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith(__package__):
        frame = frame.f_back
    return SourceLine(frame.f_code.co_filename, frame.f_lineno)


def definition_error(message: str, *, place: SourceLine | None = None, hint: str | None = None) -> DefinitionError:
    """A DefinitionError that begins with the user's file and line."""
    where = place or caller_line()
    return DefinitionError(f"{where}: {message}", subject=str(where), hint=hint)
