"""Errors as problem documents (RFC 9457), with the codes that the command line has."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from cumulant.core.errors import (
    ConflictError,
    CumulantError,
    ForbiddenError,
    IntegrityError,
    LeaseHeldError,
    MissingPartError,
    ObjectiveMissedError,
    OutOfMemoryError,
    RefusedError,
    StorageError,
)
from cumulant.serving.errors import headers_of, status_of

MEDIA_TYPE = "application/problem+json"
#: statuses by class, subclasses first; a refusal that is not about permission is a gate's: of rows, of a model
_STATUS: tuple[tuple[type[CumulantError], int], ...] = (
    (ConflictError, 409),
    (LeaseHeldError, 409),
    (ObjectiveMissedError, 409),
    (MissingPartError, 501),
    (OutOfMemoryError, 503),
    (StorageError, 507),
    (IntegrityError, 500),
    (ForbiddenError, 403),
    (RefusedError, 422),
)


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`type`: where the code is documented; `title`: of the status; `detail`: what happened; `hint`: what to do."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    subject: str | None = None
    hint: str | None = None


def problem_of(error: CumulantError) -> ProblemDocument:
    return problem(
        problem_status(error),
        error.message,
        code=error.code,
        subject=error.subject,
        hint=error.hint,
        retryable=error.retryable,
    )


def problem(
    status: int, detail: str, *, code: str, subject: str | None = None, hint: str | None = None, retryable: bool = False
) -> ProblemDocument:
    return ProblemDocument(
        type=f"urn:cumulant:error:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        subject=subject,
        hint=hint,
        retryable=retryable,
    )


def problem_status(error: CumulantError) -> int:
    """The HTTP status of an error; of one that has none here, that of the servers of models."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), None) or status_of(error)


def problem_headers(error: CumulantError) -> dict[str, str]:
    """Headers of an error, such as `Retry-After`."""
    if isinstance(error, OutOfMemoryError):
        return {"retry-after": "1"}
    return {name.decode(): value.decode() for name, value in headers_of(error)}
