"""Sign-in by an OpenID provider: authorization code with PKCE.

What belongs to a sign-in that is under way (state, nonce, verifier) is in a signed cookie of the browser that began it,
so that any process of the server can finish it, and nobody else's browser can. A state is used once.
"""

from __future__ import annotations

import hmac
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from cumulant.core.errors import EngineUnavailableError
from cumulant.flows.identities.records import new_secret
from cumulant.ports.access import Principal
from cumulant.server.sign_in.issuer import Issuer, TokenRefusedError, check_party

if TYPE_CHECKING:
    from cumulant.project.sign_in_section import Provider

#: how long a user may take at the provider
LIFE = timedelta(minutes=10)
CALLBACK = "/login/callback"
_LONGEST_NAME, _MOST_GROUPS = 256, 1_000


class PendingLogin(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in that is under way. `target`: the local path to go on to; `renews`: it checks a session again."""

    state: str
    nonce: str
    verifier: str
    target: str
    expires: datetime
    renews: bool = False


class _TokenResponse(msgspec.Struct, frozen=True):
    id_token: str


class ProviderLogin:
    """`secret` reveals the client's secret, None for a public one; `key` signs the cookies; users are of `tenant`."""

    def __init__(
        self, provider: Provider, issuer: Issuer, *, url: str, secret: str | None, key: bytes, tenant: str
    ) -> None:
        self._provider, self._issuer, self._url = provider, issuer, url
        self._secret, self._key, self._tenant = secret, key, tenant

    def begin(self, target: str, now: datetime, *, renews: bool = False) -> tuple[str, str]:
        """The provider's address to send the browser to, and the value of its cookie.

        Raises:
            EngineUnavailableError: the provider does not answer.
        """
        pending = PendingLogin(
            state=new_secret(),
            nonce=new_secret(),
            verifier=new_secret(),
            target=target,
            expires=now + LIFE,
            renews=renews,
        )
        strength = {"acr_values": " ".join(self._provider.acr_values)} if self._provider.acr_values else {}
        address = prepare_grant_uri(
            self._issuer.metadata().authorization_endpoint,
            self._provider.client_id,
            "code",
            redirect_uri=self._url + CALLBACK,
            scope=" ".join(self._provider.scopes),
            state=pending.state,
            nonce=pending.nonce,
            code_challenge=create_s256_code_challenge(pending.verifier),
            code_challenge_method="S256",
            **strength,
        )
        return str(address), self._sign(pending)

    def finish(self, cookie: str, query: Mapping[str, str], now: datetime) -> tuple[Principal, PendingLogin]:
        """The user that the provider sent back, by the query of its redirect.

        Raises:
            TokenRefusedError: it is no answer to a sign-in that this browser began, or the provider refused.
            EngineUnavailableError: the provider does not answer.
        """
        pending = self._pending(cookie, now)
        if pending is None or not hmac.compare_digest(pending.state.encode(), query.get("state", "").encode()):
            raise TokenRefusedError("this browser began no such sign-in, or too long ago")
        self._check_issuer(query)
        if "code" not in query:
            raise TokenRefusedError("the provider refused the sign-in")
        claims = self._issuer.verify(
            self._exchange(query["code"], pending.verifier), audience=self._provider.client_id, now=now
        )
        check_party(claims, self._provider.client_id)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), pending.nonce.encode()):
            raise TokenRefusedError("the token is of another sign-in")
        if self._provider.acr_values and claims.get("acr") not in self._provider.acr_values:
            raise TokenRefusedError("the sign-in at the provider was not as strong as sign_in.acr_values asks for")
        return self._principal(claims), pending

    def logout_url(self) -> str | None:
        """Where the browser ends its session at the provider; None where the provider has no such address."""
        place = self._issuer.metadata().end_session_endpoint
        if not place:
            return None
        query = urlencode({"client_id": self._provider.client_id, "post_logout_redirect_uri": f"{self._url}/login"})
        return f"{place}{'&' if '?' in place else '?'}{query}"

    def _check_issuer(self, query: Mapping[str, str]) -> None:
        """A response that names another issuer was meant for another client of this browser (RFC 9207)."""
        required = self._issuer.metadata().authorization_response_iss_parameter_supported
        if query.get("iss", None if required else self._issuer.issuer) != self._issuer.issuer:
            raise TokenRefusedError("the response is of another issuer")

    def _exchange(self, code: str, verifier: str) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._url + CALLBACK,
            "code_verifier": verifier,
        }
        headers = {}
        if self._secret is None:
            form["client_id"] = self._provider.client_id
        else:
            pair = f"{quote(self._provider.client_id, safe='')}:{quote(self._secret, safe='')}"
            headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        place = self._issuer.metadata().token_endpoint
        status, body = self._issuer.post(place, headers, urlencode(form).encode())
        if status >= 500:
            raise EngineUnavailableError(f"the OpenID provider answers HTTP {status}", subject=self._issuer.issuer)
        try:
            return msgspec.json.decode(body, type=_TokenResponse).id_token if status == 200 else _refuse_code()
        except msgspec.DecodeError:
            return _refuse_code()

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        name = self._provider.user_claim
        user = claims.get(name)
        if not isinstance(user, str) or not _is_name(user):
            raise TokenRefusedError(f"the token has no claim {name} that names a user")
        if name == "email" and claims.get("email_verified") is not True:
            raise TokenRefusedError("the provider has not verified the user's address")
        groups = claims.get(self._provider.groups_claim, [])
        groups = [groups] if isinstance(groups, str) else groups
        if not isinstance(groups, list) or len(groups) > _MOST_GROUPS:
            raise TokenRefusedError(f"the claim {self._provider.groups_claim} is no list of groups")
        known = tuple(group for group in groups if isinstance(group, str) and _is_name(group))
        return Principal(f"user:{user}", known, tenant=self._tenant, via="http")

    def _sign(self, pending: PendingLogin) -> str:
        content = urlsafe_b64encode(msgspec.json.encode(pending)).decode()
        return f"{content}.{self._signature(content)}"

    def _pending(self, cookie: str, now: datetime) -> PendingLogin | None:
        content, _, signature = cookie.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(content).encode()):
            return None
        pending = msgspec.json.decode(urlsafe_b64decode(content), type=PendingLogin)
        return pending if now < pending.expires else None

    def _signature(self, content: str) -> str:
        return hmac.digest(self._key, content.encode(), "sha256").hex()


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_NAME and text.isprintable() and text == text.strip()


def _refuse_code() -> str:
    raise TokenRefusedError("the provider does not know the code")
