"""Sign-in by a real OpenID provider, at a real server: the way there and back, and what must not work."""

from __future__ import annotations

import hmac
import json
import socket
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from openid_provider import OpenIdProvider, openid_provider
from sign_in_server import Server, events, grow_older, sessions, with_query

from cumulant.core.errors import EngineUnavailableError
from cumulant.flows.identities.tokens import create_token
from cumulant.ports.access import Principal
from cumulant.project.file.sign_in_spec import SignInSpec
from cumulant.project.sign_in_section import Provider
from cumulant.server.sign_in.issuer import Issuer, TokenRefusedError
from cumulant.server.sign_in.provider_login import LIFE, ProviderLogin

pytestmark = [pytest.mark.live]


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIdProvider]:
    with openid_provider() as started:
        yield started


@pytest.fixture
def server(tmp_path: Path, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OIDC", "s3cret/with:signs")
    provider.set()
    started = Server(tmp_path / "shop", provider.issuer)
    yield started
    started.close()


def test_a_user_signs_in_by_the_provider_and_out_again(server: Server, provider: OpenIdProvider) -> None:
    provider.set(claims={"groups": ["ml", "ops"]})
    with server.browser() as browser:
        page = browser.get("/page?a=b")
        assert (page.status_code, page.headers["location"]) == (303, "/login?next=/page%3Fa%3Db")
        assert "/login/start?next=%2Fpage%3Fa%3Db" in browser.get(page.headers["location"]).text
        back = browser.get(server.answer_of_provider(browser))
        assert (back.status_code, back.headers["location"]) == (303, "/page?a=b")
        who_am_i = browser.get("/page").json()
        assert (who_am_i["id"], who_am_i["groups"]) == ("user:johndoe", ["ml", "ops"])
        assert who_am_i["tenant"] == "acme", "that of the environment"
        out = browser.post("/logout", headers={"origin": server.url}, data={"csrf": who_am_i["csrf"]})
        assert out.status_code == 200
        onward = out.headers["refresh"].removeprefix("0; url=")
        assert onward.startswith(f"{provider.issuer}/endsession?client_id=cumulant&")
        at_provider = httpx.get(onward)
        assert at_provider.headers["location"] == f"{server.url}/login"
        assert browser.get("/page").status_code == 303
    assert events(server) == ["identities.session_opened", "identities.session_ended"]


def test_the_request_to_the_provider(server: Server) -> None:
    with server.browser() as browser:
        started = browser.get("/login/start")
    query = {name: values[0] for name, values in parse_qs(urlsplit(started.headers["location"]).query).items()}
    assert (query["response_type"], query["client_id"]) == ("code", "cumulant")
    assert (query["scope"], query["code_challenge_method"]) == ("openid profile", "S256")
    assert query["redirect_uri"] == f"{server.url}/login/callback"
    assert len({query["state"], query["nonce"], query["code_challenge"]}) == 3
    assert "HttpOnly" in started.headers["set-cookie"]


def test_a_response_is_used_once(server: Server) -> None:
    with server.browser() as browser:
        address = server.answer_of_provider(browser)
        cookies = dict(browser.cookies)
        assert browser.get(address).status_code == 303
        assert browser.get(address).status_code == 403, "the cookie is gone"
        with server.browser() as copy:
            copy.cookies.update(cookies)
            assert copy.get(address).status_code == 403
    assert events(server).count("identities.session_opened") == 1


def test_a_state_is_used_once_even_with_a_new_code(server: Server) -> None:
    """The provider gives another code for the same request: the state is known all the same."""
    with server.browser() as browser:
        request = browser.get("/login/start").headers["location"]
        cookies = dict(browser.cookies)
        first, second = (str(httpx.get(request).headers["location"]) for _ in range(2))
        assert browser.get(first).status_code == 303
    with server.browser() as again:
        again.cookies.update(cookies)
        assert again.get(second).status_code == 403
    assert events(server).count("identities.session_opened") == 1


def test_a_response_is_of_the_browser_that_began(server: Server) -> None:
    """Login CSRF: an attacker's response signs no victim in as the attacker."""
    with server.browser() as attacker, server.browser() as victim:
        address = server.answer_of_provider(attacker)
        assert victim.get(address).status_code == 403
        victim.get("/login/start")
        assert victim.get(address).status_code == 403
        assert victim.get("/page").status_code == 303
    assert events(server) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "x"},
        {"state": None},
        {"state": "é"},
        {"code": None},
        {"code": "x"},
        {"code": None, "error": "access_denied", "error_description": "<script>alert(1)</script>"},
        {"iss": "https://evil.example"},
    ],
)
def test_responses_that_are_none(server: Server, changes: dict[str, str | None]) -> None:
    with server.browser() as browser:
        refused = browser.get(with_query(server.answer_of_provider(browser), **changes))
        assert refused.status_code == 403
        assert "<script>" not in refused.text
        assert browser.get("/page").status_code == 303
    assert events(server) == []


