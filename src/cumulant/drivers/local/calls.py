"""Calls the function of a step."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable

import msgspec

from cumulant.core.errors import CumulantError, DefinitionError, StepFailedError
from cumulant.core.progress import Progress, silent
from cumulant.ports.compute import StepCall


def run(call: StepCall, progress: Progress = silent) -> dict[str, object]:
    """Call the step's function with its arguments by name; returns its result as JSON values.

    Raises:
        CumulantError: the step's own, as itself.
        DefinitionError: the function cannot be imported or its result is no JSON object.
        StepFailedError: any other error of the step.
    """
    function = _load(call.function)
    try:
        result = function(**call.arguments, **_reporting(function, progress))
    except CumulantError:
        raise
    except Exception as error:  # the edge to a step's own code
        raise StepFailedError(
            f"step {call.shown} raised {type(error).__name__}: {error}", subject=call.shown
        ) from error
    try:
        return msgspec.json.decode(msgspec.json.encode(result), type=dict[str, object])
    except (TypeError, msgspec.MsgspecError) as error:
        raise DefinitionError(
            f"the result of step {call.shown} is not a JSON object: {error}", subject=call.shown
        ) from error


def _reporting(function: Callable[..., object], progress: Progress) -> dict[str, Progress]:
    """The argument `progress`, where the function has such a parameter."""
    return {"progress": progress} if "progress" in inspect.signature(function).parameters else {}


def _load(function: str) -> Callable[..., object]:
    module, _, name = function.partition(":")
    try:
        target: object = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DefinitionError(
            f"step {function} cannot be imported: {error}", subject=function, hint="name it `module:function`"
        ) from error
    if not callable(target):
        raise DefinitionError(f"step {function} is not a function", subject=function)
    return target
