"""API tokens at a server: what they are good for, and what is refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sign_in_support import ADA, LOCAL

from cumulant.core.errors import UsageError
from cumulant.core.events import Actor
from cumulant.flows.identities.records import TOKENS
from cumulant.flows.identities.tokens import list_tokens, revoke_token
from cumulant.server.sign_in.identities import Identities

X = "/v1/projects/shop/x"


def test_a_program_calls_with_its_token_and_needs_no_csrf_token(serve):
    server = serve()
    headers = server.token(scope=["runs.*"])
    answer = server.browser().post(X, headers=headers).json()
    assert (answer["principal"], answer["scope"], answer["csrf"]) == ("user:ada", ["runs.cancel", "runs.show"], "")
    assert (answer["project"], answer["session"]) == ("shop", "")


def test_expired_and_revoked_tokens_are_refused(serve):
    server = serve()
    headers = server.token(expires=timedelta(hours=1))
    browser = server.browser()
    assert browser.get(X, headers=headers).status_code == 200
    server.clock.sleep(3_600)
    assert browser.get(X, headers=headers).status_code == 401
    headers = server.token()
    newest = list_tokens(server.home, principal=ADA, clock=server.clock)[0]
    assert browser.get(X, headers=headers).status_code == 200
    revoke_token(server.home, newest.id, principal=ADA)
    assert browser.get(X, headers=headers).status_code == 401


def test_the_answers_to_unknown_and_to_known_ids_are_equal(serve):
    """Nobody finds out which tokens there are."""
    server = serve()
    secret = server.token()["authorization"].removeprefix("Bearer ")
    (view,) = list_tokens(server.home, principal=ADA, clock=server.clock)
    answers = {
        server.browser().get(X, headers={"authorization": f"Bearer {text}"}).content
        for text in (view.id, f"cml_{view.id}", "cml_" + "A" * 43, secret[:-1], "", secret + " x")
    }
    assert len(answers) == 1
    assert b'"status":401' in next(iter(answers))


def test_a_known_token_takes_no_thread_and_ends_at_once(serve, monkeypatch):
    server = serve()
    headers, browser = server.token(scope=["runs.*"]), server.browser()
    threads, before = [], Identities.by_token

    def by_token(identities, authorization, path):
        threads.append(path)
        return before(identities, authorization, path)

    monkeypatch.setattr(Identities, "by_token", by_token)
    first, then = (browser.get(X, headers=headers).json() for _ in range(2))
    assert (first, threads) == (then, [X]), "its use was recorded by the first request"
    (row,) = server.home.journal().rows(TOKENS)
    with server.home.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.put(TOKENS, row.key, row.value | {"groups": ["other"], "scope": ["data.show"]})
    changed = browser.get(X, headers=headers).json()
    assert (changed["groups"], changed["scope"], threads) == (["other"], ["data.show"], [X])
    server.clock.sleep(3_601)
    assert browser.get(X, headers=headers).status_code == 200
    assert threads == [X, X], "a use of another hour is recorded"
    revoke_token(server.home, list_tokens(server.home, principal=ADA)[0].id, principal=ADA)
    assert browser.get(X, headers=headers).status_code == 401


@pytest.mark.parametrize("form", ["{}", "Basic {}", "bearer", "Bearer", "Bearer  ", "Token {}", "Bearer x{}"])
def test_headers_that_carry_no_token(serve, form):
    server = serve()
    secret = server.token()["authorization"].removeprefix("Bearer ")
    assert server.browser().get(X, headers={"authorization": form.format(secret)}).status_code == 401
    assert server.browser().get(X, headers={"authorization": f"bearer {secret}"}).status_code == 200


def test_a_wrong_token_is_not_made_up_for_by_a_cookie(serve):
    browser = serve().signed_in()
    assert browser.get("/page").status_code == 200
    assert browser.get("/page", headers={"authorization": "Bearer cml_x"}).status_code == 401


def test_two_tokens_in_one_request_are_none(serve):
    server = serve()
    good = server.token()["authorization"]
    headers = [("authorization", good), ("authorization", good)]
    assert server.browser().get(X, headers=headers).status_code == 401


def test_a_token_in_the_query_or_as_a_cookie_is_none(serve):
    server = serve()
    secret = server.token()["authorization"].removeprefix("Bearer ")
    browser = server.browser()
    assert browser.get(f"{X}?access_token={secret}&token={secret}").status_code == 401
    browser.cookies.set("cumulant-8700", secret, domain="127.0.0.1")
    assert browser.get(X).status_code == 401


def test_the_secret_of_a_session_is_no_token(serve):
    browser = serve().signed_in()
    secret = browser.cookies["cumulant-8700"]
    browser.cookies.clear()
    for text in (secret, f"cml_{secret}"):
        assert browser.get("/page", headers={"authorization": f"Bearer {text}"}).status_code == 401


def test_a_token_is_of_one_project(serve):
    server = serve("shop", "other")
    browser, headers = server.browser(), server.token("other")
    assert browser.get("/v1/projects/other/x", headers=headers).json()["project"] == "other"
    assert browser.get("/projects/other/x", headers=headers).status_code == 200
    assert browser.get("/v1", headers=headers).status_code == 200
    assert browser.get(X, headers=headers).status_code == 401
    assert browser.get("/projects/shop/x", headers=headers).status_code == 401
    assert browser.get("/", headers=headers).status_code == 401, "a page of all projects needs a session"
    for path in ("/v1/projects/none/x", "/v1/projects/other%2F..%2Fshop/x", "/v1/projects/other/../shop/x"):
        assert browser.get(path, headers=headers).status_code in (401, 404), path


def test_a_token_of_another_project_is_refused_alike_whether_or_not_the_project_exists(serve):
    server = serve("shop", "other")
    browser, headers = server.browser(), server.token("other")
    own, none = (browser.get(f"/v1/projects/{name}/x", headers=headers) for name in ("shop", "none"))
    assert (own.status_code, own.json()["detail"]) == (401, "this token is not of this project")
    assert own.content == none.content
    unknown = browser.get(X, headers={"authorization": "Bearer cml_" + "A" * 43})
    assert unknown.json()["detail"] == "the token of this request is not valid here"
    assert browser.get(X).json()["detail"] == "this request has no valid token or session"
    assert list_tokens(server.projects["other"], principal=ADA, clock=server.clock)[0].used is None, "it was refused"
    assert browser.get("/", headers=headers).json()["detail"] == "the token of this request is not valid here"


def test_a_token_whose_user_has_to_sign_in_again_is_refused_with_that_reason(serve):
    server = serve("shop", "other", sign_in="url: https://c.example.com, issuer: https://i.example.com, client_id: c")
    browser, headers = server.browser(), server.token()
    assert browser.get(X, headers=headers).status_code == 200
    server.clock.sleep(6.9 * 86_400)
    assert browser.get(X, headers=headers).status_code == 200
    server.clock.sleep(0.2 * 86_400)
    answer = browser.get(X, headers=headers)
    assert (answer.status_code, answer.json()["detail"].partition(":")[0]) == (401, "sign in again")
    assert "cumulant login" in answer.json()["hint"]
    of_other = browser.get("/v1/projects/other/x", headers=headers).json()
    assert of_other["detail"] == "this token is not of this project"


def test_a_session_is_good_for_all_projects(serve):
    browser = serve("shop", "other").signed_in()
    for path in (X, "/v1/projects/other/x", "/"):
        assert browser.get(path).json()["project"] == ""


def test_open_paths_have_no_principal(serve):
    server = serve()
    for path in ("/static/x", "/v1/openapi.json", "/v1/health/live"):
        assert server.browser().get(path).status_code == 404, "let in, and not here"
    for path in ("/static", "/staticx", "/v1/openapi.json/x", "/V1/openapi.json", "/v1/health/live/"):
        assert server.browser().get(path).status_code == 401, path
    assert server.browser().post("/login").status_code == 401
    assert server.browser().get("/v1/health/live", headers={"host": "10.0.0.7"}).status_code == 404


def test_a_websocket_is_closed(serve):
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(serve().application({"type": "websocket", "path": "/page", "headers": []}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


PROXY = "proxies: [10.0.0.0/24, 'fd00::/8']"
FORWARDED = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https", "x-forwarded-host": "console.example.com"}


def seen(server, client, headers):
    answer = server.browser(LOCAL, client=client).get("/page", headers=headers | server.token())
    assert answer.status_code == 200
    return answer.json()["client"], answer.json()["url"]


def test_a_declared_proxy_says_who_calls(serve):
    server = serve(sign_in=PROXY, local=False)
    expected = ("203.0.113.9", "https://console.example.com/page")
    assert seen(server, "10.0.0.7", FORWARDED) == expected
    assert seen(server, "fd00::7", FORWARDED) == expected
    assert seen(server, "::ffff:10.0.0.7", FORWARDED) == expected


@pytest.mark.parametrize("client", ["10.0.1.7", "127.0.0.1", "unix", "::1"])
def test_nobody_else_does(serve, client):
    server = serve(sign_in=PROXY, local=False)
    assert seen(server, client, FORWARDED) == (client, f"{LOCAL}/page")
    assert seen(serve(local=False), client, FORWARDED) == (client, f"{LOCAL}/page")


def test_what_a_caller_writes_before_the_proxy_does_not_count(serve):
    server = serve(sign_in=PROXY, local=False)
    chain = "127.0.0.1, 10.0.0.9, 203.0.113.9, 10.0.0.8"
    assert seen(server, "10.0.0.7", {"x-forwarded-for": chain})[0] == "203.0.113.9"
    assert seen(server, "10.0.0.7", {"x-forwarded-for": "203.0.113.9, <b>"})[0] == "10.0.0.7"
    assert seen(server, "10.0.0.7", {"x-forwarded-for": "10.0.0.9"})[0] == "10.0.0.7"
    assert seen(server, "10.0.0.7", {"x-forwarded-proto": "javascript"})[1] == f"{LOCAL}/page"
    assert seen(server, "10.0.0.7", {"x-forwarded-proto": "https, http"})[1] == f"{LOCAL}/page"


def test_a_forwarded_host_is_checked_as_one_of_ours(serve):
    server = serve(sign_in=f"url: https://console.example.com, {PROXY}", local=False)
    token = server.token()
    browser = server.browser(LOCAL, client="10.0.0.7")
    assert browser.get("/page", headers=FORWARDED | token).status_code == 200
    evil = FORWARDED | {"x-forwarded-host": "evil.example"}
    assert browser.get("/page", headers=evil | token).status_code == 403


def test_loopback_is_not_what_a_header_says(serve):
    """Cookies without HTTPS are for callers on this machine, not for those who write that they are."""
    server = serve(local=False)
    browser = server.browser("http://10.0.0.5:8700", client="10.0.0.9")
    assert browser.get("/login", headers={"x-forwarded-for": "127.0.0.1"}).status_code == 403


def test_a_trusted_issuer_whose_scope_names_no_action_is_no_server(serve):
    trusted = "{issuer: https://ci.example.com, audience: a, subject: b, service: ci, scope: [run.show]}"
    with pytest.raises(UsageError, match=r'"run\.show" is no action'):
        serve(sign_in=f"trusted: [{trusted}]")
