"""API tokens and sessions of the console: whose they are, until when, and their end."""

from __future__ import annotations

import msgspec

from cumulant.core.units import duration
from cumulant.flows.identities.sessions import SessionView, list_sessions, revoke_sessions
from cumulant.flows.identities.tokens import NewToken, TokenView, create_token, list_tokens, revoke_token
from cumulant.server.operation import ApiCall, get, post


@get("/tokens", action="identities.token_list")
def tokens(call: ApiCall) -> list[TokenView]:
    """List API tokens without their secrets: the caller's, and those of others where it may manage them."""
    return list_tokens(call.project, principal=call.principal)


class TokenBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`scope`: actions that it is good for, within those of the caller; empty: all of them. `service`: a service
    account that acts with it. `expires`: how long it lives, at most 366d.
    """

    name: str
    scope: list[str] = []
    service: str = ""
    expires: str = "90d"


@post("/tokens", action="identities.token_create", secret=True)
def create_token_(call: ApiCall, body: TokenBody) -> NewToken:
    """Create an API token, whose secret is in this response alone; not for callers that themselves act by a token."""
    return create_token(
        call.project,
        body.name,
        principal=call.principal,
        scope=body.scope,
        service=body.service,
        expires=duration(body.expires),
    )


class RevokeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`reason`: why, for the events."""

    reason: str = ""


@post("/tokens/{token}/revoke", action="identities.token_revoke")
def revoke_token_(call: ApiCall, token: str, body: RevokeBody) -> TokenView:
    """Revoke an API token, by its id or the beginning of it: it is refused from the next request on."""
    return revoke_token(call.project, token, principal=call.principal, reason=body.reason)


@get("/sessions", action="identities.session_list")
def sessions(call: ApiCall) -> list[SessionView]:
    """List sessions of the console: the caller's, and those of others where it may manage them."""
    return list_sessions(call.project, principal=call.principal)


class RevokeSessionsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`session`: its id or the beginning of it; or `of`: all sessions of that principal."""

    session: str = ""
    of: str = ""
    reason: str = ""


@post("/sessions/revoke", action="identities.session_revoke")
def revoke_sessions_(call: ApiCall, body: RevokeSessionsBody) -> list[SessionView]:
    """End sessions: they are refused from the next request on."""
    return revoke_sessions(call.project, body.session, principal=call.principal, of=body.of, reason=body.reason)


OPERATIONS = (tokens, create_token_, revoke_token_, sessions, revoke_sessions_)
