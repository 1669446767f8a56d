"""What callers may try at the server: parameters twice, files' names, lines in logs, ids of others."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from sign_in_support import ADA, LOCAL

from cumulant.console.charts import csv_response
from cumulant.console.routes import ROUTES
from cumulant.core.errors import RefusedError
from cumulant.flows.identities.sessions import revoke_sessions
from cumulant.project.sign_in_section import TrustedIssuer
from cumulant.server.sign_in.exchange import _fits
from cumulant.server.sign_in.log import log_failure

PAGE = {"accept": "text/html"}


@pytest.mark.parametrize("query", ["limit=1&limit=1000", "cursor=&cursor=x", "limit=1&limit=1", "nothing=1"])
def test_a_parameter_that_comes_twice_is_refused(serve, query):
    """Which of two counts is not for a caller to choose, nor for a proxy in front to guess."""
    answer = serve().with_console().signed_in().get(f"/v1/projects/shop/runs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "request")


def test_every_page_has_a_sign_out(serve):
    """For a browser with a session, also a page that says what is wrong."""
    browser = serve().with_console().signed_in()
    for route in ROUTES:
        if route.method == "GET" and not route.path.endswith(".csv"):
            answer = browser.get(re.sub(r"{\w+}", "1", route.path.replace("{project}", "shop")), headers=PAGE)
            if answer.headers["content-type"].startswith("text/html"):
                assert '<form method="post" action="/logout">' in answer.text, route.path


def test_a_name_of_a_download_adds_no_header():
    for name in ('x"; filename="y.exe', "a\r\nset-cookie: x=y", "../../etc/passwd", "é\0", "x" * 5_000):
        header = csv_response(name, ["a"], [["b"]], {}).headers["content-disposition"]
        assert re.fullmatch(r'attachment; filename="[A-Za-z0-9._-]{1,100}\.csv"', header), header
        assert "/" not in header


def test_sessions_and_their_ends_are_events(serve):
    server = serve()
    browser = server.signed_in()
    browser.post("/logout", headers={"origin": LOCAL}, data={"csrf": browser.get("/page").json()["csrf"]})
    server.signed_in()
    revoke_sessions(server.home, of=ADA.id, principal=ADA, reason="left")
    events = [event for event in server.home.journal().events() if event.kind.startswith("identities.session_")]
    assert [event.kind.removeprefix("identities.session_") for event in events] == ["opened", "ended"] * 2
    assert {event.actor for event in events} == {ADA.id}
    assert events[0].data["method"] == "link"
    assert all(event.time.utcoffset() == timedelta(0) for event in events)
    secrets = re.compile(r"[A-Za-z0-9_-]{43}")
    assert not any(secrets.search(json.dumps(dict(event.data), default=str)) for event in events)


def test_a_token_that_holds_a_line_break_adds_no_line_to_the_log(serve, capsys):
    log_failure(RefusedError('x\n{"level":"info","sign_in":"ok"}\r\x1b[2J'))
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert json.loads(written)["sign_in"] == "failed"
    assert "\x1b" not in written
    server = serve(sign_in="proxies: [127.0.0.1]", local=False)
    headers = {"authorization": "Bearer cml_x", "x-forwarded-for": "1.2.3.4\n5.6.7.8"}
    assert server.browser().get("/v1", headers=headers).status_code == 401
    assert "1.2.3.4" not in json.dumps([dict(event.data) for event in server.home.journal().events()], default=str)


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("repo:acme/shop:*", "repo:acme/shop:ref:refs/heads/main", True),
        ("repo:acme/shop:*", "repo:acme/shop2:ref", False),
        ("repo:a.me/shop:*", "repo:acme/shop:ref", False),
        ("repo:(acme|evil)/x", "repo:evil/x", False),
        ("repo:acme/x+", "repo:acme/xxx", False),
        ("repo:acme/x$", "repo:acme/x", False),
        ("*:main", "a:main", True),
        ("a*b*c", "a1b2c", True),
        ("a*b*c", "a1c2b", False),
    ],
)
def test_a_pattern_of_a_subject_is_text_but_for_its_stars(pattern, subject, fits):
    trusted = TrustedIssuer(
        issuer="https://ci.example.com",
        audience="a",
        subject=pattern,
        claims={},
        service="ci",
        scope=("runs.show",),
        expires=timedelta(minutes=5),
    )
    assert _fits(trusted, {"sub": subject}) is fits


HOSTILE_IDS = [
    "../other",
    "..%2Fother",
    "%2e%2e",
    "1;drop",
    "'or'1'='1",
    "%00",
    "a" * 3_000,
    "${secret:X}",
    "%0d%0aX:1",
    "{{191919*7}}",
]


@pytest.mark.parametrize("text", HOSTILE_IDS)
def test_ids_are_names_and_nothing_else(serve, text):
    """Unknown ids of every kind are not found, alike for everybody, and shown as text."""
    browser = serve().with_console().signed_in()
    pages = [route.path for route in ROUTES if route.method == "GET" and route.path.count("{") == 2]
    assert len(pages) > 5
    for path in pages:
        answer = browser.get(
            re.sub(r"{(?!project)\w+}", lambda _: text, path).replace("{project}", "shop"), headers=PAGE
        )
        assert answer.status_code in (200, 400, 404), path
        assert "Traceback" not in answer.text
        assert "1343433" not in answer.text
        assert "x" not in {name.lower() for name in answer.headers}
