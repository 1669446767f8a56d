"""The sign-in of a command line: the codes that it gets, the page where its user confirms, and its token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.routing import Route

from cumulant.core.errors import CumulantError, OverloadedError, RefusedError, UsageError
from cumulant.core.units import duration
from cumulant.flows.identities.device_logins import (
    LIFE,
    DeviceCodes,
    DeviceLogin,
    begin_device_login,
    confirm_device_login,
    find_device_login,
    finish_device_login,
)
from cumulant.flows.identities.tokens import TokenRequest
from cumulant.flows.ledger.actions import ACTIONS
from cumulant.server.sign_in.answers import page, page_of
from cumulant.server.sign_in.cross_site import FIELD
from cumulant.server.sign_in.form_answers import FormError, json_response, read_oauth_form, token_response

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from cumulant.project.project import Project
    from cumulant.server.sign_in.identities import Identities

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
#: seconds between two requests of a command line that waits
INTERVAL = 2
_TITLE = "Sign in a command line"
_PAGE = "/device"
#: the field of a form whose code was typed
_TYPED = "typed"


class DevicePages:
    """The endpoints, of one server."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    def routes(self) -> list[Route]:
        return [
            Route("/v1/sign-in/device", self.begin, methods=["POST"]),
            Route("/v1/sign-in/device/token", self.finish, methods=["POST"]),
            Route(_PAGE, self.show, methods=["GET"]),
            Route(_PAGE, self.confirm, methods=["POST"]),
        ]

    async def begin(self, request: Request) -> Response:
        """Answer a command line with its codes."""
        identities = self._identities
        try:
            form = await read_oauth_form(request)
            project, token_request = identities.project_of(form), _token_request(form)
        except FormError as error:
            return error.response()
        client = request.client.host if request.client is not None else "an unknown address"
        try:
            codes = await run_in_threadpool(
                begin_device_login, project.journal(), client, identities.clock.now(), token_request
            )
        except OverloadedError:
            return FormError("temporarily_unavailable", 503).response()
        except UsageError:  # the command line has checked it too, and explains it
            return FormError("invalid_scope").response()
        return json_response(self._described(request, project, codes, token_request))

    async def finish(self, request: Request) -> Response:
        """Answer a command line that waits: with its token, where its user has confirmed."""
        identities = self._identities
        try:
            form = await read_oauth_form(request)
            project = identities.project_of(form)
        except FormError as error:
            return error.response()
        if form.get("grant_type") != GRANT:
            return FormError("unsupported_grant_type").response()
        life, code = identities.policy.limits.longest, form.get("device_code", "")
        new = await run_in_threadpool(finish_device_login, project.journal(), code, life, identities.clock.now())
        if isinstance(new, str):
            return FormError("authorization_pending" if new == "pending" else "expired_token").response()
        return token_response(new.secret, new.token.expires - new.token.created, new.token)

    async def show(self, request: Request) -> Response:
        """The page that shows who asks, with a button; without a code, the page that asks for it.

        The code of a token, which may live for a year, is typed: a link that somebody sends does not carry it.
        """
        code = request.query_params.get("user_code", "")
        try:
            project = self._identities.project_of(dict(request.query_params))
            login = await run_in_threadpool(self._find, project, request, code) if code else None
        except FormError:
            return page(_TITLE, "This server has no such project.", status=404)
        except CumulantError as error:
            return self._fault_page(error)
        if login is None or login.request is not None:
            return self._code_page(request, project)
        return self._question(request, project, login)

    async def confirm(self, request: Request) -> Response:
        """Let the command line in; where the code was just typed, show who asks."""
        try:
            form = await read_oauth_form(request)
            project, code = self._identities.project_of(form), form.get("user_code", "")
            if _TYPED in form:
                return self._question(request, project, await run_in_threadpool(self._find, project, request, code))
            login = await run_in_threadpool(self._confirm, project, request, code)
        except FormError:
            return page(_TITLE, "This is no form of this page.", status=400)
        except CumulantError as error:
            return self._fault_page(error)
        what = "is signed in" if login.request is None else f"has the token {login.request.name}"
        return page(_TITLE, f"The command line {what}. You can close this page.")

    def _find(self, project: Project, request: Request, code: str) -> DeviceLogin:
        clock = self._identities.clock
        return find_device_login(project, code, principal=request.state.principal, clock=clock)

    def _confirm(self, project: Project, request: Request, code: str) -> DeviceLogin:
        clock = self._identities.clock
        return confirm_device_login(project, code, principal=request.state.principal, clock=clock)

    def _described(
        self, request: Request, project: Project, codes: DeviceCodes, token_request: TokenRequest | None
    ) -> dict[str, object]:
        place = f"{self._identities.policy.url or str(request.base_url).rstrip('/')}{_PAGE}"
        query = urlencode({"user_code": codes.user_code, "project": project.name})
        complete = {} if token_request is not None else {"verification_uri_complete": f"{place}?{query}"}
        return {
            "device_code": codes.device_code,
            "user_code": codes.user_code,
            "verification_uri": f"{place}?{urlencode({'project': project.name})}",
            **complete,
            "expires_in": int(LIFE.total_seconds()),
            "interval": INTERVAL,
        }

    def _code_page(self, request: Request, project: Project) -> Response:
        fields = {FIELD: request.state.csrf, "project": project.name, _TYPED: "1"}
        text = f"Type the code that your command line shows, to act in the project {project.name}."
        code = '<div><label for="code">Code</label><input id="code" name="user_code" autocomplete="off" required></div>'
        return page_of(_TITLE, f"<p>{escape(text)}</p>{_form(fields, 'Continue', code)}")

    def _question(self, request: Request, project: Project, login: DeviceLogin) -> Response:
        user = request.state.principal.id
        texts = (
            f"A command line at {login.client} asks {_asks_for(login, user)} in the project {project.name}.",
            *_scope_texts(login, user),
            f"It shows the code {login.user_code}.",
            "Confirm only if you started it yourself, just now, and it shows this code.",
        )
        fields = {FIELD: request.state.csrf, "user_code": login.user_code, "project": project.name}
        body = "".join(f"<p>{escape(text)}</p>" for text in texts)
        return page_of(_TITLE, f"{body}{_form(fields, 'Confirm')}")

    def _fault_page(self, error: CumulantError) -> Response:
        text = self._identities.redacted(error).full_text
        return page(_TITLE, text, status=403 if isinstance(error, RefusedError) else 404)


