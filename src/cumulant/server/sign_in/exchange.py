"""Tokens of jobs, such as of a CI, exchanged for short API tokens of a service account (RFC 8693).

A job then needs no secret: its CI signs who it is, and the project file declares whom to trust.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.concurrency import run_in_threadpool

from cumulant.core.errors import EngineUnavailableError
from cumulant.flows.identities.records import ApiToken
from cumulant.flows.identities.tokens import NewToken, add_token, expand_scope
from cumulant.server.sign_in.form_answers import FormError, read_oauth_form, token_response
from cumulant.server.sign_in.issuer import Issuer, TokenRefusedError
from cumulant.server.sign_in.log import log_failure

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from cumulant.project.project import Project
    from cumulant.project.sign_in_section import TrustedIssuer
    from cumulant.server.sign_in.identities import Identities

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
_TOKEN_TYPES = ("urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token")
_NAME = "exchanged"


class TokenExchange:
    """The endpoint of a server's projects; `issuer_of` makes the client of an issuer, once each.

    Raises:
        UsageError: a declared scope names no action.
    """

    def __init__(self, identities: Identities, issuer_of: Callable[[str], Issuer] = Issuer) -> None:
        self._identities = identities
        trusted = [each for project in identities.projects.values() for each in project.sign_in.trusted]
        self._scopes = {each.scope: expand_scope(each.scope) for each in trusted}
        self._issuers = {each.issuer: issuer_of(each.issuer) for each in trusted}

    async def exchange(self, request: Request) -> Response:
        """Answer with an API token; of what is wrong with a token only the log has the reason."""
        try:
            form = await read_oauth_form(request)
            token = _subject_token(form)
            project = self._identities.project_of(form)
            new = await run_in_threadpool(self._exchange, project, token)
        except FormError as error:
            return error.response()
        except TokenRefusedError as error:
            log_failure(error)
            await run_in_threadpool(self._identities.record_refusal, request, "token")
            return FormError("invalid_grant").response()
        except EngineUnavailableError as error:
            log_failure(error)
            return FormError("temporarily_unavailable", 503).response()
        return token_response(new.secret, new.token.expires - new.token.created)

    def _exchange(self, project: Project, token: str) -> NewToken:
        now, issuer = self._identities.clock.now(), _issuer_claim(token)
        for trusted in project.sign_in.trusted:
            claims = self._claims(trusted, token) if trusted.issuer == issuer else None
            if claims is not None and _fits(trusted, claims):
                record = ApiToken(
                    name=_NAME,
                    principal=f"service:{trusted.service}",
                    owner=f"service:{trusted.service}",
                    tenant=project.scope.tenant,
                    scope=self._scopes[trusted.scope],
                    created=now,
                    expires=now + trusted.expires,
                )
                reason = f"exchanged for a token of {trusted.issuer}, subject {claims['sub']}"
                return add_token(project.journal(), record, reason=reason)
        raise TokenRefusedError("no trusted issuer of the project signed this token for such a job")

    def _claims(self, trusted: TrustedIssuer, token: str) -> dict[str, Any] | None:
        try:
            return self._issuers[trusted.issuer].verify(
                token, audience=trusted.audience, now=self._identities.clock.now()
            )
        except TokenRefusedError:
            return None


def _subject_token(form: Mapping[str, str]) -> str:
    """The token of the job. Raises FormError."""
    if form.get("grant_type") != GRANT:
        raise FormError("unsupported_grant_type")
    if form.get("subject_token_type", _TOKEN_TYPES[0]) not in _TOKEN_TYPES or not form.get("subject_token"):
        raise FormError("invalid_request")
    return form["subject_token"]


def _fits(trusted: TrustedIssuer, claims: Mapping[str, Any]) -> bool:
    pattern = ".*".join(re.escape(part) for part in trusted.subject.split("*"))
    if not claims["sub"].isprintable() or re.fullmatch(pattern, claims["sub"]) is None:
        return False
    return all(claims.get(name) == value for name, value in trusted.claims.items())


class _Claims(msgspec.Struct, frozen=True):
    iss: str


def _issuer_claim(token: str) -> str:
    """Whose token it says it is, which nothing confirms yet."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > 1 << 16:
        raise TokenRefusedError("it is no signed token")
    try:
        content = urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(content, type=_Claims).iss
    except (ValueError, msgspec.DecodeError):
        raise TokenRefusedError("it is no signed token") from None
