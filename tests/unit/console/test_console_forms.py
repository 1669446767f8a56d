"""Forms of the console: what they carry and how they are read. Who may send them: server_sign_in/test_sign_in_forms.py."""

import pytest
from console_support import CSRF, console_client, csrf_of
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


def test_pages_carry_the_token_that_the_sign_in_expects(client):
    assert csrf_of(client.get("/")) == CSRF


def test_a_form_is_read_as_it_was_written(client, taken):
    assert client.post("/take", data={"reason": "größer", "empty": ""}).status_code == 200
    assert taken == [{"reason": "größer", "empty": ""}]


def test_a_form_that_is_too_large_or_none_is_refused(client, taken):
    large = client.post("/take", data={"text": "x" * 70_000})
    assert large.status_code == 413
    assert "larger than 64 KiB" in large.text
    json = client.post("/take", json={"a": "b"})
    assert json.status_code == 415
    assert "this takes a form" in json.text
    assert taken == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"reason=a&reason=b", "the field &#34;reason&#34; twice"),
        (b"reason=%ff", "no text in UTF-8"),
        (b"&".join(b"f%d=1" % n for n in range(101)), "more than 100 fields"),
    ],
)
def test_a_form_with_a_field_twice_is_refused(client, taken, content, words):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = client.post("/take", content=content, headers=headers)
    assert answer.status_code == 400
    assert words in answer.text
    assert taken == []


def test_a_page_of_a_form_cannot_be_got(client):
    assert client.get("/take").status_code == 404