@pytest.mark.parametrize("change", [lambda text: text[:-1], lambda text: "x" + text, lambda text: text[::-1], str])
def test_a_cookie_that_was_changed(server: Server, change: Any) -> None:
    with server.browser() as browser:
        address = server.answer_of_provider(browser)
        ((name, value),) = browser.cookies.items()
        browser.cookies.clear()
        browser.cookies.set(name, change(value), domain="127.0.0.1")
        assert browser.get(address).status_code == (303 if change is str else 403)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another"},
        {"aud": ["cumulant", "another"]},
        {"aud": ["cumulant", "another"], "azp": "another"},
        {"azp": "another"},
        {"aud": []},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"nonce": "x"},
        {"nonce": None},
        {"exp": 1},
        {"exp": "never"},
        {"iat": 99_999_999_999},
        {"nbf": 99_999_999_999},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\nb"},
        {"sub": " a"},
        {"sub": "x" * 300},
        {"groups": {"ml": True}},
        {"groups": ["g"] * 2_000},
    ],
)
def test_tokens_that_are_not_for_us(server: Server, provider: OpenIdProvider, claims: dict[str, Any]) -> None:
    provider.set(claims=claims)
    with server.browser() as browser:
        assert browser.get(server.answer_of_provider(browser)).status_code == 403
        assert browser.get("/page").status_code == 303
    assert events(server) == []


def test_a_token_for_us_among_others(server: Server, provider: OpenIdProvider) -> None:
    provider.set(claims={"aud": ["cumulant", "another"], "azp": "cumulant", "groups": ["ml", 7, "a\tb", ""]})
    with server.browser() as browser:
        assert browser.get(server.answer_of_provider(browser)).status_code == 303
        assert browser.get("/page").json()["groups"] == ["ml"]


def test_a_token_without_a_signature(server: Server, provider: OpenIdProvider) -> None:
    provider.set(unsigned=True)
    with server.browser() as browser:
        assert browser.get(server.answer_of_provider(browser)).status_code == 403
    assert events(server) == []


def verify(issuer: Issuer, token: str) -> str:
    return str(issuer.verify(token, audience="cumulant", now=datetime.now(UTC))["sub"])


def test_the_provider_changes_its_keys(server: Server, provider: OpenIdProvider) -> None:
    seconds = [0.0]
    issuer = Issuer(provider.issuer, seconds=lambda: seconds[0])
    assert verify(issuer, provider.sign(sub="job", aud="cumulant")) == "job"
    provider.rotate()
    token = provider.sign(sub="job", aud="cumulant")
    with pytest.raises(TokenRefusedError):
        verify(issuer, token)  # keys were read a moment ago: tokens of nobody cause no request each
    seconds[0] = 11
    assert verify(issuer, token) == "job"
    with server.browser() as browser:
        assert browser.get(server.answer_of_provider(browser)).status_code == 303


def is_refused(issuer: Issuer, token: str) -> bool:
    try:
        verify(issuer, token)
    except TokenRefusedError:
        return True
    return False


def signed_with_secret(header: dict[str, str], claims: dict[str, Any], secret: bytes) -> str:
    """As a library would sign that takes any key for a shared secret."""
    parts = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = urlsafe_b64encode(hmac.digest(secret, b".".join(parts), "sha256")).rstrip(b"=")
    return b".".join([*parts, signature]).decode()


