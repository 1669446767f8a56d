"""Sign-in by another real OpenID provider, mock-oauth2-server of Java: it has its own login page and checks PKCE."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sign_in_server import Server, events, grow_older, sessions, with_query

from cumulant.testing.servers.programs import find_program, free_port

pytestmark = [pytest.mark.live]

INSTALL = "tools/engines.sh, with Maven and Java 17"
#: of the token of a job of a CI, by the client that asks for it
JOB = {"sub": "repo:acme/shop:ref:refs/heads/main", "aud": ["cumulant-ci"], "repository": "acme/shop"}
MAPPING = {"requestParam": "client_id", "match": "ci", "claims": JOB}
TRUSTED = (
    ", trusted: [{issuer: '%s', audience: cumulant-ci, subject: 'repo:acme/shop:ref:*', claims: {repository: acme/shop},"
    " service: ci, scope: [runs.show], expires: 10m}]"
)
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    program = find_program("mock-oauth2-server")
    if program is None:
        pytest.skip(f"mock-oauth2-server is not installed: {INSTALL}")
    port = free_port()
    config = {"interactiveLogin": True, "tokenCallbacks": [{"issuerId": "acme", "requestMappings": [MAPPING]}]}
    place = {"SERVER_HOSTNAME": "127.0.0.1", "SERVER_PORT": str(port), "JSON_CONFIG": json.dumps(config)}
    with subprocess.Popen([program], stdout=subprocess.DEVNULL, env=os.environ | place) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/isalive", process)
            yield f"http://127.0.0.1:{port}/acme"
        finally:
            process.kill()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail("mock-oauth2-server does not answer")


@pytest.fixture
def server(tmp_path: Path, issuer: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OIDC", "s3cret/with:signs")
    started = Server(tmp_path / "shop", issuer, TRUSTED % issuer)
    yield started
    started.close()


def sent_back(browser: httpx.Client, path: str, user: str = "ada", groups: tuple[str, ...] = ()) -> str:
    """Where the provider sends a user back to, who fills in its form; `path`: where the sign-in begins."""
    form = {"username": user, "claims": json.dumps({"groups": groups})}
    answered = httpx.post(browser.get(path).headers["location"], data=form)
    assert answered.status_code == 302, answered.text
    return str(answered.headers["location"])


def test_users_sign_in_are_checked_again_and_sign_out(server: Server, issuer: str) -> None:
    with server.browser() as browser:
        back = browser.get(sent_back(browser, "/login/start?next=/page", groups=("ml", "ops")))
        assert (back.status_code, back.headers["location"]) == (303, "/page")
        before = browser.get("/page").json()
        assert (before["id"], before["groups"], before["tenant"]) == ("user:ada", ["ml", "ops"], "acme")
        grow_older(server, 2)
        due = browser.get("/page")
        assert due.headers["location"] == "/login/start?next=/page"
        assert browser.get(sent_back(browser, due.headers["location"], groups=("ml",))).status_code == 303
        after = browser.get("/page").json()
        assert (after["id"], after["groups"]) == ("user:ada", ["ml"])
        assert len(sessions(server)) == 1
        out = browser.post("/logout", headers={"origin": server.url}, data={"csrf": after["csrf"]})
        onward = out.headers["refresh"].removeprefix("0; url=")
        assert onward.startswith(f"{issuer}/endsession?client_id=cumulant&")
        assert httpx.get(onward).headers["location"] == f"{server.url}/login"
        assert browser.get("/page").status_code == 303


def test_a_code_of_another_sign_in_is_refused_by_the_provider(server: Server) -> None:
    """The provider compares our verifier with the challenge of the code's own sign-in."""
    with server.browser() as browser, server.browser() as attacker:
        stolen = httpx.URL(sent_back(browser, "/login/start", user="ada")).params["code"]
        own = sent_back(attacker, "/login/start", user="eve")
        assert attacker.get(with_query(own, code=stolen)).status_code == 403
        assert attacker.get("/page").status_code == 303
    assert events(server) == []


def test_a_job_exchanges_a_token_of_the_provider(server: Server, issuer: str) -> None:
    def token(client: str) -> str:
        form = {"grant_type": "client_credentials", "client_id": client, "client_secret": "x", "scope": "openid"}
        return str(httpx.post(f"{issuer}/token", data=form).json()["access_token"])

    def exchange(subject: str) -> httpx.Response:
        return httpx.post(f"{server.url}/v1/sign-in/token", data={"grant_type": GRANT, "subject_token": subject})

    answered = exchange(token("ci")).json()
    headers = {"authorization": f"Bearer {answered['access_token']}"}
    assert httpx.get(f"{server.url}/page", headers=headers).json()["id"] == "service:ci"
    assert exchange(token("another")).json() == {"error": "invalid_grant"}
