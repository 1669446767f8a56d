"""Headers of every response: of pages, of the API, of errors, and of what the sign-in answers itself."""

from __future__ import annotations

import re

import httpx
import pytest
from sign_in_support import ADA, LOCAL, InProcess

from cumulant.console.routes import ROUTES
from cumulant.flows.identities.sign_in_links import create_link
from cumulant.server.operation_list import OPERATIONS

SECURE = "https://console.example.com"
PAGE = {"accept": "text/html"}
OPEN = ("/login", "/v1/health/live", "/v1/openapi.json", "/static/current/mark.svg", "/static/current/console.js")
ANSWERS = {
    "type": re.compile(
        r"(text/(html|css|csv|javascript|plain); charset=utf-8|image/svg\+xml; charset=utf-8"
        r"|application/((problem\+)?json|x-ndjson)|text/plain; version=.*charset=utf-8)"
    ),
    "policy": re.compile(r"default-src 'none'.*base-uri 'none'.*frame-ancestors 'none'"),
}


def paths() -> list[str]:
    """A path of every page and of every read of the API; most of what they name does not exist."""
    pages = [route.path for route in ROUTES if route.method == "GET"]
    reads = [f"/v1/projects/{{project}}{each.path}" for each in OPERATIONS if each.method == "GET"]
    named = [re.sub(r"{\w+(:path)?}", "1", path.replace("{project}", "shop")) for path in [*pages, *reads]]
    return ["/v1", "/v1/projects", "/v1/metrics", "/nothing/here", "/v1/nothing", "/static/1/none", *OPEN, *named]


def check(answer: httpx.Response, *, https: bool) -> None:
    headers = answer.headers
    where = f"{answer.request.method} {answer.request.url}: {headers}"
    assert headers["x-content-type-options"] == "nosniff", where
    assert headers["referrer-policy"] == "same-origin", where
    assert ANSWERS["policy"].search(headers["content-security-policy"]), where
    assert "unsafe-" not in headers["content-security-policy"], where
    assert "access-control-allow-origin" not in headers, where
    assert "server" not in headers, where
    assert "x-powered-by" not in headers, where
    assert ("strict-transport-security" in headers) == https, where
    assert answer.status_code < 500, where
    if answer.content:
        assert ANSWERS["type"].fullmatch(headers["content-type"]), where
    if not answer.request.url.path.startswith("/static/"):
        assert re.fullmatch("no-store|private, no-cache", headers["cache-control"]), where


def test_every_response_has_them(serve):
    server = serve().with_console()
    browser, nobody, token = server.signed_in(), server.browser(), server.token()
    for path in paths():
        check(browser.get(path, headers=PAGE), https=False)
        check(nobody.get(path, headers=PAGE), https=False)
        check(nobody.get(path, headers=token), https=False)
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        check(browser.request(method, "/v1/projects/shop/runs", headers={"origin": LOCAL}), https=False)
    check(nobody.get("/", headers=PAGE | {"host": "evil.example"}), https=False)


def test_by_https_browsers_are_told_to_stay_there(serve):
    server = serve(sign_in=f"url: {SECURE}").with_console()
    browser = server.browser(SECURE)
    link = browser.get("/login", params={"code": create_link(server.home, principal=ADA, clock=server.clock)})
    assert link.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
    for path in ("/", "/v1", "/login", "/nothing", "/static/current/mark.svg", "/v1/projects/none"):
        check(browser.get(path, headers=PAGE), https=True)


def test_what_a_proxy_says_of_the_scheme_counts_from_declared_ones_alone(serve):
    server = serve(sign_in="proxies: [10.0.0.0/24]", local=False).with_console()
    forwarded = {"x-forwarded-proto": "https"} | server.token()
    for client, https in (("10.0.0.7", True), ("10.0.1.7", False)):
        answer = server.browser(LOCAL, client=client).get("/v1", headers=forwarded)
        assert ("strict-transport-security" in answer.headers) == https


def test_a_fault_of_the_server_has_them_and_says_nothing_of_itself(serve, monkeypatch):
    server = serve().with_console()
    browser = server.signed_in()

    def fail(*_arguments, **_options):
        raise ZeroDivisionError("pa55-word in /srv/secret.py")

    monkeypatch.setattr("cumulant.server.application._visible", fail)
    with httpx.Client(transport=InProcess(server.application, "127.0.0.1", raises=False), base_url=LOCAL) as other:
        answer = other.get("/v1", headers={"cookie": f"cumulant-8700={browser.cookies['cumulant-8700']}"})
    assert (answer.status_code, answer.json()["detail"]) == (500, "internal error")
    assert "pa55" not in answer.text
    assert "secret.py" not in answer.text
    assert ANSWERS["policy"].search(answer.headers["content-security-policy"])
    assert answer.headers["cache-control"] == "no-store"


def test_signing_out_clears_what_the_browser_keeps(serve):
    browser = serve().with_console().signed_in()
    page = browser.get("/", headers=PAGE)
    token = re.search(r'data-csrf="([^"]+)"', page.text)[1]
    answer = browser.post("/logout", headers={"origin": LOCAL}, data={"csrf": token})
    assert answer.status_code == 303
    assert answer.headers["clear-site-data"] == '"cache", "storage"'
    assert 'cumulant-8700="";' in answer.headers["set-cookie"]


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND"])
def test_methods_that_show_or_tunnel_are_not_there(serve, method):
    browser = serve().with_console().signed_in()
    for path in ("/", "/v1", "/v1/projects/shop/runs", "/static/current/mark.svg", "/login"):
        answer = browser.request(method, path, headers={"origin": LOCAL, "x-probe": "seen"})
        assert answer.status_code in (401, 403, 404, 405), path
        assert "seen" not in answer.text


@pytest.mark.parametrize(
    "path", ["/static/", "/static", "/static/current/", "/.git/config", "/v1/projects/shop/../../"]
)
def test_folders_are_not_listed_and_nothing_lies_beside_the_pages(serve, path):
    answer = serve().with_console().signed_in().get(path, headers=PAGE)
    assert answer.status_code in (307, 404)
    assert "mark.svg" not in answer.text.partition("<main")[2]
