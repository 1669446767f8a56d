"""The sign-in of a command line: a code that its user confirms in a browser."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from sign_in_support import ADA, LOCAL

from cumulant.core.errors import RefusedError, StorageError
from cumulant.core.system.saved_tokens import save_token, saved_token
from cumulant.flows.identities.sign_in_links import create_link
from cumulant.testing.access import GrantedAccess

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
OWN = {"origin": LOCAL}


def begin(server, client="10.0.0.5", **form):
    answer = server.browser(client=client).post("/v1/sign-in/device", data=form or {"project": "shop"})
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


def collect(server, code, **changes):
    form = {"grant_type": GRANT, "device_code": code} | changes
    return server.browser().post("/v1/sign-in/device/token", data=form)


def confirm(browser, codes, **changes):
    csrf = browser.get("/page").json()["csrf"]
    form = {"csrf": csrf, "user_code": codes["user_code"], "project": "shop"} | changes
    return browser.post("/device", headers=OWN, data=form)


def test_a_command_line_acts_as_who_confirmed_it(serve):
    server = serve()
    codes = begin(server)
    assert re.fullmatch(r"[B-Z]{4}-[B-Z]{4}", codes["user_code"])
    assert codes["verification_uri_complete"] == f"{LOCAL}/device?user_code={codes['user_code']}&project=shop"
    assert collect(server, codes["device_code"]).json() == {"error": "authorization_pending"}
    browser = server.signed_in()
    page = browser.get("/device", params={"user_code": codes["user_code"].lower().replace("-", " ")}).text
    assert "A command line at 10.0.0.5 asks to act as user:ada" in page
    assert codes["user_code"] in page
    assert confirm(browser, codes).status_code == 200
    answer = collect(server, codes["device_code"]).json()
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 12 * 3600)
    headers = {"authorization": f"Bearer {answer['access_token']}"}
    who = server.browser().get("/v1/projects/shop/x", headers=headers).json()
    assert (who["principal"], who["groups"]) == ("user:ada", ["team"])
    assert collect(server, codes["device_code"]).json() == {"error": "expired_token"}, "once"
    event = list(server.home.journal().events())[-1]
    assert (event.kind, event.actor) == ("identities.token_created", "user:ada")
    assert event.reason == "sign-in of a command line at 10.0.0.5"


def test_a_command_line_has_the_token_that_its_user_confirmed(serve, monkeypatch):
    server = serve()
    form = {"project": "shop", "token_name": "nightly", "scope": "runs.* model.show", "expires": "30d"}
    codes = begin(server, **form)
    assert codes["verification_uri"] == f"{LOCAL}/device?project=shop"
    assert codes["user_code"] not in codes.get("verification_uri_complete", "")
    browser = server.signed_in()
    page = browser.get("/device", params={"user_code": codes["user_code"], "project": "shop"})
    assert page.text == browser.get(codes["verification_uri"]).text, "a link does not carry the code of a token"
    page = confirm(browser, codes, typed="1").text
    assert "an API token &quot;nightly&quot; of user:ada, for 30 days, in the project shop" in page
    assert "It may then change something, by 1 action: runs.cancel." in page
    assert "It may then also look, by 2 actions: model.show, runs.show." in page
    assert collect(server, codes["device_code"]).json() == {"error": "authorization_pending"}, "it was only shown"
    assert "has the token nightly" in confirm(browser, codes).text
    answer = collect(server, codes["device_code"]).json()
    assert (answer["expires_in"], answer["token"]["name"], answer["token"]["owner"]) == (
        30 * 86_400,
        "nightly",
        "user:ada",
    )
    assert "model.show" in answer["token"]["scope"]
    assert "model.train" not in answer["token"]["scope"]
    event = list(server.home.journal().events())[-1]
    assert (event.kind, event.actor, event.data["name"]) == ("identities.token_created", "user:ada", "nightly")
    many = " ".join(f"*{'.' * number}" for number in range(100))
    scopes = ({"scope": scope} for scope in ("no.such", "*[!(only_reading)]*", "*" * 65, many))
    for wrong in (*scopes, {"token_name": "<b>"}, {"expires": "9999d"}, {"service": "ci", "scope": ""}):
        assert begin(server, **form | wrong) == {"error": "invalid_scope"}
    assert begin(server, **form | {"expires": "soon"}) == {"error": "invalid_request"}
    refused = begin(server, **form)
    monkeypatch.setattr(server.home, "access", lambda: GrantedAccess({("user:ada", "identities.token_create")}))
    assert confirm(browser, refused).status_code == 403, "within what its user may do"
    assert collect(server, refused["device_code"]).json() == {"error": "authorization_pending"}


def test_the_code_that_users_see_gets_no_token(serve):
    server = serve()
    codes = begin(server)
    confirm(server.signed_in(), codes)
    for text in (codes["user_code"], "", "x", codes["device_code"][:-1]):
        assert collect(server, text).json() == {"error": "expired_token"}
    assert collect(server, codes["device_code"], grant_type="x").json() == {"error": "unsupported_grant_type"}
    assert collect(server, codes["device_code"], project="other").json() == {"error": "invalid_target"}


def test_nobody_confirms_without_a_session_its_page_and_the_right(serve, monkeypatch):
    server = serve()
    codes = begin(server)
    form = {"user_code": codes["user_code"], "project": "shop"}
    assert server.browser().post("/device", data=form, headers=OWN).status_code == 401
    browser = server.signed_in()
    assert browser.post("/device", data=form, headers=OWN).status_code == 403, "no token of the page"
    csrf = browser.get("/page").json()["csrf"]
    evil = {"origin": "https://evil.example"}
    assert browser.post("/device", data=form | {"csrf": csrf}, headers=evil).status_code == 403
    assert browser.post("/device", data=form, headers=server.token()).status_code == 403, "a token makes no tokens"
    monkeypatch.setattr(server.home, "access", GrantedAccess)
    assert confirm(browser, codes).status_code == 403
    assert collect(server, codes["device_code"]).json() == {"error": "authorization_pending"}


def test_codes_expire_and_are_confirmed_once(serve):
    server = serve()
    browser, codes = server.signed_in(), begin(server)
    assert confirm(browser, codes, user_code="BBBB-BBBB").status_code == 404
    assert confirm(browser, codes, user_code="").status_code == 404
    assert confirm(browser, codes).status_code == 200
    assert confirm(browser, codes).status_code == 404
    server.clock.sleep(600)
    assert collect(server, codes["device_code"]).json() == {"error": "expired_token"}
    late = begin(server)
    server.clock.sleep(600)
    assert confirm(browser, late).status_code == 404
    begin(server)
    assert len(server.home.journal().rows("device_login")) == 1, "what expired is removed"


def test_only_so_many_wait(serve, monkeypatch):
    monkeypatch.setattr("cumulant.flows.identities.device_logins._MOST_WAITING", 3)
    server = serve()
    for _ in range(3):
        begin(server)
    assert begin(server) == {"error": "temporarily_unavailable"}
    assert begin(server, token_name="x", scope="no.such") == {"error": "temporarily_unavailable"}, "before it is read"
    server.clock.sleep(600)
    begin(server, token_name="x", scope="*.show model.show " * 3)
    (row,) = server.home.journal().rows("device_login")
    assert row.value["request"]["scope"].count("model.show") == 1
    assert "*.show" not in row.value["request"]["scope"], "what its user is shown is what the token gets"


def test_one_address_does_not_take_the_place_of_others(serve):
    server = serve()
    for number in range(25):
        last = begin(server, client=f"2001:db8::{number:x}")
    assert last == {"error": "temporarily_unavailable"}
    for client in ("2001:db8:0:1::1", "10.0.0.5", "10.0.0.6"):
        assert "device_code" in begin(server, client=client)
    server.clock.sleep(600)
    assert "device_code" in begin(server, client="2001:db8::1")


@pytest.mark.parametrize("code", ["<script>alert(1)</script>", '"><b>', "BBBB-BBBB", "x" * 5_000])
def test_what_is_in_the_address_is_text(serve, code):
    answer = serve().signed_in().get("/device", params={"user_code": code, "project": "shop"})
    assert answer.status_code == 404
    assert "<script>" not in answer.text
    assert "<b>" not in answer.text


def test_tokens_are_saved_for_their_user_alone(tmp_path):
    variables = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert saved_token("https://c.example.com", variables) == ""
    path = save_token("https://C.example.com/", "cml_a", variables)
    save_token("https://d.example.com", "cml_b", variables)
    assert path.stat().st_mode & 0o777 == 0o600
    assert saved_token("https://c.example.com", variables) == "cml_a"
    save_token("https://c.example.com", "", variables)
    assert saved_token("https://c.example.com", variables) == ""
    assert saved_token("https://d.example.com", variables) == "cml_b"
    path.chmod(0o644)
    with pytest.raises(RefusedError, match="other users can read"):
        saved_token("https://d.example.com", variables)
    path.chmod(0o600)
    path.write_text("[]")
    with pytest.raises(StorageError, match="cannot be read"):
        saved_token("https://d.example.com", variables)


@contextmanager
def listening(application):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(application, log_config=None, proxy_headers=False, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


def confirmed(browser, url, *words):
    """The document of a command line whose code is confirmed in the browser."""
    line = [sys.executable, "-m", "cumulant.cli", *words, "--server", url, "--json"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        shown = process.stderr.readline()
        address = re.search(r"http://\S+", shown)
        assert address is not None, shown
        page = browser.get(address[0])
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text))
        if "typed" in fields:
            typed = fields | {"user_code": shown.split()[-2]}
            page = browser.post("/device", headers={"origin": url}, data=typed)
            fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text))
        assert fields["user_code"] in shown
        assert browser.post("/device", headers={"origin": url}, data=fields).status_code == 200
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out


def test_the_command_signs_in(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    server = serve()
    with listening(server.application) as url, httpx.Client(base_url=url) as browser:
        browser.get("/login", params={"code": create_link(server.home, principal=ADA, clock=server.clock)})
        out = confirmed(browser, url, "login")
        token = saved_token(url, {"XDG_CONFIG_HOME": str(tmp_path / "config")})
        assert token.startswith("cml_")
        assert token not in out
        new = json.loads(confirmed(browser, url, "token", "create", "laptop", "--scope", "runs.show"))
        assert (new["token"]["name"], new["token"]["scope"]) == ("laptop", ["runs.show"])
        for secret in (token, new["secret"]):
            headers = {"authorization": f"Bearer {secret}"}
            assert httpx.get(f"{url}/v1", headers=headers).json()["principal"] == "user:ada"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://cumulant.example.com", "within this machine alone"),
        ("cumulant.example.com", "begins with https://"),
        ("https://u:p@c.example.com", "no user"),
    ],
)
def test_a_token_is_not_sent_where_others_can_read_it(address, reason):
    line = [sys.executable, "-m", "cumulant.cli", "login", "--server", address]
    ended = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert reason in ended.stderr
