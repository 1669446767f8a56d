"""Final responses: errors as JSON, large bodies compressed."""

from __future__ import annotations

from cumulant.core.errors import CumulantError
from cumulant.serving.errors import headers_of, status_of
from cumulant.serving.http.bodies import compress
from cumulant.serving.http.messages import Request, Response, error_response
from cumulant.serving.telemetry.access_log import write_fault

#: bytes of an answer that may be worth compressing
LARGE = 4096


def compress_response(response: Response, request: Request) -> Response:
    """The response, compressed where the caller accepts it and it pays."""
    accepted = request.headers.get(b"accept-encoding")
    if not accepted:
        return response
    body, encoding = compress(response.body, accepted)
    if not encoding:
        return response
    headers = (*response.headers, (b"content-encoding", encoding))
    return Response(response.status, body, response.content_type, headers)


def error_reply(error: CumulantError) -> Response:
    """Response for an error."""
    return error_response(status_of(error), error.full_text, headers_of(error))


def fault_reply() -> Response:
    write_fault()
    return error_response(500, "internal error")
