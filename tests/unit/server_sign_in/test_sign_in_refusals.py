"""Requests that are not let in leave events, which are counted and hold no secret."""

from __future__ import annotations

import pytest
from sign_in_support import LOCAL

from cumulant.core.errors import EngineUnavailableError
from cumulant.flows.ledger.refusals import record_refusals

X = "/v1/projects/shop/x"
WRONG = "cml_" + "A" * 43


def refusals(server):
    kept = [event for event in server.home.journal().events() if event.kind == "access.refused"]
    return [(event.actor, event.data["reason"], event.data["source"], event.data["count"]) for event in kept]


def test_a_wrong_token_is_an_event_without_the_token(serve):
    server = serve("shop", "other")
    foreign = server.token("other")
    browser = server.browser(client="10.0.0.9")
    browser.get(X, headers={"authorization": f"Bearer {WRONG}"})
    browser.get(X, headers=foreign)
    assert refusals(server) == [("anonymous", "token", "10.0.0.9", 1)] * 2
    browser.get(X, headers={"accept": "text/html"})
    assert len(refusals(server)) == 2, "who is not signed in yet is no refusal"
    content = b"".join(path.read_bytes() for path in server.home.root.rglob("*") if path.is_file())
    assert WRONG.encode() not in content
    assert foreign["authorization"].partition("cml_")[2].encode() not in content


def test_foreign_hosts_and_origins_are_events(serve):
    server = serve()
    browser = server.signed_in()
    assert browser.get("/page", headers={"host": "evil.example"}).status_code == 403
    csrf = browser.get("/page").json()["csrf"]
    for origin in ("https://evil.example", "null"):
        answer = browser.post("/page", headers={"origin": origin}, data={"csrf": csrf})
        assert answer.status_code == 403
    assert browser.post("/page", headers={"origin": LOCAL}, data={"csrf": csrf}).status_code == 200
    address = "127.0.0.1"
    assert refusals(server) == [("anonymous", "origin", address, 1)] + [("user:ada", "origin", address, 1)] * 2


def test_a_flood_is_counted_and_bounded(serve):
    server = serve()
    with record_refusals(server.home, print):
        for number in range(300):
            browser = server.browser(client=f"10.0.{number // 250}.{number % 250}")
            for _ in range(2):
                browser.get(X, headers={"authorization": f"Bearer {WRONG}{number}"})
    events = refusals(server)
    assert sum(count for *_, count in events) == 600
    assert len(events) <= 2 * 256 + 2


@pytest.mark.parametrize("headers", [{"authorization": f"Bearer {WRONG}"}, {"host": "evil.example"}])
def test_it_is_refused_where_the_journal_takes_no_event(serve, monkeypatch, headers):
    server = serve()

    def away(*_, **__):
        raise EngineUnavailableError("the journal does not answer")

    monkeypatch.setattr(server.home.journal(), "transaction", away)
    assert server.browser().get(X, headers=headers).status_code in (401, 403)
