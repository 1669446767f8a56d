"""Headers that every response has, whichever part of the server made it; what a response sets itself stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: the key of a request's state: browsers reach the server by HTTPS
HTTPS = "https"
#: a document of the API, opened by a browser, is neither a page nor part of one; pages have a policy of their own
DEFAULTS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
    ),
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
#: a year; names below this host are served by HTTPS too
TRANSPORT_SECURITY = "max-age=31536000; includeSubDomains"


class ResponseHeaders:
    """The outermost middleware. Whether browsers come by HTTPS is known further inside, where proxies are believed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in DEFAULTS.items():
                    headers.setdefault(name, value)
                if state.get(HTTPS):
                    headers.setdefault("strict-transport-security", TRANSPORT_SECURITY)
            await send(message)

        await self._app(scope, receive, send_with_headers)