def test_tokens_that_the_provider_did_not_sign(provider: OpenIdProvider) -> None:
    provider.set()
    issuer = Issuer(provider.issuer)
    good = provider.sign(sub="job", aud="cumulant")
    assert verify(issuer, good) == "job"
    key = httpx.get(issuer.metadata().jwks_uri).json()["keys"][-1]
    now = int(datetime.now(UTC).timestamp())
    claims = {"iss": provider.issuer, "sub": "job", "aud": "cumulant", "iat": now, "exp": now + 600}
    own = RSAKey.generate_key(2048, {"kid": key["kid"]})
    public = RSAKey.import_key(key).as_pem(private=False)
    header, payload, signature = good.split(".")
    forged = {
        "another key of that name": jwt.encode({"alg": "RS256", "kid": key["kid"]}, claims, own),
        "the public key as a shared secret": signed_with_secret({"alg": "HS256", "kid": key["kid"]}, claims, public),
        "its own key in the header": jwt.encode({"alg": "RS256", "jwk": own.as_dict(private=False)}, claims, own),
        "no signature": f"{header}.{payload}.",
        "changed claims": f"{header}.{payload[:-2]}{'AA' if payload[-2:] != 'AA' else 'BB'}.{signature}",
        "too long": f"{good}{'A' * 20_000}",
        "no token": "x",
        "parts of none": "..",
        "bytes": "\udc80.a.b",
    }
    accepted = [name for name, token in forged.items() if not is_refused(issuer, token)]
    assert accepted == []


