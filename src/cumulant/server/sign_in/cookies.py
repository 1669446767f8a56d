"""Cookies of the sign-in: of this host alone, unreadable for scripts, and over HTTPS or on loopback only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cumulant.core.network.hosts import is_loopback

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

#: the session, a sign-in that is under way, and the path that a browser without a session asked for
Kind = Literal["cumulant", "cumulant-login", "cumulant-next"]
SESSION: Kind = "cumulant"
LOGIN: Kind = "cumulant-login"
NEXT: Kind = "cumulant-next"


class Cookies:
    """`url`: the declared address of the console; where it is HTTPS, browsers are, whatever a proxy does after them."""

    def __init__(self, url: str) -> None:
        self._https = url.startswith("https:")

    def are_usable(self, request: Request) -> bool:
        """Whether a cookie stays secret: on HTTPS, and within this machine."""
        if self.is_secure(request):
            return True
        return request.client is not None and is_loopback(request.client.host)

    def read(self, request: Request, kind: Kind) -> str:
        """The value of a cookie; empty without one."""
        return request.cookies.get(self._name(request, kind), "")

    def set(self, response: Response, request: Request, kind: Kind, value: str, *, seconds: int | None = None) -> None:
        secure = self.is_secure(request)
        response.set_cookie(
            self._name(request, kind), value, max_age=seconds, path="/", secure=secure, httponly=True, samesite="lax"
        )

    def clear(self, response: Response, request: Request, kind: Kind) -> None:
        secure = self.is_secure(request)
        response.delete_cookie(self._name(request, kind), path="/", secure=secure, httponly=True, samesite="lax")

    def is_secure(self, request: Request) -> bool:
        """Whether the browser came by HTTPS."""
        return self._https or request.url.scheme == "https"

    def _name(self, request: Request, kind: Kind) -> str:
        """On plain HTTP without the prefix, which needs HTTPS, and with the port: cookies have no port."""
        if self.is_secure(request):
            return f"__Host-{kind}"
        server = request.scope.get("server")
        return f"{kind}-{server[1] if server else 0}"
