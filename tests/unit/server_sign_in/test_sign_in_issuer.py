"""An issuer that is slow, and keys that are weak: a real HTTP server whose answers wait for the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from cumulant.core.errors import EngineUnavailableError
from cumulant.server.sign_in import issuer as issuer_module
from cumulant.server.sign_in.issuer import ALGORITHMS, Issuer, TokenRefusedError

NOW = datetime.now(UTC)


class SlowIssuer:
    """An issuer on loopback. `answers`: while it is not set, requests wait; `asked`: paths of requests that came."""

    def __init__(self) -> None:
        self.answers, self.waiting = threading.Event(), threading.Semaphore(0)
        self.answers.set()
        self.asked: list[str] = []
        self.keys: list[ECKey | RSAKey] = [ECKey.generate_key("P-256", {"kid": "first"})]
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.waiting.release()
                outer.answers.wait(60)
                content = json.dumps(outer.document(self.path)).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def document(self, path: str) -> dict[str, object]:
        if path.startswith("/.well-known"):
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", "authorization_endpoint": f"{self.url}/auth"}
        return {"keys": [key.as_dict(private=False) for key in self.keys]}

    def token(self, key: ECKey | RSAKey, algorithm: str = "ES256") -> str:
        now = int(NOW.timestamp())
        claims = {"iss": self.url, "sub": "job", "aud": "us", "iat": now, "exp": now + 600}
        return jwt.encode({"alg": algorithm, "kid": key.kid}, claims, key)


@pytest.fixture
def slow() -> Iterator[SlowIssuer]:
    started = SlowIssuer()
    yield started
    started.answers.set()
    started.server.shutdown()
    started.server.server_close()


def verify(issuer: Issuer, token: str) -> str:
    return str(issuer.verify(token, audience="us", now=NOW)["sub"])


def test_a_slow_provider_holds_nobody_up_who_is_known(slow, monkeypatch):
    seconds = [0.0]
    issuer = Issuer(slow.url, seconds=lambda: seconds[0])
    token = slow.token(slow.keys[0])
    assert verify(issuer, token) == "job"
    seconds[0] = 4_000  # keys and metadata are old: the next one asks
    while slow.waiting.acquire(blocking=False):
        pass
    slow.answers.clear()
    monkeypatch.setattr(issuer_module, "_MOMENT", 0.05)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(verify, issuer, token)
        assert slow.waiting.acquire(timeout=60), "it asks"
        assert [verify(issuer, token) for _ in range(20)] == ["job"] * 20, "by the keys of before"
        assert issuer.metadata().issuer == slow.url
        other = ECKey.generate_key("P-256", {"kid": "second"})
        with pytest.raises(EngineUnavailableError, match="was asked already"):
            verify(issuer, slow.token(other))
        slow.answers.set()
        assert asking.result(60) == "job"
    assert slow.asked.count("/keys") == 2


def test_many_at_the_beginning_ask_once(slow, monkeypatch):
    monkeypatch.setattr(issuer_module, "_MOMENT", 60)
    issuer, token = Issuer(slow.url), slow.token(slow.keys[0])
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: verify(issuer, token), range(40))) == {"job"}
    assert sorted(slow.asked) == ["/.well-known/openid-configuration", "/keys"]


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_weak_keys_of_an_issuer_are_refused(slow):
    weak, strong = RSAKey.generate_key(1024, {"kid": "weak"}), RSAKey.generate_key(2048, {"kid": "strong"})
    slow.keys = [weak, strong]
    issuer = Issuer(slow.url)
    assert verify(issuer, slow.token(strong, "RS256")) == "job"
    with pytest.raises(TokenRefusedError):
        verify(issuer, slow.token(weak, "RS256"))


def test_algorithms_of_tokens_are_public_key_ones():
    assert {each[:2] for each in ALGORITHMS} == {"RS", "PS", "ES"}
    assert all(int(each[2:]) >= 256 for each in ALGORITHMS)
