"""A step's call, result and error as JSON, for transfer between processes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable

import msgspec

from cumulant.core.errors import CumulantError, DefinitionError, StepFailedError
from cumulant.core.progress import Progress, silent
from cumulant.ports.compute import StepCall


class StepError(msgspec.Struct, frozen=True):
    """A step's error: its class as `module:name`, its message, and those of its attributes that JSON can hold."""

    kind: str
    message: str
    attributes: dict[str, object] = {}


class StepOutcome(msgspec.Struct, frozen=True):
    """The outcome of a step: its result or its error."""

    result: dict[str, object] = {}
    error: StepError | None = None


class StepProgress(msgspec.Struct, frozen=True, array_like=True):
    """One report of a step's progress."""

    text: str
    share: float | None = None


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


def describe(error: CumulantError) -> StepError:
    """`error` as JSON, without the attributes that JSON cannot hold."""
    attributes = {}
    for name, value in vars(error).items():
        try:
            attributes[name] = msgspec.json.decode(msgspec.json.encode(value))
        except (TypeError, msgspec.MsgspecError):
            continue
    return StepError(f"{type(error).__module__}:{type(error).__qualname__}", error.message, attributes)


def rebuild(failure: StepError) -> CumulantError:
    """The error that `failure` describes, of its own class; StepFailedError if that is no CumulantError."""
    kind = _error_class(failure.kind)
    error = kind.__new__(kind)
    CumulantError.__init__(error, failure.message)
    vars(error).update({name: _to_tuples(value) for name, value in failure.attributes.items()})
    return error


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


def _error_class(kind: str) -> type[CumulantError]:
    module, _, name = kind.partition(":")
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return StepFailedError
    return target if isinstance(target, type) and issubclass(target, CumulantError) else StepFailedError


def _to_tuples(value: object) -> object:
    return tuple(_to_tuples(part) for part in value) if isinstance(value, list) else value
