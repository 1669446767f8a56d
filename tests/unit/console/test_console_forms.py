"""Forms are taken from pages of the same origin with the session's token alone."""

import pytest
from console_support import SAME_ORIGIN, ConsoleClient, console_application, console_client, csrf_of
from starlette.responses import Response

from cumulant.console.page_request import PageRoute
from cumulant.console.routes import ROUTES


@pytest.fixture
def taken():
    return []


@pytest.fixture
def client(project, taken):
    def take(page):
        taken.append(dict(page.form))
        return Response("taken")

    return console_client(project, routes=(*ROUTES, PageRoute("/take", take, "release.steer", "POST")))


@pytest.fixture
def token(client):
    return csrf_of(client.get("/"))


def test_a_form_of_our_page_is_taken(client, token, taken):
    response = client.post("/take", data={"csrf": token, "reason": "größer"}, headers=SAME_ORIGIN)
    assert response.status_code == 200
    assert taken == [{"csrf": token, "reason": "größer"}]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://testserver.evil.example"},
        {"origin": "http://testserver:81"},
        {"origin": "http://testserver", "sec-fetch-site": "cross-site"},
    ],
)
def test_a_form_of_another_origin_is_refused(client, token, taken, headers):
    response = client.post("/take", data={"csrf": token}, headers=headers)
    assert response.status_code == 403
    assert "may not do this" in response.text
    assert taken == []


@pytest.mark.parametrize("given", ["", "0" * 64, "é", None])
def test_a_form_without_the_token_is_refused(client, taken, given):
    response = client.post("/take", data={"a": "b"} if given is None else {"csrf": given}, headers=SAME_ORIGIN)
    assert response.status_code == 403
    assert "of another session" in response.text
    assert taken == []


def test_the_token_may_be_a_header(client, token, taken):
    assert client.post("/take", data={"a": "b"}, headers=SAME_ORIGIN | {"x-csrf-token": token}).status_code == 200
    assert taken == [{"a": "b"}]


def test_a_token_of_another_server_is_refused(project, client, taken):
    foreign = csrf_of(console_client(project).get("/"))
    assert client.post("/take", data={"csrf": foreign}, headers=SAME_ORIGIN).status_code == 403
    assert taken == []


def test_the_token_of_a_session_comes_first(project):
    echo = PageRoute("/take", lambda page: Response(page.csrf), "release.steer", "POST")
    application = console_application({project.name: project}, routes=(*ROUTES, echo))

    async def with_session(scope, receive, send):
        scope.setdefault("state", {})["csrf"] = "session-token"
        await application(scope, receive, send)

    client = ConsoleClient(with_session)
    assert csrf_of(client.get("/")) == "session-token"
    assert client.post("/take", data={"csrf": "session-token"}, headers=SAME_ORIGIN).text == "session-token"


def test_a_form_that_is_too_large_or_none_is_refused(client, token, taken):
    large = client.post("/take", data={"csrf": token, "text": "x" * 70_000}, headers=SAME_ORIGIN)
    assert large.status_code == 400
    assert "larger than 64 KiB" in large.text
    json = client.post("/take", json={"csrf": token}, headers=SAME_ORIGIN)
    assert json.status_code == 400
    assert "this takes a form" in json.text
    assert taken == []


def test_a_page_of_a_form_cannot_be_got(client):
    assert client.get("/take").status_code == 404