def test_a_provider_that_speaks_for_another(provider: OpenIdProvider) -> None:
    for metadata in (
        {"issuer": "https://evil.example"},
        {"jwks_uri": "http://evil.example/jwks"},
        {"token_endpoint": "http://evil.example/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
    ):
        provider.set(metadata=metadata)
        with pytest.raises(EngineUnavailableError, match="its metadata is of another issuer"):
            Issuer(provider.issuer).metadata()
    provider.set()
    assert Issuer(provider.issuer).metadata().issuer == provider.issuer


CI = (
    ", trusted: [{issuer: '%s', audience: cumulant-ci, subject: 'repo:acme/shop:ref:*', claims: {repository: acme/shop},"
    " service: ci, scope: [runs.show, 'data.*'], expires: 10m}]"
)
JOB = {"aud": "cumulant-ci", "sub": "repo:acme/shop:ref:refs/heads/main", "repository": "acme/shop"}
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"


@pytest.fixture
def trusting(tmp_path: Path, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that trusts jobs of a CI, whose tokens the provider signs."""
    monkeypatch.setenv("OIDC", "x")
    provider.set()
    started = Server(tmp_path / "trusting", provider.issuer, CI % provider.issuer)
    yield started
    started.close()


def exchange(server: Server, token: str, **changes: str) -> httpx.Response:
    form = {"grant_type": GRANT, "subject_token": token} | changes
    return httpx.post(f"{server.url}/v1/sign-in/token", data=form)


def test_a_job_gets_a_short_token_of_a_service_account(trusting: Server, provider: OpenIdProvider) -> None:
    answer = exchange(trusting, provider.sign(**JOB), project="shop").json()
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 600)
    who_am_i = httpx.get(f"{trusting.url}/page", headers={"authorization": f"Bearer {answer['access_token']}"}).json()
    assert who_am_i["id"] == "service:ci"
    event = list(trusting.project.journal().events())[-1]
    assert (event.kind, event.actor) == ("identities.token_created", "service:ci")
    assert event.reason == f"exchanged for a token of {provider.issuer}, subject {JOB['sub']}"
    assert "runs.show" in str(event.data["scope"])
    assert "model.train" not in str(event.data["scope"])


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "cumulant"},
        {"sub": "repo:acme/shop:pull_request"},
        {"sub": "repo:acme/shop2:ref:refs/heads/main"},
        {"sub": "xrepo:acme/shop:ref:refs/heads/main"},
        {"sub": "repo:acme/shop:ref:\nrefs"},
        {"sub": "repo:acme/shop:ref:\trefs"},
        {"repository": "evil/shop"},
        {"repository": None},
        {"exp": 1},
        {"iss": "https://evil.example"},
        {"iss": 7},
    ],
)
def test_jobs_that_are_not_trusted(trusting: Server, provider: OpenIdProvider, changes: dict[str, Any]) -> None:
    refused = exchange(trusting, provider.sign(**JOB | changes))
    assert (refused.status_code, refused.json()) == (400, {"error": "invalid_grant"})
    assert events(trusting) == ["access.refused"]


def test_exchanges_that_are_none(trusting: Server, provider: OpenIdProvider) -> None:
    token = provider.sign(**JOB)
    assert exchange(trusting, token, grant_type="password").json() == {"error": "unsupported_grant_type"}
    assert exchange(trusting, token, subject_token_type="x").json() == {"error": "invalid_request"}
    assert exchange(trusting, token, project="other").json() == {"error": "invalid_target"}
    for text in ("x", "..", "a.b.c", token[:-2], token + "A" * 70_000):
        assert exchange(trusting, text).status_code in (400, 413), text[:20]
    place = f"{trusting.url}/v1/sign-in/token"
    assert httpx.post(place, json={"subject_token": token}).json() == {"error": "invalid_request"}
    assert httpx.get(place).status_code == 401
    assert set(events(trusting)) == {"access.refused"}


def sign_in_at(
    provider: OpenIdProvider,
    *,
    user_claim: str = "sub",
    after: timedelta = timedelta(0),
    secret: str | None = None,
    acr_values: tuple[str, ...] = (),
) -> str:
    """Who signs in, by a client of its own; `after`: so long after it began. Public without a secret."""
    policy = Provider(
        issuer=provider.issuer,
        client_id="own",
        client_secret=None,
        acr_values=acr_values,
        scopes=("openid",),
        user_claim=user_claim,
        groups_claim="groups",
    )
    login = ProviderLogin(
        policy, Issuer(provider.issuer), url="https://c.example.com", secret=secret, key=b"k" * 32, tenant="acme"
    )
    now = datetime.now(UTC)
    address, cookie = login.begin("/", now)
    back = urlsplit(httpx.get(address).headers["location"])
    query = {name: values[0] for name, values in parse_qs(back.query).items()}
    return login.finish(cookie, query, now + after)[0].id


@pytest.mark.parametrize("secret", [None, "s3cret"])
def test_public_and_confidential_clients(provider: OpenIdProvider, secret: str | None) -> None:
    provider.set()
    assert sign_in_at(provider, secret=secret) == "user:johndoe"


def test_who_takes_longer_than_10_minutes_begins_again(provider: OpenIdProvider) -> None:
    provider.set()
    assert sign_in_at(provider, after=LIFE - timedelta(seconds=1)) == "user:johndoe"
    with pytest.raises(TokenRefusedError, match="too long ago"):
        sign_in_at(provider, after=LIFE)


def test_an_address_that_the_provider_did_not_verify_names_nobody(provider: OpenIdProvider) -> None:
    for claims in ({}, {"email_verified": False}, {"email_verified": "true"}):
        provider.set(claims={"email": "ada@example.com"} | claims)
        with pytest.raises(TokenRefusedError, match="not verified"):
            sign_in_at(provider, user_claim="email")
    provider.set(claims={"email": "ada@example.com", "email_verified": True})
    assert sign_in_at(provider, user_claim="email") == "user:ada@example.com"


def test_the_provider_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC", "x")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        issuer = f"http://127.0.0.1:{closed.getsockname()[1]}"
    server = Server(tmp_path / "shop", issuer)
    try:
        with server.browser() as browser:
            away = browser.get("/login/start")
            assert away.status_code == 503
            assert "does not answer" in away.text
    finally:
        server.close()


def sign_in(server: Server, browser: httpx.Client) -> None:
    assert browser.get(server.answer_of_provider(browser)).status_code == 303


def test_groups_are_those_of_the_last_check(server: Server, provider: OpenIdProvider) -> None:
    provider.set(claims={"groups": ["ml", "ops"]})
    with server.browser() as browser:
        sign_in(server, browser)
        before = browser.get("/page").json()
        assert before["groups"] == ["ml", "ops"]
        user = Principal(before["id"], ("ml", "ops"), tenant="acme", via="http")
        token = create_token(server.project, "script", principal=user).secret
        bearer = {"authorization": f"Bearer {token}"}
        assert httpx.get(f"{server.url}/page", headers=bearer).json()["groups"] == ["ml", "ops"]
        provider.set(claims={"groups": ["ml"]})
        assert browser.get("/page").json()["groups"] == ["ml", "ops"], "not yet"
        grow_older(server, 2)
        (old,) = sessions(server)
        due = browser.get("/page?a=b")
        assert (due.status_code, due.headers["location"]) == (303, "/login/start?next=/page%3Fa%3Db")
        answered = httpx.get(browser.get(due.headers["location"]).headers["location"])
        back = browser.get(str(answered.headers["location"]))
        assert back.headers["location"] == "/page?a=b"
        after = browser.get("/page").json()
        assert (after["id"], after["groups"]) == (before["id"], ["ml"])
        assert httpx.get(f"{server.url}/page", headers=bearer).json()["groups"] == ["ml"], "a token follows"
        assert "identities.token_groups_changed" in events(server)
        assert after["csrf"] != before["csrf"], "the session has a new secret"
        (new,) = sessions(server)
        ends = [datetime.fromisoformat(str(each["expires"])) for each in (old, new)]
        assert ends[0] == ends[1], "its longest life goes on"


def test_a_user_whom_the_provider_no_longer_signs_in_is_out(server: Server, provider: OpenIdProvider) -> None:
    """Nothing that a page, a form or a script does with the session counts any more."""
    with server.browser() as browser:
        sign_in(server, browser)
        token = browser.get("/page").json()["csrf"]
        grow_older(server, 2)
        form = browser.post("/page", headers={"origin": server.url}, data={"csrf": token})
        assert (form.status_code, "confirmed again" in form.text) == (401, True)
        assert browser.get("/v1/x").status_code == 401
        part = browser.get("/page", headers={"hx-request": "true", "hx-current-url": f"{server.url}/page?a=b"})
        assert (part.status_code, part.headers["hx-redirect"]) == (401, "/login/start?next=/page%3Fa%3Db")
        for hostile in ("http://[", "https://evil.example//evil.example", "javascript:alert(1)"):
            part = browser.get("/page", headers={"hx-request": "true", "hx-current-url": hostile})
            assert part.headers["hx-redirect"] == "/login/start?next=/", hostile
        denied = with_query(server.answer_of_provider(browser), code=None, error="access_denied")
        assert browser.get(denied).status_code == 403
        assert browser.get("/page").status_code == 303


def test_a_session_that_was_unused_is_not_renewed_by_itself(server: Server) -> None:
    with server.browser() as browser:
        sign_in(server, browser)
        grow_older(server, 2, used=False)
        assert browser.get("/page").headers["location"] == "/login?next=/page"


def test_a_weaker_sign_in_than_required_is_refused(provider: OpenIdProvider) -> None:
    provider.set(claims={"acr": "phr"})
    assert sign_in_at(provider, acr_values=("phr", "phrh")) == "user:johndoe"
    for claims in ({"acr": "pwd"}, {}, {"acr": ["phr"]}):
        provider.set(claims=claims)
        with pytest.raises(TokenRefusedError, match="not as strong"):
            sign_in_at(provider, acr_values=("phr", "phrh"))


def test_users_are_named_by_their_subject(provider: OpenIdProvider) -> None:
    """What users can change at the provider, such as a name or an address, names nobody by default."""
    provider.set(claims={"sub": "248289761001", "email": "ada@example.com", "preferred_username": "ada", "name": "Ada"})
    assert sign_in_at(provider) == "user:248289761001"
    assert SignInSpec().user_claim == "sub"
