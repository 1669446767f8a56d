"""A session in a real browser over HTTPS: its cookie, and what a page of another site cannot do with it."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from cumulant.console.routes import console_routes
from cumulant.flows.identities.device_logins import begin_device_login, finish_device_login
from cumulant.flows.identities.sign_in_links import create_link, link_url
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.project.project import Project
from cumulant.server.application import create_application
from cumulant.server.jobs import Jobs
from cumulant.server.sign_in.sign_in import SignIn

pytestmark = [pytest.mark.live]

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ADA = Principal("user:ada", via="cli")


async def page(request: Request) -> Response:
    state = request.state
    form = f'<form method="post" action="/page"><input type="hidden" name="csrf" value="{state.csrf}"><button>Go</button></form>'
    done = "changed" if request.method == "POST" else "shown"
    return HTMLResponse(f"<title>{done}</title><p>{state.principal.id}</p>{form}")


def certificate(folder: Path) -> dict[str, Any]:
    """A certificate that nobody signed, for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    signed = built.sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(text)
    return {"ssl_certfile": str(folder / "cert.pem"), "ssl_keyfile": str(folder / "key.pem")}


@contextmanager
def listening(application: Any, listener: socket.socket, **options: Any) -> Iterator[None]:
    config = uvicorn.Config(
        application, log_config=None, proxy_headers=False, lifespan="off", ws="none", loop="asyncio", **options
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = started.new_context(ignore_https_errors=True)
        yield context
        started.close()


def test_a_session_in_a_browser(browser: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as elsewhere:
        own = f"https://localhost:{listener.getsockname()[1]}"
        other = f"http://127.0.0.1:{elsewhere.getsockname()[1]}"
        (tmp_path / "cumulant.yaml").write_text(
            f"version: 1\nmodel: {{name: shop}}\nenvironments: {{local: {{sign_in: {{url: '{own}'}}}}}}\n"
        )

        async def evil(request: Request) -> Response:
            del request
            return HTMLResponse(
                f'<form method="post" action="{own}/page"><input name="csrf" value="x"><button>Win</button></form>'
            )

        with load(tmp_path) as project:
            sign_in = SignIn({"shop": project}, local=True)
            routes = [*sign_in.routes(), Route("/page", page, methods=["GET", "POST"])]
            application = sign_in.middleware(Starlette(routes=routes))
            foreign = Starlette(routes=[Route("/", evil)])
            with listening(application, listener, **certificate(tmp_path)), listening(foreign, elsewhere):
                check(browser, own, other, link_url(own, create_link(project, principal=ADA)))
                check_device(browser, own, project)
                browser.close()  # its connections, before the servers wait for them


def check(browser: Any, own: str, other: str, link: str) -> None:
    tab = browser.new_page()
    tab.goto(f"{own}/page")
    assert tab.url == f"{own}/login?next=/page"
    assert tab.goto(link).status == 200, "on to the page that was asked for before"
    assert tab.url == f"{own}/page"
    assert "user:ada" in tab.content()
    (cookie,) = browser.cookies()
    assert (cookie["name"], cookie["secure"], cookie["httpOnly"]) == ("__Host-cumulant", True, True)
    assert (cookie["domain"], cookie["path"], cookie["sameSite"]) == ("localhost", "/", "Lax")
    assert tab.evaluate("document.cookie") == ""
    tab.click("button")
    assert tab.title() == "changed", "our own form"
    stranger = browser.new_page()
    stranger.goto(other)
    with stranger.expect_response(f"{own}/page") as caught:
        stranger.click("button")
    assert caught.value.status in (401, 403), "another site's form"
    assert tab.goto(f"{own}/page").status == 200
    assert tab.title() == "shown"
    tab.goto(link)
    assert "was used" in tab.content()


def check_device(browser: Any, own: str, project: Project) -> None:
    """A command line's sign-in is confirmed by the button of its page."""
    now, life = datetime.now(UTC), timedelta(hours=1)
    codes = begin_device_login(project.journal(), "127.0.0.1", now)
    tab = browser.new_page()
    assert tab.goto(f"{own}/device?user_code={codes.user_code}&project=shop").status == 200
    assert finish_device_login(project.journal(), codes.device_code, life, now) == "pending"
    with tab.expect_response(f"{own}/device") as caught:
        tab.click("button")
    assert caught.value.status == 200
    tab.get_by_text("is signed in").wait_for()  # the page may follow its response
    new = finish_device_login(project.journal(), codes.device_code, life, now)
    assert not isinstance(new, str)
    assert new.token.principal == "user:ada"


def test_the_console_signs_out(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: shop}\n")
    with load(tmp_path) as project, socket.create_server(("127.0.0.1", 0)) as listener:
        own = f"http://127.0.0.1:{listener.getsockname()[1]}"
        sign_in, jobs = SignIn({"shop": project}, local=True), Jobs()
        pages = [*sign_in.routes(), *console_routes()]
        application = create_application({"shop": project}, authenticate=sign_in.middleware, pages=pages, jobs=jobs)
        with listening(application, listener):
            tab = browser.new_page()
            faults: list[str] = []
            tab.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
            tab.goto(link_url(own, create_link(project, principal=ADA)))
            assert tab.url == f"{own}/"
            tab.click("text=Sign out")
            tab.wait_for_url(f"{own}/login")
            assert tab.evaluate("[...document.styleSheets].every(sheet => sheet.cssRules.length > 0)")
            assert tab.evaluate("document.styleSheets.length") == 2
            assert f"cumulant session link --url {own}" in tab.content()
            assert faults == [], "nothing is refused by the pages' own policy"
            tab.goto(f"{own}/")
            assert tab.url == f"{own}/login"
            browser.close()
        jobs.close()
