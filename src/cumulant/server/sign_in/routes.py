"""The pages of the sign-in: the link of `cumulant api`, the way to the provider and back, and the sign-out."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.routing import Route

from cumulant.core.errors import CumulantError, EngineUnavailableError
from cumulant.flows.identities.sign_in_links import LIFE as LINK_LIFE
from cumulant.flows.identities.sign_in_links import use_link
from cumulant.flows.identities.used_states import open_once
from cumulant.server.sign_in.answers import page, redirect
from cumulant.server.sign_in.cookies import LOGIN, NEXT, SESSION
from cumulant.server.sign_in.issuer import TokenRefusedError
from cumulant.server.sign_in.local_paths import HOME, local_path
from cumulant.server.sign_in.log import log_failure
from cumulant.server.sign_in.provider_login import LIFE, ProviderLogin

if TYPE_CHECKING:
    from starlette.responses import Response

    from cumulant.flows.identities.sessions import OpenedSession
    from cumulant.server.sign_in.identities import Identities

_TITLE = "Sign in"


class SignInPages:
    """The endpoints, of one server; `provider`: None where none is declared."""

    def __init__(self, identities: Identities, provider: ProviderLogin | None) -> None:
        self._identities, self._provider = identities, provider

    def routes(self) -> list[Route]:
        return [
            Route("/login", self.login, methods=["GET"]),
            Route("/login/start", self.start, methods=["GET"]),
            Route("/login/callback", self.callback, methods=["GET"]),
            Route("/logout", self.logout, methods=["POST"]),
        ]

    async def login(self, request: Request) -> Response:
        """The page to sign in at. With the code of a link: open its session, once."""
        if not self._identities.cookies.are_usable(request):
            return page(_TITLE, "The console needs HTTPS: on the way, others could read its cookies.", status=403)
        if self._provider is not None:
            start = f"/login/start?{urlencode({'next': local_path(request.query_params.get('next', HOME))})}"
            return page(_TITLE, "You are not signed in.", link=("Sign in", start))
        if not self._identities.has_links:
            return page(_TITLE, "This server has no provider for sign-in (sign_in.issuer): it takes API tokens alone.")
        code = request.query_params.get("code")
        if code is None:
            return self._link_page(request)
        return await self._login_by_link(request, code)

    async def _login_by_link(self, request: Request, code: str) -> Response:
        if request.method != "GET" or _is_prefetch(request):
            return page(_TITLE, "Open the link itself.", status=400)
        opened = await run_in_threadpool(self._use_link, code, self._identities.cookies.read(request, SESSION))
        if opened is None:
            text = f"This link was used, or has expired. For another one, run: {self._command(request)}"
            return page(_TITLE, text, status=403)
        cookies = self._identities.cookies
        target = request.query_params.get("next") or unquote(cookies.read(request, NEXT)) or HOME
        response = self._signed_in(request, opened, target)
        if cookies.read(request, NEXT):
            cookies.clear(response, request, NEXT)
        return response

    def _link_page(self, request: Request) -> Response:
        """How to get a link. The browser keeps the path that it asked for: the link, from a terminal, has none."""
        text = f"Run this on the machine of the server, and open its link in this browser: {self._command(request)}"
        response, cookies = page(_TITLE, text), self._identities.cookies
        target = local_path(request.query_params.get("next", HOME))
        if _is_unseen(request):  # it says nothing of what this browser's user asked for
            return response
        if target != HOME:
            seconds = int(LINK_LIFE.total_seconds())
            cookies.set(response, request, NEXT, quote(target, safe=""), seconds=seconds)
        elif cookies.read(request, NEXT):
            cookies.clear(response, request, NEXT)
        return response

    async def start(self, request: Request) -> Response:
        """Send the browser to the provider."""
        if self._provider is None or not self._identities.cookies.are_usable(request):
            return redirect("/login")
        target = local_path(request.query_params.get("next", HOME))
        try:
            address, cookie = await run_in_threadpool(self._begin, request, self._provider, target)
        except EngineUnavailableError as error:
            return _unavailable(error)
        response = redirect(address)
        seconds = int(LIFE.total_seconds())
        self._identities.cookies.set(response, request, LOGIN, cookie, seconds=seconds)
        return response

    async def callback(self, request: Request) -> Response:
        """Take in the user that the provider sent back."""
        if self._provider is None:
            return redirect("/login")
        cookies = self._identities.cookies
        pending, previous = cookies.read(request, LOGIN), cookies.read(request, SESSION)
        try:
            opened, target = await run_in_threadpool(self._finish, pending, dict(request.query_params), previous)
        except TokenRefusedError as error:
            log_failure(error)
            text = "The sign-in failed. The reason is in the server's log."
            response = page(_TITLE, text, link=("Sign in again", "/login"), status=403)
            cookies.clear(response, request, LOGIN)
            return response
        except EngineUnavailableError as error:
            return _unavailable(error)
        response = self._signed_in(request, opened, target)
        cookies.clear(response, request, LOGIN)
        return response

    async def logout(self, request: Request) -> Response:
        """End the session here, then at the provider."""
        cookies = self._identities.cookies
        secret = cookies.read(request, SESSION)
        await run_in_threadpool(self._identities.sessions.end, secret, request.state.principal)
        response = _signed_out(await run_in_threadpool(self._provider_logout))
        cookies.clear(response, request, SESSION)
        response.headers["clear-site-data"] = '"cache", "storage"'
        return response

    def _command(self, request: Request) -> str:
        """What prints a link to this server, by its own address: that of the request is the caller's word."""
        host, port = request.scope.get("server") or ("127.0.0.1", 0)
        address = f"[{host}]" if ":" in host else host
        return f"cumulant session link --url {self._identities.policy.url or f'http://{address}:{port}'}"

    def _signed_in(self, request: Request, opened: OpenedSession, target: str) -> Response:
        response = redirect(local_path(target))
        self._identities.cookies.set(response, request, SESSION, opened.secret)
        return response

    def _use_link(self, code: str, previous: str) -> OpenedSession | None:
        identities = self._identities
        return use_link(identities.home.journal(), identities.sessions, code, identities.clock.now(), replaces=previous)

    def _begin(self, request: Request, provider: ProviderLogin, target: str) -> tuple[str, str]:
        identities, now = self._identities, self._identities.clock.now()
        renews = identities.sessions.is_renewable(identities.cookies.read(request, SESSION), now)
        return provider.begin(target, now, renews=renews)

    def _finish(self, cookie: str, query: dict[str, str], previous: str) -> tuple[OpenedSession, str]:
        assert self._provider is not None
        identities, now = self._identities, self._identities.clock.now()
        principal, pending = self._provider.finish(cookie, query, now)
        opened = open_once(
            identities.home.journal(),
            identities.sessions,
            principal,
            state=pending.state,
            expires=pending.expires,
            now=now,
            replaces=previous,
            renews=pending.renews,
        )
        if opened is None:
            raise TokenRefusedError("the response was used before")
        identities.follow_groups(principal)
        return opened, pending.target

    def _provider_logout(self) -> str:
        """Where the session at the provider is ended; empty where there is no such address."""
        try:
            return (self._provider.logout_url() if self._provider is not None else None) or ""
        except CumulantError:  # the session here is ended, whatever the provider does
            return ""


def _signed_out(address: str) -> Response:
    """On to the provider by a page: of an answer to a form, browsers follow no redirect that leads elsewhere."""
    if not address:
        return redirect("/login")
    response = page(_TITLE, "You are signed out here.", link=("Sign out at the provider", address))
    response.headers["refresh"] = f"0; url={address}"
    return response


def _is_prefetch(request: Request) -> bool:
    """Whether a browser only looks ahead: its user has not opened the link."""
    return "prefetch" in request.headers.get("sec-purpose", request.headers.get("purpose", ""))


def _is_unseen(request: Request) -> bool:
    """Whether no user asked for the page here: the browser looks ahead, or a page of another site leads to it."""
    return _is_prefetch(request) or request.headers.get("sec-fetch-site") == "cross-site"


def _unavailable(error: CumulantError) -> Response:
    log_failure(error)
    return page(_TITLE, "The provider does not answer. Try again later.", link=("Again", "/login"), status=503)
