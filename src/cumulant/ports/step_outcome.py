"""A step's result, error and progress as JSON, for transfer between processes."""

from __future__ import annotations

import importlib
import re
import sys

import msgspec

from cumulant.core.errors import CumulantError, StepFailedError

#: modules of Cumulant, of which none but `__main__` does anything when it is imported
_OWN = re.compile(r"cumulant(\.\w+)*(?<!\.__main__)")


class StepError(msgspec.Struct, frozen=True):
    """A step's error: its class as `module:name`, its message, and those of its attributes that JSON can hold."""

    kind: str
    message: str
    attributes: dict[str, object] = {}


class StepOutcome(msgspec.Struct, frozen=True):
    """The outcome of a step: its result or its error."""

    result: dict[str, object] = {}
    error: StepError | None = None

    def unwrap(self) -> dict[str, object]:
        """The result. Raises the step's error, of its own class."""
        if self.error is not None:
            raise rebuild(self.error)
        return self.result


class StepProgress(msgspec.Struct, frozen=True, array_like=True):
    """One report of a step's progress."""

    text: str
    share: float | None = None


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
    """The error that `failure` describes, of its own class if that is a CumulantError that this process knows, else a
    StepFailedError.
    """
    kind = _error_class(failure.kind)
    error = kind.__new__(kind)
    CumulantError.__init__(error, failure.message)
    vars(error).update({name: _to_tuples(value) for name, value in failure.attributes.items()})
    return error


def _error_class(kind: str) -> type[CumulantError]:
    """A class of Cumulant, or of a module that this process has loaded: whoever wrote the text imports no other."""
    name, _, attribute = kind.partition(":")
    try:
        module = sys.modules.get(name) or (importlib.import_module(name) if _OWN.fullmatch(name) else None)
    except ImportError:
        return StepFailedError
    target = getattr(module, attribute, None)
    return target if isinstance(target, type) and issubclass(target, CumulantError) else StepFailedError


def _to_tuples(value: object) -> object:
    return tuple(_to_tuples(part) for part in value) if isinstance(value, list) else value
