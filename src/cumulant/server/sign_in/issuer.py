"""An OpenID issuer: its metadata and keys, and whether a token is one that it signed for us."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from cumulant.core.errors import EngineUnavailableError, RefusedError
from cumulant.core.network.http_client import HttpClient, NoResponseError
from cumulant.core.network.urls import is_secure_url

#: with public keys alone: a token that anybody can sign (`none`), or with a shared secret, is refused
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
#: seconds for one request to the issuer; after which metadata is read again; between two readings of keys at least
_SECONDS, _FRESH, _PAUSE = 10.0, 3_600.0, 10.0
#: seconds that a thread waits for another one that asks the issuer
_MOMENT = 2.0
_MOST_BYTES = 1 << 20
_LONGEST_TOKEN = 16_384
#: seconds that the issuer's clock may differ from ours
_LEEWAY = 60
#: letters of the modulus of an RSA key of 2,048 bits, which a key has at least
_LEAST_MODULUS = 342
Document = TypeVar("Document")


class IssuerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What an issuer publishes about itself (OpenID Connect Discovery)."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    end_session_endpoint: str = ""
    authorization_response_iss_parameter_supported: bool = False


class TokenRefusedError(RefusedError):
    """A token that its issuer did not sign for us, or that has expired. The reason is for the log, not the caller."""


class _Known(NamedTuple, Generic[Document]):
    """What was read, and when; `seconds` as of the issuer's clock."""

    seconds: float
    value: Document


