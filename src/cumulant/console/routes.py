"""The routes of the console: each page with its action, the static files, and the stream of events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from cumulant.console.assets import Asset, load_assets
from cumulant.console.memory import Memories
from cumulant.console.page_request import PageRequest, PageRoute, Site
from cumulant.console.pages import data, events, lineage, models, monitoring, overview, releases, review, runs
from cumulant.console.rows import RenderedRows
from cumulant.console.security import new_nonce
from cumulant.console.stream import event_stream
from cumulant.core.errors import CumulantError, NotFoundError, TerminalError
from cumulant.flows.ledger.actions import find_action
from cumulant.server.forms import read_form
from cumulant.server.problem import problem_headers, problem_status
from cumulant.serving.telemetry.access_log import write_fault

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Scope

    Endpoint = Callable[[Request], Awaitable[Response]]

#: every page, in the order of the navigation
ROUTES: tuple[PageRoute, ...] = (
    *overview.ROUTES,
    *releases.ROUTES,
    *monitoring.ROUTES,
    *models.ROUTES,
    *runs.ROUTES,
    *data.ROUTES,
    *review.ROUTES,
    *events.ROUTES,
    *lineage.ROUTES,
)
#: paths that need no action: what they serve is the same for everybody
OPEN_PATHS = ("/static/{digest}/{name}",)
_KEPT = "public, max-age=31536000, immutable"


def console_routes(routes: Sequence[PageRoute] = ROUTES) -> list[BaseRoute]:
    """The routes, as `pages` of `server.application.create_application`.

    Each request has a `state.principal`; forms carry `state.csrf`, which is checked with their origin before they come
    here (`server.sign_in.authentication`).

    Raises:
        TerminalError: an action is not declared, or a form has none.
        IntegrityError: a vendored file was changed.
    """
    for route in routes:
        _check(route)
    assets = load_assets()
    site = Site(
        assets,
        _navigation(routes),
        {name: text for route in routes for name, text in route.notices.items()},
        Memories(),
        RenderedRows(),
    )
    pages = [Route(route.path, _endpoint(route, site), methods=[route.method]) for route in routes]
    stream = Route("/projects/{project}/stream", _stream(site), methods=["GET"])
    missing = PageRoute("/{path:path}", _no_page, None)
    return [
        Route(OPEN_PATHS[0], _static(assets), methods=["GET"]),
        stream,
        *pages,
        RestRoute(missing.path, _endpoint(missing, site), methods=["GET"]),
    ]


class RestRoute(Route):
    """Whatever no page, no form and no path of the API is."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = str(scope["path"])
        return (Match.NONE, {}) if path == "/v1" or path.startswith(("/v1/", "/static/")) else super().matches(scope)


def _no_page(_: PageRequest) -> Response:
    raise NotFoundError("there is no page at this path", hint="the overview lists the projects")


def _check(route: PageRoute) -> None:
    if route.action is not None:
        find_action(route.action)
    elif route.method != "GET":
        raise TerminalError(f"the form at {route.path} declares no action", subject=route.path)


def _navigation(routes: Sequence[PageRoute]) -> list[tuple[str, tuple[str, ...], str, str | None]]:
    prefix = "/projects/{project}"
    return [
        (route.nav.label, tuple(filter(None, route.path.removeprefix(prefix).split("/"))), route.nav.key, route.action)
        for route in routes
        if route.nav is not None
    ]


def _endpoint(route: PageRoute, site: Site) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        page = PageRequest(request, site, nonce=new_nonce(), csrf=getattr(request.state, "csrf", ""))
        try:
            if route.method == "POST":
                page.form = await read_form(request)
            return await run_in_threadpool(route.handler, page)
        except CumulantError as error:
            return await run_in_threadpool(_error_page, page, route.action, error)
        except Exception:  # noqa: BLE001 - the edge: one page's fault must not end the server
            write_fault()
            fault = TerminalError("the console has a fault here, which is in the server's log", hint="try again")
            return await run_in_threadpool(page.error, fault, 500)

    return endpoint


def _error_page(page: PageRequest, action: str | None, error: CumulantError) -> Response:
    if action is not None:
        error = page.as_seen(action, error)
    response = page.error(error, problem_status(error))
    response.headers.update(problem_headers(error))
    return response


def _static(assets: dict[str, Asset]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        asset = assets.get(request.path_params["name"])
        if asset is None:
            return Response("not found", 404, media_type="text/plain")
        same = asset.digest == request.path_params["digest"]
        headers = {"cache-control": _KEPT if same else "no-cache", "x-content-type-options": "nosniff"}
        return Response(asset.content, headers=headers, media_type=asset.media_type)

    return endpoint


def _stream(site: Site) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        page = PageRequest(request, site, nonce=new_nonce(), csrf="")
        try:
            return await event_stream(page)
        except CumulantError as error:
            seen = await run_in_threadpool(page.as_seen, "events.show", error)
            return Response(seen.message, problem_status(seen), media_type="text/plain")

    return endpoint
