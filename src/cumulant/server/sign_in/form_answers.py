"""Forms of OAuth, which programs send, and the documents that answer them (RFC 6749, 8628 and 8693)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from cumulant.core.errors import RequestError
from cumulant.server.forms import read_form
from cumulant.server.problem import problem_status

if TYPE_CHECKING:
    from starlette.requests import Request

    from cumulant.flows.identities.tokens import TokenView

_NOT_KEPT = {"cache-control": "no-store"}


class FormError(Exception):
    """A request that gets no token; `code` as the specifications name it."""

    def __init__(self, code: str, status: int = 400) -> None:
        super().__init__(code)
        self.code, self.status = code, status

    def response(self) -> Response:
        return json_response({"error": self.code}, self.status)


async def read_oauth_form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises FormError."""
    try:
        return await read_form(request)
    except RequestError as error:
        raise FormError("invalid_request", 413 if problem_status(error) == 413 else 400) from None


def token_response(secret: str, life: timedelta, token: TokenView | None = None) -> Response:
    """An API token, as the specifications answer with one; `token` describes it."""
    content: dict[str, object] = {
        "access_token": secret,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": int(life.total_seconds()),
    }
    return json_response(content if token is None else content | {"token": token})


def json_response(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, headers=_NOT_KEPT, media_type="application/json")
