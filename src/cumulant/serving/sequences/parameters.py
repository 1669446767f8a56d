"""The parameters of the protocol's sequence extension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cumulant.core.errors import RequestError
from cumulant.serving.scheduling.job_queue import SequencePosition

_UINT64 = 2**64
_MAX_TEXT = 256
_MAX_STEP = 2**62


def sequence_of(parameters: Mapping[str, Any]) -> SequencePosition | None:
    """The request's place in a sequence; None where it names none, as 0 and "" do not.

    Raises:
        RequestError: a parameter has a value that it cannot have.
    """
    given = parameters.get("sequence_id", 0)
    starts, ends = (_flag(parameters, name) for name in ("sequence_start", "sequence_end"))
    step = parameters.get("sequence_step")
    if step is not None and (type(step) is not int or not 1 <= step <= _MAX_STEP):
        raise _wrong("sequence_step", "a whole number of at least 1")
    if type(given) is int and 0 <= given < _UINT64:
        return SequencePosition(b"i%d" % given, starts, ends, step) if given else None
    if isinstance(given, str) and len(given) <= _MAX_TEXT and given.isprintable():
        return SequencePosition(b"s" + given.encode(), starts, ends, step) if given else None
    raise _wrong("sequence_id", f"a whole number of 64 bits or a printable text of at most {_MAX_TEXT} characters")


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise _wrong(name, "true or false")
    return value


def _wrong(name: str, expected: str) -> RequestError:
    return RequestError(f'the parameter "{name}" must be {expected}', subject=name)