def _token_request(form: dict[str, str]) -> TokenRequest | None:
    """The token that a command line asks for; None where it signs in. Raises FormError."""
    if "token_name" not in form:
        return None
    try:
        life = duration(form.get("expires", "90d"))
    except UsageError:
        raise FormError("invalid_request") from None
    scope = tuple(form.get("scope", "").split())
    return TokenRequest(name=form["token_name"], scope=scope, service=form.get("service", ""), expires=life)


def _asks_for(login: DeviceLogin, user: str) -> str:
    """What a confirmation gives, in words."""
    request = login.request
    if request is None:
        return f"to act as {user}"
    life = f"{request.expires.total_seconds() / 86_400:.3g} days"
    return f'for an API token "{request.name}" of {_holder(request, user)}, for {life},'


def _scope_texts(login: DeviceLogin, user: str) -> Iterator[str]:
    """What a token would be good for, action by action: those that change something are apart."""
    request = login.request
    if request is None:
        return
    if not request.scope:
        yield f"It may then do and change whatever {_holder(request, user)} may."
        return
    writing = [name for name in request.scope if name not in ACTIONS or ACTIONS[name].writes]
    reading = [name for name in request.scope if name not in writing]
    if writing:
        yield f"It may then change something, by {_counted(writing)}."
    if reading:
        yield f"It may then {'also ' if writing else ''}look, by {_counted(reading)}."


def _holder(request: TokenRequest, user: str) -> str:
    return f"the service account {request.service}" if request.service else user


def _counted(actions: list[str]) -> str:
    return f"{len(actions)} {'action' if len(actions) == 1 else 'actions'}: {', '.join(actions)}"


def _form(fields: Mapping[str, str], button: str, shown: str = "") -> str:
    """A form of the page, with its hidden fields and the markup of those that are shown."""
    inputs = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in fields.items()
    )
    line = f'<form class="filters" method="post" action="{_PAGE}">'
    return f'{line}{inputs}{shown}<button class="button main">{escape(button)}</button></form>'
