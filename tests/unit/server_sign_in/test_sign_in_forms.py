"""Forms of the console behind the real sign-in: taken from its own pages with the session's token alone."""

from __future__ import annotations

import re

import pytest
from sign_in_support import ADA, LOCAL

from cumulant.console.routes import ROUTES
from cumulant.flows.identities.sign_in_links import create_link

PAGE = {"accept": "text/html"}
OWN = {"origin": LOCAL, "sec-fetch-site": "same-origin"}
ROLLBACK, REASON = "/projects/shop/rollback", {"reason": "errors"}


@pytest.fixture
def server(serve):
    return serve().with_console()


def paths() -> list[str]:
    """A path of every form of the console."""
    forms = [route.path for route in ROUTES if route.method == "POST"]
    return [re.sub(r"{\w+}", "1", path.replace("{project}", "shop")) for path in forms]


def csrf_of(browser, path="/") -> str:
    return re.search(r'data-csrf="([^"]+)"', browser.get(path, headers=PAGE).text)[1]


@pytest.mark.parametrize("path", paths())
def test_no_form_is_taken_from_another_site_or_without_the_token(server, path):
    """Whatever the form is for: it is refused before it is looked at."""
    browser = server.signed_in()
    token = csrf_of(browser)
    for headers in (
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:81"},
        {"origin": f"{LOCAL}.evil.example"},
        {"sec-fetch-site": "same-site"},
        {"origin": LOCAL, "sec-fetch-site": "cross-site"},
    ):
        assert browser.post(path, data={"csrf": token}, headers=headers).status_code == 403, headers
    for given in ({}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": "é"}, {"csrf": csrf_of(server.signed_in())}):
        answer = browser.post(path, data=given, headers=OWN | PAGE)
        assert answer.status_code == 403
        assert "of another session" in answer.text
    assert browser.post(path, json={"csrf": token}, headers=OWN).status_code == 403, "no form"
    assert server.browser().post(path, data={"csrf": token}, headers=OWN).status_code == 401, "nobody"
    allowed = [event.data["action"] for event in server.home.journal().events() if event.kind == "access.allowed"]
    assert set(allowed) == {"identities.session_link"}, "that of the test's own sign-ins"


def test_a_form_of_our_page_is_taken(server):
    browser = server.signed_in()
    token = csrf_of(browser)
    for options in ({"data": REASON | {"csrf": token}}, {"data": REASON, "headers": {"x-csrf-token": token}}):
        answer = browser.post(ROLLBACK, **options | {"headers": OWN | PAGE | options.get("headers", {})})
        assert answer.status_code not in (401, 403)
        assert "no earlier version" in answer.text, "what the flow itself says"


def test_a_field_twice_does_not_pass_another_token(server):
    """The first one could be what is checked, and the second what is done."""
    browser = server.signed_in()
    content = f"csrf=x&csrf={csrf_of(browser)}&reason=a"
    headers = OWN | PAGE | {"content-type": "application/x-www-form-urlencoded"}
    answer = browser.post(ROLLBACK, content=content, headers=headers)
    assert (answer.status_code, "twice" in answer.text) == (400, True)


def test_a_form_that_is_too_large_is_refused_before_its_token_is_looked_for(server):
    browser = server.signed_in()
    data = {"text": "x" * 70_000, "csrf": csrf_of(browser)}
    answer = browser.post(ROLLBACK, data=data, headers=OWN | PAGE)
    assert answer.status_code == 413
    assert "larger than 64 KiB" in answer.text


def test_a_token_of_before_the_sign_in_is_none_after_it(server):
    """The token of forms is of the session's secret, which each sign-in makes anew."""
    browser = server.signed_in()
    before = csrf_of(browser)
    browser.get("/login", params={"code": create_link(server.home, principal=ADA, clock=server.clock)})
    assert csrf_of(browser) != before
    assert browser.post(ROLLBACK, data={"csrf": before}, headers=OWN).status_code == 403
