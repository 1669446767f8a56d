"""The frame of every page: security headers, errors as pages, static files, and routes that declare their action."""

import hashlib
import re
from html.parser import HTMLParser

import pytest
from console_support import ADA, HOSTILE, console_client, make_project
from starlette.responses import Response

from cumulant.console import assets, routes
from cumulant.console.page_request import PageRoute
from cumulant.core.errors import EngineUnavailableError, IntegrityError, TerminalError
from cumulant.testing.access import GrantedAccess

PAGES = (
    "/",
    "/nowhere",
    "/projects/flight-late",
    "/projects/flight-late/events",
    "/projects/flight-late/releases",
    "/projects/other",
)


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.elements, self.ids = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


def elements(text):
    return Elements(text).elements


@pytest.mark.parametrize("path", PAGES)
def test_every_page_has_a_policy_with_a_nonce_of_its_own(client, path):
    policies = [client.get(path).headers["content-security-policy"] for _ in range(2)]
    nonces = {re.search(r"script-src 'self' 'nonce-([\w-]{20,})'", policy)[1] for policy in policies}
    assert len(nonces) == 2
    for policy in policies:
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "base-uri 'none'" in policy


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_a_script_or_style_that_the_policy_would_refuse(client, path):
    response = client.get(path)
    nonce = re.search(r"'nonce-([\w-]+)'", response.headers["content-security-policy"])[1]
    for tag, attributes in elements(response.text):
        assert "style" not in attributes
        assert tag != "style"
        assert not [name for name in attributes if name.startswith(("on", "hx-on"))]
        if tag == "script":
            assert attributes["nonce"] == nonce
            assert attributes["src"].startswith("/static/")
        assert not str(attributes.get("href", "")).lower().startswith(("javascript:", "http:", "https:", "//"))


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_one_heading_a_main_part_and_unique_ids(client, path):
    response = client.get(path)
    assert response.status_code == (404 if path in {"/nowhere", "/projects/other"} else 200)
    listed = elements(response.text)
    tags = [tag for tag, _ in listed]
    ids = [attributes["id"] for _, attributes in listed if "id" in attributes]
    assert tags.count("h1") == 1
    assert tags.count("main") == 1
    assert len(ids) == len(set(ids))


def test_other_headers_keep_pages_from_frames_caches_and_other_sites(client):
    headers = client.get("/").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"


def test_an_unknown_project_is_a_page_with_code_and_what_next(client):
    response = client.get("/projects/flight-lat")
    assert response.status_code == 404
    assert "404 · not-found" in response.text
    assert "flight-late" in response.text
    assert "What next" in response.text


def test_an_unknown_name_is_escaped_and_cut(client):
    name = HOSTILE.replace("/", "")  # which would be another path
    response = client.get(f"/projects/{name}{'x' * 200}/events")
    assert response.status_code == 404
    assert "<script>alert" not in response.text
    assert "<img src=x" not in response.text
    assert "alert(1)" in response.text
    assert "{{191919*7}}" in response.text
    assert "x" * 81 not in response.text


def test_a_refused_action_is_a_page_with_status_403(project, client, monkeypatch):
    monkeypatch.setattr(project, "access", lambda: GrantedAccess([(ADA.id, "project.overview")]))
    response = client.get("/projects/flight-late/events")
    assert response.status_code == 403
    assert "user:ada may not do events.show" in response.text
    assert "You may not do this" in response.text


def test_a_store_that_does_not_answer_is_a_page_with_status_503(project, client, monkeypatch):
    def fail():
        raise EngineUnavailableError("the journal does not answer", hint="start PostgreSQL")

    monkeypatch.setattr(project, "journal", fail)
    response = client.get("/projects/flight-late/events")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "start PostgreSQL" in response.text
    assert "Try again" in response.text


