"""What is answered to a request without an identity: problem documents for programs, pages for people."""

from __future__ import annotations

from html import escape
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from cumulant.core.errors import CumulantError
from cumulant.server.handler import problem_response
from cumulant.server.operation import OTHER_PROJECT
from cumulant.server.problem import problem as problem_document
from cumulant.server.sign_in.local_paths import login_path, path_of, renewal_path

_PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    # `no-referrer` would have browsers send our own forms with `Origin: null`, which is refused.
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
#: files of the console, whatever their present digest is
_STATIC = "/static/current"
_HEAD = "".join(
    (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f'<link rel="icon" href="{_STATIC}/mark.svg" type="image/svg+xml">',
        *(f'<link rel="stylesheet" href="{_STATIC}/{name}.css">' for name in ("charts", "console")),
    )
)
_BAR = (
    f'<header class="bar"><a class="brand" href="/"><img src="{_STATIC}/mark.svg" alt="" width="20" height="20">'
    " Cumulant</a></header>"
)
_BEARER = {"www-authenticate": "Bearer"}


def problem(status: int, code: str, detail: str, hint: str, *, headers: dict[str, str] | None = None) -> Response:
    """A problem document, as those of operations."""
    return problem_response(problem_document(status, detail, code=code, hint=hint), headers)


def unknown_caller(request: Request, *, renews: bool = False) -> Response:
    """401, or for a page that a browser opens: the way to the sign-in; `renews`: straight to the provider, which signs
    in anew whoever has a session there.
    """
    path, query, headers = request.url.path, request.url.query, request.headers
    target = f"{path}?{query}" if query else path
    if "authorization" in headers or path.startswith("/v1"):
        return _unauthorized({}, has_token="authorization" in headers)
    if request.method not in ("GET", "HEAD"):
        if not renews or "text/html" not in headers.get("accept", "") or "hx-request" in headers:
            return _unauthorized({})
        text = "Your sign-in has to be confirmed again. Nothing was changed: sign in, then send the form once more."
        return page(HTTPStatus.UNAUTHORIZED.phrase, text, link=("Sign in", renewal_path("/")), status=401)
    if "hx-request" in headers:
        shown = path_of(headers.get("hx-current-url", ""))
        return _unauthorized({"hx-redirect": renewal_path(shown) if renews else login_path(shown)})
    if "text/html" not in headers.get("accept", ""):
        return _unauthorized({})
    return redirect(renewal_path(target) if renews else login_path(target))


def token_of_other_project() -> Response:
    """401 of a valid token that is not good for the path; whether the project of the path exists is not said."""
    hint = "create one in that project (cumulant token create NAME), or sign in at /login: a session is of no project"
    return problem(401, "credentials", OTHER_PROJECT, hint, headers=_BEARER)


def unconfirmed_token() -> Response:
    """401 of a valid token whose user has not signed in by the provider for `sign_in.recheck_tokens`."""
    hint = "run `cumulant login`, or sign in to the console at /login: the token is good again after either"
    text = "sign in again: the provider has not confirmed this token's user for longer than sign_in.recheck_tokens"
    return problem(401, "credentials", text, hint, headers=_BEARER)


def redirect(target: str) -> Response:
    return RedirectResponse(target, 303, headers=_PAGE_HEADERS)


def failure(request: Request, error: CumulantError) -> Response:
    """The journal or the provider does not answer, or refuses: in no case is the caller let in."""
    status = 503 if error.retryable else 500
    return refusal(request, status, error.code, error.message, error.hint or "see the server's log")


def refusal(request: Request, status: int, code: str, detail: str, hint: str) -> Response:
    """Why a request is not let in: a page where a browser shows the answer, else a problem document."""
    path, headers = request.url.path, request.headers
    shown = "text/html" in headers.get("accept", "") and "hx-request" not in headers and not path.startswith("/v1")
    if not shown or "authorization" in headers:
        return problem(status, code, detail, hint)
    return page(HTTPStatus(status).phrase, f"{detail}.", f"What next: {hint}.", link=("Overview", "/"), status=status)


def page(title: str, *texts: str, link: tuple[str, str] | None = None, status: int = 200) -> Response:
    """A page of texts, with one link: its text and its address."""
    body = "".join(f"<p>{escape(text)}</p>" for text in texts)
    if link is not None:
        body += f'<p><a class="button main" href="{escape(link[1], quote=True)}">{escape(link[0])}</a></p>'
    return page_of(title, body, status=status)


def page_of(title: str, body: str, *, status: int = 200) -> Response:
    """A page of markup that is already escaped."""
    head = f"{_HEAD}<title>{escape(title)} · Cumulant</title>"
    main = f'<main><section class="fault"><h1>{escape(title)}</h1>{body}</section></main>'
    content = f'<!doctype html><html lang="en"><head>{head}</head><body>{_BAR}{main}</body></html>'
    return HTMLResponse(content, status, headers=_PAGE_HEADERS)


def _unauthorized(headers: dict[str, str], *, has_token: bool = False) -> Response:
    if has_token:
        hint = "it is unknown, expired or revoked: create one (cumulant token create NAME), or sign in at /login"
        return problem(401, "credentials", "the token of this request is not valid here", hint, headers=_BEARER)
    hint = "send the header Authorization: Bearer TOKEN (cumulant token create NAME), or sign in at /login"
    return problem(401, "credentials", "this request has no valid token or session", hint, headers=_BEARER | headers)
