"""Sessions of browsers: one-time links, cookies, forms, redirects, and the end of a session."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import quote

import pytest
from sign_in_support import ADA, LOCAL

from cumulant.flows.identities.sessions import list_sessions, revoke_sessions
from cumulant.flows.identities.sign_in_links import create_link
from cumulant.server.sign_in.cross_site import csrf_token
from cumulant.server.sign_in.local_paths import local_path, login_path

PAGE = {"accept": "text/html"}
OWN = {"origin": LOCAL}
COOKIE = "cumulant-8700"
SECURE = "https://console.example.com"


def test_a_link_signs_a_browser_in_once(serve):
    server = serve()
    browser = server.browser()
    refused = browser.get("/page?x=1", headers=PAGE)
    assert (refused.status_code, refused.headers["location"]) == (303, "/login?next=/page%3Fx%3D1")
    code = create_link(server.home, principal=ADA, clock=server.clock)
    signed_in = browser.get("/login", params={"code": code, "next": "/page?x=1"})
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/page?x=1")
    answer = browser.get("/page", headers=PAGE).json()
    assert (answer["principal"], answer["groups"], answer["scope"]) == ("user:ada", ["team"], None)
    other = server.browser().get("/login", params={"code": code})
    assert other.status_code == 403
    assert "set-cookie" not in other.headers


@pytest.mark.parametrize("asked", ["/page?x=1&kind=a%2Fb", "/device?user_code=ABCD-EFGH&project=shop"])
def test_a_link_leads_to_the_page_that_its_browser_asked_for(serve, asked):
    server = serve()
    browser = server.browser()
    login = browser.get(asked, headers=PAGE).headers["location"]
    assert "cumulant session link" in browser.get(login).text
    signed_in = browser.get("/login", params={"code": create_link(server.home, principal=ADA, clock=server.clock)})
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, asked)
    assert list(browser.cookies) == [COOKIE], "the path is kept for one sign-in"
    browser.get(login)
    browser.get("/login")  # as after signing out
    again = browser.get("/login", params={"code": create_link(server.home, principal=ADA, clock=server.clock)})
    assert again.headers["location"] == "/"


def test_the_cookie_is_of_this_host_alone_and_no_script_reads_it(serve):
    server = serve(sign_in=f"url: {SECURE}")
    code = create_link(server.home, principal=ADA, clock=server.clock)
    cookie = server.browser(SECURE).get("/login", params={"code": code}).headers["set-cookie"]
    name, _, rest = cookie.partition("=")
    assert name == "__Host-cumulant"
    assert {part.strip() for part in rest.split(";")[1:]} == {"HttpOnly", "Path=/", "SameSite=lax", "Secure"}


def test_on_loopback_without_https_the_cookie_has_the_port_in_its_name(serve):
    server = serve()
    code = create_link(server.home, principal=ADA, clock=server.clock)
    cookie = server.browser().get("/login", params={"code": code}).headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert "Secure" not in cookie
    assert "HttpOnly" in cookie


def test_plain_http_from_elsewhere_signs_nobody_in(serve):
    server = serve(local=False)
    code = create_link(server.home, principal=ADA, clock=server.clock)
    refused = server.browser("http://10.0.0.5:8700", client="10.0.0.9").get("/login", params={"code": code})
    assert refused.status_code == 403
    assert "HTTPS" in refused.text
    on_loopback = server.browser().get("/login", params={"code": code})
    assert "takes API tokens alone" in on_loopback.text, "a server that others reach has no links"


def test_looking_at_a_link_does_not_use_it(serve):
    server = serve()
    code = create_link(server.home, principal=ADA, clock=server.clock)
    browser = server.browser()
    assert browser.head("/login", params={"code": code}).status_code == 400
    assert browser.get("/login", params={"code": code}, headers={"sec-purpose": "prefetch"}).status_code == 400
    for headers in ({"sec-purpose": "prefetch"}, {"sec-fetch-site": "cross-site"}):
        assert "set-cookie" not in browser.get("/login", params={"next": "/page"}, headers=headers).headers
    shown = browser.get("/login", params={"next": "/page"}, headers={"sec-fetch-site": "none"})
    assert shown.headers["set-cookie"].startswith("cumulant-next-8700=")
    assert browser.get("/login", params={"code": code}).status_code == 303


def test_an_expired_link(serve):
    server = serve()
    code = create_link(server.home, principal=ADA, clock=server.clock)
    server.clock.sleep(600)
    assert server.browser().get("/login", params={"code": code}).status_code == 403


@pytest.mark.parametrize("code", ["", "x", "é", "\x00", "a" * 10_000, "../..", "%00"])
def test_codes_that_are_none(serve, code):
    assert serve().browser().get("/login", params={"code": code}).status_code == 403


def test_a_session_that_somebody_planted_is_not_taken_over(serve):
    """Fixation: whatever cookie the browser had, the session has a new secret, and the old one is ended."""
    server = serve()
    attacker = server.signed_in()
    planted = attacker.cookies[COOKIE]
    victim = server.browser()
    victim.cookies.set(COOKIE, planted, domain="127.0.0.1")
    code = create_link(server.home, principal=ADA, clock=server.clock)
    answer = victim.get("/login", params={"code": code})
    assert planted not in answer.headers["set-cookie"]
    assert attacker.get("/page").status_code == 401
    unknown = server.browser()
    unknown.cookies.set(COOKIE, "chosen-by-somebody", domain="127.0.0.1")
    assert unknown.get("/page").status_code == 401


def test_a_session_ends_when_unused_and_at_its_longest(serve):
    server = serve(sign_in="idle: 10m, longest: 30m")
    browser = server.signed_in()
    server.clock.sleep(599)
    assert browser.get("/page").status_code == 200
    server.clock.sleep(600)
    assert browser.get("/page").status_code == 401
    browser = server.signed_in()
    for _ in range(3):
        server.clock.sleep(590)
        assert browser.get("/page").status_code == 200
    server.clock.sleep(30)
    assert browser.get("/page").status_code == 401


def test_a_revoked_session_is_refused_at_once(serve):
    server = serve()
    browser = server.signed_in()
    session = browser.get("/page").json()["session"]
    (view,) = list_sessions(server.home, principal=ADA, clock=server.clock)
    assert view.id == session
    revoke_sessions(server.home, session, principal=ADA)
    assert browser.get("/page").status_code == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_an_unsafe_request_needs_our_origin_and_the_token(serve, method):
    browser = serve().signed_in()
    token = {"x-csrf-token": browser.get("/page").json()["csrf"]}

    def status(headers):
        return browser.request(method, "/page", headers=headers).status_code

    assert status(OWN | token) == 200
    assert status({"sec-fetch-site": "same-origin"} | token) == 200
    for headers in (
        OWN,
        token,
        {"origin": "https://evil.example"} | token,
        {"origin": "null"} | token,
        {"origin": "http://127.0.0.1:8701"} | token,
        {"origin": "https://127.0.0.1:8700"} | token,
        {"origin": "http://127.0.0.1:8700.evil.example"} | token,
        {"origin": "http://127.0.0.1:x"} | token,
        {"sec-fetch-site": "cross-site"} | token,
        {"sec-fetch-site": "same-site"} | token,
        {"sec-fetch-site": "none"} | token,
        OWN | {"sec-fetch-site": "cross-site"} | token,
        OWN | {"x-csrf-token": ""},
        OWN | {"x-csrf-token": "0" * 64},
        OWN | {"x-csrf-token": "\xe9"},
    ):
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        assert status(encoded) == 403, headers


def test_the_token_of_another_session_is_refused(serve):
    server = serve()
    one, two = server.signed_in(), server.signed_in()
    token = {"x-csrf-token": one.get("/page").json()["csrf"]}
    assert two.post("/page", headers=OWN | token).status_code == 403
    assert one.post("/page", headers=OWN | token).status_code == 200
    assert csrf_token(one.cookies[COOKIE]) != csrf_token(two.cookies[COOKIE])


def test_the_token_in_a_form_and_the_form_comes_again(serve):
    browser = serve().signed_in()
    token = browser.get("/page").json()["csrf"]
    answer = browser.post("/page", headers=OWN, data={"note": "a b", "csrf": token})
    assert answer.json()["body"] == f"note=a+b&csrf={token}"
    for data in ({"note": "x"}, {"csrf": "x"}):
        assert browser.post("/page", headers=OWN, data=data).status_code == 403
    large = browser.post("/page", headers=OWN, data={"note": "x" * (1 << 20), "csrf": token})
    assert large.status_code == 413
    as_json = browser.post("/page", headers=OWN, json={"csrf": token})
    assert as_json.status_code == 403
    many = "&".join(f"f{number}=" for number in range(2_000))
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert browser.post("/page", headers=OWN | form, content=f"{many}&csrf={token}").status_code == 400


def test_reading_needs_no_token(serve):
    browser = serve().signed_in()
    assert browser.get("/page").status_code == 200
    assert browser.head("/page").status_code == 200


def test_signing_out_ends_the_session(serve):
    server = serve()
    browser = server.signed_in()
    secret, token = browser.cookies[COOKIE], browser.get("/page").json()["csrf"]
    assert browser.post("/logout", headers=OWN).status_code == 403
    assert browser.get("/logout").status_code == 405
    answer = browser.post("/logout", headers=OWN, data={"csrf": token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert "cumulant-8700" not in browser.cookies
    stolen = server.browser()
    stolen.cookies.set(COOKIE, secret, domain="127.0.0.1")
    assert stolen.get("/page").status_code == 401


HOSTILE = [
    "https://evil.example",
    "//evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "javascript:alert(1)",
    " /page",
    "/a b",
    "/page\r\nset-cookie: x=y",
    "/é",
    "/a//evil.example",
    "evil.example",
    "",
    "/login?next=/login",
    "/logout",
    "/" + "a" * 3_000,
    "http:/evil.example",
    "///evil.example",
    "/page\x00",
    "%2F%2Fevil.example",
    "/%2Fevil.example",
    "/%5cevil.example",
    "https:%2F%2Fevil.example",
    "https:evil.example",
]


@pytest.mark.parametrize("target", HOSTILE)
def test_no_sign_in_leads_to_another_site(serve, target):
    assert local_path(target) == "/"
    server = serve()
    code = create_link(server.home, principal=ADA, clock=server.clock)
    answer = server.browser().get("/login", params={"code": code, "next": target})
    assert answer.headers["location"] == "/"
    assert [cookie.partition("=")[0] for cookie in answer.headers.get_list("set-cookie")] == [COOKIE]
    browser = server.browser()
    assert "set-cookie" not in browser.get("/login", params={"next": target}).headers
    browser.cookies.set("cumulant-next-8700", quote(target, safe=""), domain="127.0.0.1")
    answer = browser.get("/login", params={"code": create_link(server.home, principal=ADA, clock=server.clock)})
    assert answer.headers["location"] == "/"


def test_paths_of_this_server_are_kept():
    for target in ("/", "/projects/shop/releases?after=3&kind=a%2Fb", "/a?next=https://x.example//y"):
        assert local_path(target) == target
    assert login_path("/a?b=c&d=e") == "/login?next=/a%3Fb%3Dc%26d%3De"
    assert login_path("//evil.example") == "/login"


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({}, "/page"),
        ({"accept": "application/json"}, "/page"),
        (PAGE, "/v1/projects"),
        ({"accept": "text/event-stream"}, "/page"),
        (PAGE | {"authorization": "Bearer cml_x"}, "/page"),
    ],
)
def test_programs_get_a_problem_document(serve, headers, path):
    answer = serve().browser().get(path, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["code"] == "credentials"


def test_a_part_of_a_page_leads_the_whole_page_to_the_sign_in(serve):
    answer = serve().browser().get("/page", headers=PAGE | {"hx-request": "true"})
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/login")
    shown = {"hx-request": "true", "hx-current-url": f"{LOCAL}/page?a=b"}
    assert serve().browser().get("/part", headers=PAGE | shown).headers["hx-redirect"] == "/login?next=/page%3Fa%3Db"
    hostile = shown | {"hx-current-url": "https://evil.example//evil.example"}
    assert serve().browser().get("/part", headers=PAGE | hostile).headers["hx-redirect"] == "/login"
    assert serve().browser().post("/page", headers=PAGE).status_code == 401


def test_pages_of_the_sign_in_run_no_scripts_and_are_not_kept(serve):
    answer = serve().browser().get("/login", headers=PAGE)
    assert "cumulant session link --url http://127.0.0.1:8700" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "same-origin"


def test_a_browser_is_refused_by_a_page_and_a_program_by_a_document(serve):
    browser = serve().signed_in()
    for request in (
        {"headers": PAGE | {"host": "evil.example"}},
        {"method": "POST", "headers": PAGE | {"origin": "https://evil.example"}},
    ):
        answer = browser.request(**{"method": "GET", "url": "/page"} | request)
        assert (answer.status_code, answer.headers["content-type"]) == (403, "text/html; charset=utf-8")
        assert "console.css" in answer.text
    for headers in ({}, PAGE | {"hx-request": "true"}):
        answer = browser.get("/page", headers=headers | {"host": "evil.example"})
        assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
    answer = browser.get("/v1", headers=PAGE | {"host": "evil.example"})
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8700", "127.0.0.1.evil.example", "10.0.0.5"])
def test_a_name_that_was_made_to_lead_here_is_refused(serve, host):
    browser = serve().signed_in()
    assert browser.get("/page", headers={"host": host}).status_code == 403
    assert browser.get("/login", headers={"host": host}).status_code == 403
    assert serve(hosts=("10.0.0.5",)).browser().get("/login", headers={"host": host}).status_code == (
        200 if host == "10.0.0.5" else 403
    )


def test_the_journal_is_away(serve, monkeypatch):
    from cumulant.core.errors import EngineUnavailableError

    server = serve()
    browser = server.signed_in()

    def away(*_arguments):
        raise EngineUnavailableError("the journal does not answer")

    monkeypatch.setattr(server.home.journal(), "get", away)
    answer = browser.get("/page")
    assert (answer.status_code, answer.json()["code"]) == (503, "engine-unavailable")


def test_what_a_session_is_has_no_secret_in_it(serve):
    server = serve()
    browser = server.signed_in()
    answer = browser.get("/page")
    assert browser.cookies[COOKIE] not in answer.text
    assert timedelta(hours=12) == server.home.sign_in.limits.longest


def test_an_error_of_the_journal_shows_no_secret(serve, monkeypatch):
    from cumulant.core.errors import EngineUnavailableError

    monkeypatch.setenv("DB", "pa55-word-of-the-journal")
    server = serve()
    browser = server.signed_in()
    password = server.home.vault.reveal("${secret:DB}")

    def away(*_arguments):
        raise EngineUnavailableError(f"postgresql://cumulant:{password}@db does not answer")

    monkeypatch.setattr(server.home.journal(), "get", away)
    answer = browser.get("/page", headers=PAGE)
    assert answer.status_code == 503
    assert "does not answer" in answer.text
    assert password not in answer.text
