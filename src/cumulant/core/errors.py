"""Every error that Cumulant raises on purpose, as one tree.

    CumulantError
    ├── UsageError                  the caller can fix it: command line, project file, input
    │   ├── ProjectFileError        a key, type or value in cumulant.yaml; carries file and line
    │   ├── DefinitionError         a feature, target or user function that cannot be used
    │   │   └── NotKnownYetError    an input that is not known at `predict_at`
    │   ├── DataError               a source that cannot be read as declared
    │   ├── NotFoundError           a name that does not exist; suggests the nearest
    │   ├── RequestError            a prediction request that does not fit the schema
    │   ├── ConflictError           the request does not fit the object's present state
    │   ├── CredentialsError        a server or store does not accept the user, password or key
    │   └── MissingPartError        an extra that is not installed; names the install line
    ├── RefusedError                a gate refused
    │   ├── ForbiddenError          the principal may not do the action
    │   ├── ContractBreachError     a source breaks its contract: rows, a rule on the whole, or columns
    │   ├── ParityError             the packaged model does not answer as the trained one
    │   └── IntegrityError          the event chain or a stored object was altered
    ├── RetryableError              the same call may work later
    │   ├── LeaseHeldError          another process works on this step
    │   ├── ObjectiveMissedError    a release waits until the objectives of the served model are met again
    │   ├── EngineUnavailableError  a server or store does not answer
    │   ├── OutOfMemoryError        a model or a job needs more memory than there is now
    │   ├── OverloadedError         a server has more to do than it can do in time
    │   ├── StepCancelledError      the caller no longer wants the step, which was ended
    │   ├── DeadlineError           the caller's time limit would pass before the answer
    │   └── PortInUseError          the address is taken
    └── TerminalError               trying again will not help
        ├── UserCodeError           a user's function raised; carries the original
        ├── StorageError            disk full, read-only folder, half a file
        ├── StepFailedError         a step of a flow ended in an error
        └── UndeliverableError      one message that its receiver refuses; others may go

Exit codes belong to ``cli`` and HTTP status to ``serving`` and ``api``; nothing here knows them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Self


class CumulantError(Exception):
    """What happened, to which object, what to do next, and whether a retry can help.

    `message` is one sentence; `subject` names the object (a source, a feature, a path);
    `hint` is the next step for a person. `code` is stable and has a page in the docs.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, subject: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.subject = subject
        self.hint = hint

    def reworded(self, change: Callable[[str], str]) -> Self:
        """This error itself, with `change` applied to its texts, such as to remove secret values."""
        self.message = change(self.message)
        self.args = (self.message, *self.args[1:])
        self.subject = None if self.subject is None else change(self.subject)
        self.hint = None if self.hint is None else change(self.hint)
        return self

    @property
    def full_text(self) -> str:
        """Message and hint as one text, for a place that has one: `what is wrong; what to do`."""
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def as_dict(self) -> dict[str, object]:
        """The error for machines (`--json`, HTTP)."""
        fields = {"code": self.code, "error": self.message, "subject": self.subject, "hint": self.hint}
        return {key: value for key, value in fields.items() if value is not None} | {"retryable": self.retryable}


class UsageError(CumulantError):
    code = "usage"


class ProjectFileError(UsageError):
    """A fault in a project file. `problems` holds every fault found, `(file, line, text)`."""

    code = "project-file"

    def __init__(
        self, message: str, *, problems: Iterable[tuple[str, int | None, str]] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)

    def as_dict(self) -> dict[str, object]:
        rows = [{"file": file, "line": line, "problem": text} for file, line, text in self.problems]
        return super().as_dict() | {"problems": rows}


class DefinitionError(UsageError):
    code = "definition"


class NotKnownYetError(DefinitionError):
    code = "not-known-yet"


class DataError(UsageError):
    code = "data"


class NotFoundError(UsageError):
    code = "not-found"


class RequestError(UsageError):
    code = "request"


class ConflictError(UsageError):
    code = "conflict"


class CredentialsError(UsageError):
    code = "credentials"


