"""Errors and warnings as a notebook shows them: errors with their hint, and without the frames of this package."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from cumulant.core.errors import CumulantError, UserCodeError
from cumulant.core.system.user_code import without_internal_frames

_P = ParamSpec("_P")
_R = TypeVar("_R")
_C = TypeVar("_C", bound=type)


class RowWarning(UserWarning):
    """Rows were scored although they fail a check, such as a rule of the data contract."""


def short_errors(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function`, whose errors show what happened and the next step; `CUMULANT_DEBUG=1` shows everything."""

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        __tracebackhide__ = True  # notebooks leave such frames out
        try:
            return function(*args, **kwargs)
        except CumulantError as error:
            if os.environ.get("CUMULANT_DEBUG"):
                raise
            raise _shortened(error) from (error.__cause__ if isinstance(error, UserCodeError) else None)

    return call


def short_methods(kind: _C) -> _C:
    """The class, with `short_errors` of every public method."""
    for name, value in list(vars(kind).items()):
        if callable(value) and not name.startswith("_") and not isinstance(value, type):
            setattr(kind, name, short_errors(value))
    return kind


def _shortened(error: CumulantError) -> CumulantError:
    if error.hint and not getattr(error, "__notes__", None):
        error.add_note(f"next: {error.hint}")
    cause = error.__cause__
    if cause is not None:
        cause.__traceback__ = without_internal_frames(cause.__traceback__)
        cause.__suppress_context__ = True
    return error.with_traceback(without_internal_frames(error.__traceback__))
