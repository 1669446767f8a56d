"""The middleware that knows who sends a request, before anything else reads it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from cumulant.core.errors import CumulantError, RequestError
from cumulant.flows.ledger.decisions import ANONYMOUS
from cumulant.server.problem import problem_status
from cumulant.server.response_headers import HTTPS
from cumulant.server.sign_in import cross_site
from cumulant.server.sign_in.answers import failure, refusal, token_of_other_project, unconfirmed_token, unknown_caller
from cumulant.server.sign_in.cookies import SESSION
from cumulant.server.sign_in.request_origin import with_origin

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from cumulant.server.sign_in.identities import CallerIdentity, Identities

#: paths that need no identity: they show who a caller is, or are the same for everybody
OPEN_PATHS = frozenset({"/login", "/login/start", "/login/callback", "/v1/health/live", "/v1/openapi.json"})
OPEN_POSTS = frozenset({"/v1/sign-in/token", "/v1/sign-in/device", "/v1/sign-in/device/token"})
OPEN_FOLDER = "/static/"


class Authentication:
    """Sets `principal`, `csrf` (the token of a session's forms), `session` (its id) and `project` of a request's state.

    A request without an identity is answered here. On open paths the state has none of them.
    """

    def __init__(self, app: ASGIApp, identities: Identities) -> None:
        self._app, self._identities = app, identities

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        scope.setdefault("state", {})[HTTPS] = self._identities.cookies.is_secure(request)
        try:
            response, receive = await self._admit(request, receive)
        except RequestError as error:
            hint = error.hint or "open the page again and send its form from there"
            response = refusal(request, problem_status(error), error.code, error.message, hint)
        except CumulantError as error:
            response = failure(request, self._identities.redacted(error))
        if response is None:
            await self._app(scope, receive, send)
        else:
            await response(scope, receive, send)

    async def _admit(self, request: Request, receive: Receive) -> tuple[Response | None, Receive]:
        """Why the request is not let in, and what the application receives from."""
        path = request.scope["path"]
        host = request.headers.get("host")
        fault = self._identities.hosts.fault(None if host is None else host.encode("latin-1"), None)
        if fault and path != "/v1/health/live":
            await self._record(request, "origin")
            return refusal(request, 403, "refused", fault, "declare the name: sign_in.url, or --allow-host"), receive
        if path in (OPEN_POSTS if request.method == "POST" else OPEN_PATHS) or path.startswith(OPEN_FOLDER):
            return None, receive
        identity = await self._identify(request)
        if identity is None:
            return await self._unknown(request), receive
        if identity.secret and request.method not in cross_site.SAFE_METHODS:
            fault, receive = await self._cross_site_fault(request, receive, identity)
            if fault:
                await self._record(request, "origin", identity.principal.id)
                return refusal(
                    request, 403, "cross-site", fault, "open the page again and send its form from there"
                ), receive
        state = request.state
        state.principal, state.project = with_origin(identity.principal, request), identity.project
        state.session = identity.session
        state.csrf = cross_site.csrf_token(identity.secret) if identity.secret else ""
        state.is_valid = partial(self._is_valid, request)
        return None, receive

    async def _unknown(self, request: Request) -> Response:
        """The answer to a request that has no token or session that is valid here; a wrong token is an event."""
        given = request.headers.getlist("authorization")
        if not given:
            secret = self._identities.cookies.read(request, SESSION)
            renews = bool(secret) and await run_in_threadpool(self._identities.is_renewable, secret)
            return unknown_caller(request, renews=renews)
        await self._record(request, "token")
        if len(given) > 1:
            return unknown_caller(request)
        fault = await run_in_threadpool(self._identities.fault_of, given[0], request.scope["path"])
        if fault == "unknown":
            return unknown_caller(request)
        return token_of_other_project() if fault == "other project" else unconfirmed_token()

    async def _record(self, request: Request, reason: Literal["token", "origin"], principal: str = ANONYMOUS) -> None:
        await run_in_threadpool(self._identities.record_refusal, request, reason, principal)

    async def _is_valid(self, request: Request) -> bool:
        """Whether the token or session of a request is good still, for responses that last."""
        return await self._identify(request) is not None

    async def _identify(self, request: Request) -> CallerIdentity | None:
        """By the token, where there is one: a wrong token is not made up for by a cookie."""
        given = request.headers.getlist("authorization")
        if given:
            if len(given) > 1:
                return None
            known = self._identities.by_token_at_once(given[0], request.scope["path"])
            return known or await run_in_threadpool(self._identities.by_token, given[0], request.scope["path"])
        secret = self._identities.cookies.read(request, SESSION)
        return await run_in_threadpool(self._identities.by_session, secret) if secret else None

    async def _cross_site_fault(
        self, request: Request, receive: Receive, identity: CallerIdentity
    ) -> tuple[str, Receive]:
        fault = cross_site.origin_fault(request, self._identities.policy.url)
        if fault:
            return fault, receive
        given, receive = await cross_site.read_token(request, receive)
        return "" if cross_site.is_token(given, identity.secret) else "the form is of another session", receive
