"""Errors as gRPC: their code, words and trailing metadata."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from cumulant.core.errors import CumulantError, DeadlineError, RefusedError
from cumulant.serving.errors import headers_of, status_of

Metadata = tuple[tuple[str, str], ...]

#: most metadata that clients take is 8 KiB, and a character may take nine bytes there
_MAX_TEXT = 600
_CODES: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


def code_of(error: CumulantError) -> grpc.StatusCode:
    """GRPC status code of an error."""
    match error:
        case DeadlineError():
            return grpc.StatusCode.DEADLINE_EXCEEDED
        case RefusedError():
            return grpc.StatusCode.FAILED_PRECONDITION
        case _:
            return _CODES.get(status_of(error), grpc.StatusCode.INTERNAL)


def details_of(error: CumulantError) -> str:
    return error.full_text[:_MAX_TEXT]


def trailing_of(error: CumulantError) -> Metadata:
    """When to try again, where that helps."""
    return tuple((name.decode(), value.decode()) for name, value in headers_of(error))
