"""A console over projects in folders, for a principal that a test names."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path

import httpx
from starlette.applications import Starlette

from cumulant.console.routes import ROUTES, console_routes
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.project.project import Project
from cumulant.server.application import create_application
from cumulant.server.jobs import Jobs

ADA = Principal("user:ada", via="http")
#: what a user may write anywhere
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'{{191919*7}}"
CSRF = "token-of-the-session"
SAME_ORIGIN = {"origin": "http://testserver", "sec-fetch-site": "same-origin"}


class PrincipalMiddleware:
    """What authentication does: each request has a principal, and what its forms have to carry."""

    def __init__(self, app, principal):
        self.app, self.principal = app, principal

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            scope.setdefault("state", {}).update(principal=self.principal, csrf=CSRF)
        await self.app(scope, receive, send)


def console_application(projects: Mapping[str, Project], *, principal: Principal = ADA, routes=ROUTES) -> Starlette:
    def authenticate(app):
        return PrincipalMiddleware(app, principal)

    return create_application(projects, authenticate=authenticate, pages=console_routes(routes), jobs=Jobs())


class ConsoleClient:
    """Sends requests to an application in this process, each on an event loop of its own."""

    def __init__(self, application) -> None:
        self.application = application

    def request(self, method: str, path: str, **options) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.application)
            async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def get(self, path: str, **options) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options) -> httpx.Response:
        return self.request("POST", path, **options)


def console_client(*projects: Project, principal: Principal = ADA, routes=ROUTES) -> ConsoleClient:
    named = {project.name: project for project in projects}
    return ConsoleClient(console_application(named, principal=principal, routes=routes))


def make_project(folder: Path, name: str = "flight-late", text: str = "") -> Project:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cumulant.yaml").write_text(f"version: 1\nmodel: {{name: {name}, owner: ops@example.com}}\n{text}")
    return load(folder, via="http")


def csrf_of(response: httpx.Response) -> str:
    return re.search(r'data-csrf="([^"]+)"', response.text)[1]


def send_form(client: ConsoleClient, path: str, page: str, **fields: str) -> httpx.Response:
    """Send a form as the page `page` would."""
    return client.post(path, data={"csrf": csrf_of(client.get(page)), **fields}, headers=SAME_ORIGIN)
