"""A real server whose users come from an OpenID provider, and their browsers, for tests of the sign-in."""

from __future__ import annotations

import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from cumulant.core.events import Actor
from cumulant.flows.identities.records import SESSIONS
from cumulant.flows.identities.sessions import USES
from cumulant.project.file.loading import load
from cumulant.server.sign_in.sign_in import SignIn

PAGE = {"accept": "text/html"}


async def who(request: Request) -> JSONResponse:
    state = request.state
    return JSONResponse(
        {
            "id": state.principal.id,
            "groups": state.principal.groups,
            "tenant": state.principal.tenant,
            "csrf": state.csrf,
        }
    )


class Server:
    """A server whose users come from a provider."""

    def __init__(self, folder: Path, issuer: str, more: str = "") -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        folder.mkdir()
        section = f"url: '{self.url}', issuer: '{issuer}', client_secret: '${{secret:OIDC}}'{more}"
        (folder / "cumulant.yaml").write_text(
            f"version: 1\nmodel: {{name: shop}}\nenvironments:\n  local:\n    tenant: acme\n    sign_in: {{{section}}}\n"
        )
        self.project = load(folder)
        sign_in = SignIn({"shop": self.project}, local=True)
        application = sign_in.middleware(
            Starlette(routes=[*sign_in.routes(), Route("/page", who, methods=["GET", "POST"])])
        )
        self._server = uvicorn.Server(
            uvicorn.Config(application, log_config=None, proxy_headers=False, lifespan="off", ws="none")
        )
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)

    def browser(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=PAGE, timeout=30)

    def answer_of_provider(self, browser: httpx.Client, target: str = "/page?a=b") -> str:
        """Begin to sign in, and return where the provider sends the browser back to."""
        started = browser.get("/login/start", params={"next": target})
        assert started.status_code == 303
        answered = httpx.get(started.headers["location"])
        assert answered.status_code == 302
        return str(answered.headers["location"])

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._listener.close()
        self.project.close()


def with_query(url: str, **changes: str | None) -> str:
    """`url` with parameters changed; None removes one."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()} | changes
    return urlunsplit(parts._replace(query=urlencode({name: text for name, text in query.items() if text is not None})))


def events(server: Server) -> list[str]:
    return [event.kind for event in server.project.journal().events()]


def grow_older(server: Server, hours: float, *, used: bool = True) -> None:
    """As if the sessions had been opened so long ago; `used`: and used just now."""
    journal = server.project.journal()
    versions = {each.key: each.version for each in journal.reports(USES)}
    for row in journal.rows(SESSIONS):
        before = {
            name: (datetime.fromisoformat(str(row.value[name])) - timedelta(hours=hours)).isoformat()
            for name in ("opened", "expires")
        }
        with journal.transaction(actor=Actor("service:test")) as transaction:
            transaction.put(SESSIONS, row.key, row.value | before)
        if used:
            journal.report(USES, row.key, {"used": datetime.now(UTC).isoformat()}, expect=versions.get(row.key, 0))


def sessions(server: Server) -> list[Any]:
    return [row.value for row in server.project.journal().rows(SESSIONS)]
