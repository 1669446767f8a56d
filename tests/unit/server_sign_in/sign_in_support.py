"""A server of one or two projects that answers who its caller is, behind the real sign-in."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from cumulant.console.routes import console_routes
from cumulant.flows.identities.sign_in_links import create_link
from cumulant.flows.identities.tokens import create_token
from cumulant.ports.access import Principal
from cumulant.project.project import Project
from cumulant.server.application import create_application
from cumulant.server.jobs import Jobs
from cumulant.server.sign_in.sign_in import SignIn

ADA = Principal("user:ada", ("team",), via="cli")
LOCAL = "http://127.0.0.1:8700"


class SteppedClock:
    """The time that a test says."""

    def __init__(self) -> None:
        self.at = datetime(2026, 5, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class InProcess(httpx.BaseTransport):
    """Sends requests to an application in this process, from an address that the test names."""

    def __init__(self, application: Any, client: str, *, raises: bool = True) -> None:
        self._transport = httpx.ASGITransport(application, client=(client, 50_000), raise_app_exceptions=raises)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def send() -> httpx.Response:
            response = await self._transport.handle_async_request(request)
            return httpx.Response(response.status_code, headers=response.headers.raw, content=await response.aread())

        return asyncio.run(send())


async def who(request: Request) -> JSONResponse:
    """What the middleware found out about the request, and its body."""
    state = request.state
    return JSONResponse(
        {
            "principal": state.principal.id,
            "groups": state.principal.groups,
            "scope": state.principal.scope,
            "source": state.principal.source,
            "trace": state.principal.trace,
            "csrf": state.csrf,
            "session": state.session,
            "project": state.project,
            "client": request.client.host if request.client else "",
            "url": str(request.url),
            "body": (await request.body()).decode(),
        }
    )


class Server:
    """A server under test."""

    def __init__(self, projects: dict[str, Project], **options: Any) -> None:
        self.clock = SteppedClock()
        self.projects = projects
        self.home = next(iter(projects.values()))
        self.sign_in = SignIn(projects, clock=self.clock, **{"local": True, **options})
        methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
        paths = ("/", "/page", "/v1", "/v1/projects", "/v1/projects/{project}/x", "/projects/{project}/x")
        routes = [*self.sign_in.routes(), *[Route(path, who, methods=methods) for path in paths]]
        self.application: ASGIApp = self.sign_in.middleware(Starlette(routes=routes))

    def with_console(self) -> Server:
        """The same server with the API and the console in place of the answers of who its caller is."""
        self.application = create_application(
            self.projects,
            authenticate=self.sign_in.middleware,
            pages=[*self.sign_in.routes(), *console_routes()],
            jobs=Jobs(),
        )
        return self

    def browser(self, url: str = LOCAL, client: str = "127.0.0.1") -> httpx.Client:
        return httpx.Client(transport=InProcess(self.application, client), base_url=url)

    def signed_in(self) -> httpx.Client:
        """A browser with a session of ADA, by a one-time link."""
        browser = self.browser()
        code = create_link(self.home, principal=ADA, clock=self.clock)
        assert browser.get("/login", params={"code": code}).status_code == 303
        return browser

    def token(self, project: str | None = None, **options: Any) -> dict[str, str]:
        """The headers of a program with a token of ADA."""
        owner = self.home if project is None else self.projects[project]
        new = create_token(owner, "test", principal=ADA, clock=self.clock, **options)
        return {"authorization": f"Bearer {new.secret}"}