class MissingPartError(UsageError):
    code = "missing-part"


class RefusedError(CumulantError):
    code = "refused"


class ForbiddenError(RefusedError):
    code = "forbidden"


class ContractBreachError(RefusedError):
    code = "contract-breach"


class ParityError(RefusedError):
    code = "parity"


class IntegrityError(RefusedError):
    code = "integrity"


class RetryableError(CumulantError):
    code = "retryable"
    retryable = True


class LeaseHeldError(RetryableError):
    code = "lease-held"


class ObjectiveMissedError(RetryableError):
    code = "objective-missed"


class EngineUnavailableError(RetryableError):
    code = "engine-unavailable"


class OutOfMemoryError(RetryableError):
    code = "out-of-memory"


class OverloadedError(RetryableError):
    """`retry_after`: seconds after which capacity is likely to be free."""

    code = "overloaded"

    def __init__(
        self, message: str, *, subject: str | None = None, hint: str | None = None, retry_after: float = 1.0
    ) -> None:
        super().__init__(message, subject=subject, hint=hint)
        self.retry_after = retry_after


class DeadlineError(RetryableError):
    code = "deadline"


class StepCancelledError(RetryableError):
    code = "step-cancelled"


class PortInUseError(RetryableError):
    code = "port-in-use"


class TerminalError(CumulantError):
    code = "terminal"


class UserCodeError(TerminalError):
    code = "user-code"


class StorageError(TerminalError):
    code = "storage"


class StepFailedError(TerminalError):
    code = "step-failed"


class UndeliverableError(TerminalError):
    code = "undeliverable"


def error_from(document: Mapping[str, object], fallback: type[CumulantError] = CumulantError) -> CumulantError:
    """The error that `as_dict` wrote, of its own class again; of `fallback` where its code is not known."""
    known = {kind.code: kind for kind in _kinds(CumulantError)}
    kind = known.get(str(document.get("code")), fallback)
    error = kind.__new__(kind)
    texts = {name: None if document.get(name) is None else str(document[name]) for name in ("subject", "hint")}
    CumulantError.__init__(error, str(document.get("error")), **texts)
    return error


def _kinds(root: type[CumulantError]) -> Iterator[type[CumulantError]]:
    # The base class of a code comes before classes elsewhere that inherit it unchanged.
    for kind in reversed(root.__subclasses__()):
        yield from _kinds(kind)
        yield kind


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and each that led to it (causes and contexts), each once."""
    below: BaseException | None = error
    seen: set[int] = set()
    while below is not None and id(below) not in seen:
        yield below
        seen.add(id(below))
        below = below.__cause__ or below.__context__


def is_interrupt(error: BaseException) -> bool:
    """Whether an interrupt led to the error: an interrupted library may raise an error of its own."""
    return not isinstance(error, Exception) or any(isinstance(below, KeyboardInterrupt) for below in causes(error))


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """`did you mean "x"?`, or None where nothing known is close to `word`."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else None


def join_names(names: Sequence[str], most: int = 3) -> str:
    """The first `most` names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def not_found(kind: str, name: str, known: Iterable[str], *, empty: str | None = None) -> NotFoundError:
    """The error for a name that is not among `known`, with the nearest name or the list as hint.

    `empty` is the hint where nothing is known at all.
    """
    names = sorted(known)
    listed = f"known: {', '.join(names[:12])}" if names else empty or f"there is no {kind} yet"
    return NotFoundError(f'no {kind} named "{name}"', subject=name, hint=did_you_mean(name, names) or listed)


def not_stored(kind: str, key: str) -> NotFoundError:
    """The error for a content name that a store does not have. Similar names are of other contents: none is listed."""
    hint = "it was removed, or the environment's store is another one than it was written to"
    return NotFoundError(f'no {kind} named "{key}"', subject=key, hint=hint)


def missing_part(module: str, extra: str) -> MissingPartError:
    return MissingPartError(
        f"this needs the Python package {module}, which is not installed",
        subject=module,
        hint=f'pip install "cumulant[{extra}]"',
    )
