"""What keeps pages and their forms safe: headers of every response, and the checks of unsafe methods."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cumulant.core.errors import ForbiddenError
from cumulant.server.sign_in.cross_site import FIELD, HEADER

if TYPE_CHECKING:
    from starlette.requests import Request

_OWN_SITES = frozenset({"same-origin", "none"})


def new_nonce() -> str:
    return secrets.token_urlsafe(16)


def security_headers(nonce: str) -> dict[str, str]:
    """The headers of a page. Nothing is loaded from elsewhere, and scripts and styles need the nonce or our origin."""
    policy = (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; connect-src 'self';"
        " img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
        "cache-control": "no-store",
    }


class CsrfTokens:
    """Tokens of forms: the session's (`request.state.csrf`), else one of the principal under a key of this process."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def token(self, request: Request) -> str:
        own = getattr(request.state, "csrf", None)
        if own:
            return str(own)
        return hmac.new(self._key, request.state.principal.id.encode(), hashlib.sha256).hexdigest()

    def check(self, request: Request, form: dict[str, str]) -> None:
        """Return if the request comes from a page of ours.

        Raises:
            ForbiddenError: it comes from a page of another origin, or has no token of this session.
        """
        if fault := _origin_fault(request):
            raise ForbiddenError(fault, hint="open the page again and send its form from there")
        given = form.get(FIELD) or request.headers.get(HEADER, "")
        if not hmac.compare_digest(given.encode(), self.token(request).encode()):
            raise ForbiddenError(
                "the form is of another session, or the server was started again since",
                hint="open the page again and send its form from there",
            )


def _origin_fault(request: Request) -> str:
    """Why the request's origin is refused; empty where it is not. Every browser of today names one of the two."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in _OWN_SITES:
        return "a page of another site may not do this"
    origin = request.headers.get("origin")
    if origin is None:
        return "" if site is not None else "the request names no origin"
    if urlsplit(origin).netloc != request.headers.get("host"):
        return "a page of another origin may not do this"
    return ""