def test_a_fault_of_a_page_is_logged_and_shows_nothing_of_it(project, capfd):
    def fail(page):
        raise RuntimeError("secret-detail")

    response = console_client(project, routes=(PageRoute("/broken", fail, None),)).get("/broken")
    assert response.status_code == 500
    assert "secret-detail" not in response.text
    logged = capfd.readouterr().err
    assert "RuntimeError" in logged
    assert "test_console_shell.py" in logged
    assert "secret-detail" not in logged


def test_a_page_of_an_undeclared_action_stops_the_program():
    with pytest.raises(TerminalError, match=r'the action "release\.sho" is not declared'):
        routes.console_routes((PageRoute("/x", lambda page: Response(), "release.sho"),))


def test_a_form_without_action_stops_the_program():
    with pytest.raises(TerminalError, match="declares no action"):
        routes.console_routes((PageRoute("/x", lambda page: Response(), None, "POST"),))


def test_every_page_but_the_list_of_projects_declares_its_action():
    assert [route.path for route in routes.ROUTES if route.action is None] == ["/"]


def test_the_navigation_marks_the_present_page(client):
    links = [
        (attributes["href"], attributes.get("aria-current"))
        for _, attributes in elements(client.get("/projects/flight-late/events").text)
        if "data-go" in attributes
    ]
    assert ("/projects/flight-late/events", "page") in links
    assert ("/projects/flight-late", None) in links


def test_names_in_paths_are_quoted(tmp_path):
    with make_project(tmp_path, "a_b-c") as project:
        assert '"/projects/a_b-c/events"' in console_client(project).get("/projects/a_b-c").text


@pytest.mark.parametrize(("cookie", "attribute"), [("dark", "dark"), ("light", "light"), ('"><script>', None)])
def test_the_theme_is_that_of_the_cookie(project, cookie, attribute):
    text = console_client(project).get("/", headers={"cookie": f"theme={cookie}"}).text
    assert elements(text)[0] == ("html", {"lang": "en"} | ({"data-theme": attribute} if attribute else {}))


def test_static_files_are_named_by_their_content(client):
    urls = re.findall(r'(?:src|href)="(/static/[^"]+)"', client.get("/").text)
    assert len(set(urls)) >= 4
    for url in urls:
        response = client.get(url)
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
        assert hashlib.sha256(response.content).hexdigest().startswith(url.split("/")[2])
    name = urls[0].rsplit("/", 1)[1]
    assert "immutable" not in client.get(f"/static/{'0' * 16}/{name}").headers["cache-control"]
    assert client.get("/static/0/..%2f..%2fpyproject.toml").status_code == 404


def test_vendored_files_are_those_of_the_lock():
    for vendored in assets.vendored_files():
        assert vendored.licence
        assert vendored.source
        assert vendored.version
        assert hashlib.sha256(assets.load_assets()[vendored.file].content).hexdigest() == vendored.sha256
    known = {vendored.file for vendored in assets.vendored_files()}
    assert {name for name in assets.load_assets() if ".min." in name} <= known


def test_a_changed_vendored_file_is_refused(monkeypatch):
    changed = assets.vendored_files()[0].__class__("htmx.min.js", "htmx.org", "4.0.1", "0BSD", "npm", "0" * 64)
    monkeypatch.setattr(assets, "vendored_files", lambda: [changed])
    with pytest.raises(IntegrityError, match=r"htmx\.min\.js is not that of htmx\.org 4\.0\.1"):
        assets.load_assets()


def test_the_principal_is_named(client):
    assert f">{ADA.id.removeprefix('user:')}</span>" in client.get("/").text


def test_an_unknown_path_is_a_page_and_one_of_the_api_a_problem(client):
    page, problem = client.get("/nowhere"), client.get("/v1/nowhere")
    assert page.status_code == problem.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    assert problem.headers["content-type"] == "application/problem+json"
    assert client.get("/v1/projects").json()[0]["name"] == "flight-late"


def test_the_api_has_the_overview_too(client):
    overview = client.get("/v1/projects/flight-late/overview").json()
    assert overview["level"] == "unknown"
    assert overview["sentence"] == "nothing was evaluated yet"
