"""Forms of OAuth, which programs send, and the documents that answer them (RFC 6749, 8628 and 8693)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request

_MOST_BYTES = 1 << 16
_FORM = "application/x-www-form-urlencoded"
_NOT_KEPT = {"cache-control": "no-store"}


class FormError(Exception):
    """A request that gets no token; `code` as the specifications name it."""

    def __init__(self, code: str, status: int = 400) -> None:
        super().__init__(code)
        self.code, self.status = code, status

    def response(self) -> Response:
        return json_response({"error": self.code}, self.status)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, the last value of each. Raises FormError."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise FormError("invalid_request")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise FormError("invalid_request", 413)
    try:
        return dict(parse_qsl(body.decode("utf-8"), max_num_fields=50))
    except ValueError:
        raise FormError("invalid_request") from None


def token_response(secret: str, life: timedelta) -> Response:
    """An API token, as the specifications answer with one."""
    content = {
        "access_token": secret,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": int(life.total_seconds()),
    }
    return json_response(content)


def json_response(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, headers=_NOT_KEPT, media_type="application/json")
