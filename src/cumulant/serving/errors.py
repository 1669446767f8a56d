"""Errors as HTTP. Only here and in `api` does a status belong to an error."""

from __future__ import annotations

import math

from cumulant.core.errors import (
    CredentialsError,
    CumulantError,
    DeadlineError,
    EngineUnavailableError,
    IntegrityError,
    NotFoundError,
    OutOfMemoryError,
    OverloadedError,
    RequestError,
    UsageError,
)


class HttpError(RequestError):
    """Refused request with an HTTP status of its own."""

    def __init__(
        self, status: int, message: str, *, hint: str | None = None, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.headers = headers


def status_of(error: CumulantError) -> int:
    """HTTP status of an error."""
    match error:
        case HttpError():
            return error.status
        case NotFoundError():
            return 404
        case UsageError() if not isinstance(error, CredentialsError):  # which are the server's own
            return 400
        case OverloadedError() | DeadlineError():
            return 429
        case EngineUnavailableError():
            return 503
        case IntegrityError() | OutOfMemoryError() | _:  # never 502 to 504, by which the gateway ejects a server
            return 500


def headers_of(error: CumulantError) -> tuple[tuple[bytes, bytes], ...]:
    """HTTP headers of an error, such as Retry-After."""
    match error:
        case HttpError():
            return error.headers
        case OverloadedError():
            return ((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))),)
        case EngineUnavailableError():
            return ((b"retry-after", b"1"),)
        case _:
            return ()