class Issuer:
    """One issuer; it is asked when it is first needed, and again for keys that are new to us.

    One thread asks at a time. Whoever can go on with what is known already does not wait for it, so that a slow issuer
    holds up only those whom nobody knows yet, and those briefly.
    """

    def __init__(
        self, issuer: str, *, client: HttpClient | None = None, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self.issuer = issuer
        self._client = client or HttpClient(
            seconds=_SECONDS, total_seconds=_SECONDS, max_bytes=_MOST_BYTES, use_proxies=True
        )
        self._seconds = seconds
        self._metadata: _Known[IssuerMetadata] | None = None
        self._keys: _Known[KeySet] | None = None
        self._fault: tuple[float, EngineUnavailableError] | None = None
        self._asking = threading.Lock()

    def metadata(self) -> IssuerMetadata:
        """The issuer's metadata, at most an hour old, or while it is asked again, that of before.

        Raises:
            EngineUnavailableError: the issuer does not answer, or not as an issuer.
        """
        known = self._metadata
        if known is not None and self._seconds() - known.seconds <= _FRESH:
            return known.value
        if not self._ask(wait=known is None):
            assert known is not None
            return known.value
        try:
            return self._fresh_metadata()
        finally:
            self._asking.release()

    def _fresh_metadata(self) -> IssuerMetadata:
        """By the thread that asks."""
        if self._metadata is None or self._seconds() - self._metadata.seconds > _FRESH:
            self._metadata = _Known(self._seconds(), self._read_metadata())
        return self._metadata.value

    def _ask(self, *, wait: bool) -> bool:
        """Whether this thread may ask the issuer. `wait`: until another one has, for a moment.

        Raises:
            EngineUnavailableError: another one still waits for its answer.
        """
        if self._asking.acquire(timeout=_MOMENT if wait else 0):
            return True
        if wait:
            raise self._unusable("it is slow, and was asked already")
        return False

    def _read_metadata(self) -> IssuerMetadata:
        metadata = self._read(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration", IssuerMetadata)
        places = (
            metadata.jwks_uri,
            metadata.authorization_endpoint,
            metadata.token_endpoint,
            metadata.end_session_endpoint,
        )
        if metadata.issuer != self.issuer or not all(is_secure_url(place, query=True) for place in places if place):
            raise self._unusable("its metadata is of another issuer, or names addresses without HTTPS")
        return metadata

    def verify(self, token: str, *, audience: str, now: datetime) -> dict[str, Any]:
        """The claims of a token that the issuer signed for `audience` and that is valid now.

        Raises:
            TokenRefusedError: it is none.
            EngineUnavailableError: as `metadata`.
        """
        if len(token) > _LONGEST_TOKEN:
            raise TokenRefusedError("the token is too long")
        try:
            decoded = self._decode(token)
            options = {"iss": {"essential": True, "value": self.issuer}, "aud": {"essential": True, "value": audience}}
            required = {name: {"essential": True} for name in ("sub", "exp", "iat")}
            registry = jwt.JWTClaimsRegistry(int(now.timestamp()), _LEEWAY, **options, **required)  # type: ignore[arg-type]
            registry.validate(decoded.claims)
        except (JoseError, ValueError, TypeError) as error:
            raise TokenRefusedError(f"the token is refused: {type(error).__name__}") from error
        return dict(decoded.claims)

    def post(self, url: str, headers: Mapping[str, str], form: bytes) -> tuple[int, bytes]:
        """Status and body of a form that is sent to the issuer. Raises EngineUnavailableError."""
        content = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json", **headers}
        try:
            response = self._client.send("POST", url, headers=content, content=form)
        except NoResponseError as error:
            raise self._unusable(error.reason) from None
        return response.status, response.body

    def _decode(self, token: str) -> jwt.Token:
        keys = self._key_set(_FRESH)
        try:
            return jwt.decode(token, keys, algorithms=ALGORITHMS)
        except (BadSignatureError, InvalidKeyIdError):
            newer = self._key_set(_PAUSE, wait=True)  # tokens of nobody must not make us ask the issuer each time
            if newer is keys:
                raise
            return jwt.decode(token, newer, algorithms=ALGORITHMS)

    def _key_set(self, fresh: float, *, wait: bool = False) -> KeySet:
        """The issuer's keys as they were at most `fresh` seconds ago; without `wait`, those known while it is asked."""
        known = self._keys
        if known is not None and self._seconds() - known.seconds <= fresh:
            return known.value
        if not self._ask(wait=wait or known is None):
            assert known is not None
            return known.value
        try:
            if self._keys is None or self._seconds() - self._keys.seconds > fresh:
                self._keys = _Known(self._seconds(), self._read_keys())
            return self._keys.value
        finally:
            self._asking.release()

    def _read_keys(self) -> KeySet:
        document = self._read(self._fresh_metadata().jwks_uri, dict[str, Any])
        try:
            strong = [key for key in document["keys"] if _is_strong(key)]
            return KeySet.import_key_set({"keys": strong})
        except (JoseError, ValueError, TypeError, KeyError):
            raise self._unusable("its keys cannot be read") from None

    def _read(self, url: str, kind: type[Document]) -> Document:
        """Read a document. For a while after a failure the failure stands, so that nobody waits for it again."""
        if self._fault is not None and self._seconds() - self._fault[0] < _PAUSE:
            raise self._fault[1]
        try:
            return self._read_now(url, kind)
        except EngineUnavailableError as error:
            self._fault = self._seconds(), error
            raise

    def _read_now(self, url: str, kind: type[Document]) -> Document:
        try:
            response = self._client.get(url, {"accept": "application/json"})
        except NoResponseError as error:
            raise self._unusable(error.reason) from None
        if response.status != 200:
            raise self._unusable(f"HTTP {response.status}")
        try:
            return msgspec.json.decode(response.body, type=kind)
        except msgspec.DecodeError:
            raise self._unusable("no JSON of an issuer") from None

    def _unusable(self, reason: str) -> EngineUnavailableError:
        return EngineUnavailableError(
            f"the OpenID provider does not answer as one: {reason}",
            subject=self.issuer,
            hint="check sign_in.issuer, and that this machine reaches it",
        )


def _is_strong(key: Mapping[str, Any]) -> bool:
    """Whether a key may sign: of RSA. Elliptic curves of the listed algorithms have 256 bits and more."""
    return key["kty"] != "RSA" or len(key["n"].rstrip("=")) >= _LEAST_MODULUS


def check_party(claims: Mapping[str, Any], audience: str) -> None:
    """Of several audiences we must be the one that an ID token was issued to.

    Raises:
        TokenRefusedError: it was issued to another party.
    """
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else audience) != audience:
        raise TokenRefusedError("the token was issued to another party")
