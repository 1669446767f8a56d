"""The report of an exception in a user's code: its text, and the frames that are not of this package."""

from __future__ import annotations

import builtins
import re
import sys
import traceback
from pathlib import Path
from types import TracebackType

from cumulant.core.errors import did_you_mean

_PACKAGE = str(Path(__file__).parents[2])
_NOT_IMPORTED = re.compile(r"cannot import name '(.+?)' from '(.+?)'")
#: where a module was found, which Python adds to the name of a missing import
_FOUND_AT = re.compile(r" \((?:/|[A-Za-z]:).*\)(?=$|\. Did)")


def python_message(error: BaseException) -> str:
    """`NameError: name 'amout' is not defined`: the last line of a traceback, without the path of a module."""
    lines = traceback.TracebackException.from_exception(error, limit=0).format_exception_only()
    return _FOUND_AT.sub("", "".join(lines).strip())


def nearest_name(error: BaseException) -> str | None:
    """`did you mean "x"?` where the code used a name or an attribute that does not exist; None where none is near."""
    if isinstance(error, AttributeError) and error.name:
        return did_you_mean(error.name, [name for name in dir(error.obj) if not name.startswith("_")])
    if isinstance(error, NameError) and error.name:
        return did_you_mean(error.name, _names_at(error.__traceback__))
    missing = _NOT_IMPORTED.match(str(error)) if isinstance(error, ImportError) else None
    holder = sys.modules.get(missing[2]) if missing else None
    known = [*dir(holder), *getattr(holder, "__all__", ())]
    return did_you_mean(missing[1], known) if missing and holder else None


def _names_at(trace: TracebackType | None) -> list[str]:
    if trace is None:
        return []
    while trace.tb_next is not None:
        trace = trace.tb_next
    return [*trace.tb_frame.f_locals, *trace.tb_frame.f_globals, *dir(builtins)]


def next_step(error: BaseException) -> str | None:
    """The nearest name, or the package to install; None where the error names neither."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install {error.name.partition('.')[0]} where Cumulant is installed, or correct its name"
    return nearest_name(error)


def is_internal(file: str) -> bool:
    """Whether a frame's file is of this package, or of Python's import system."""
    return file.startswith(("<frozen ", _PACKAGE))


def without_internal_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback with the frames of users' code and of the libraries that it calls."""
    frames = []
    while trace is not None:
        if not is_internal(trace.tb_frame.f_code.co_filename):
            frames.append(trace)
        trace = trace.tb_next
    shortened: TracebackType | None = None
    for frame in reversed(frames):
        shortened = TracebackType(shortened, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return shortened
