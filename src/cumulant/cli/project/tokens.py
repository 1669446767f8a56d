"""`cumulant token`: API tokens of users and service accounts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import EngineUnavailableError

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.identities.tokens import NewToken, TokenView

app = application(
    "token",
    "Tokens with which programs call the API.",
    examples=["cumulant token create nightly --scope 'runs.*'", "cumulant token list", "cumulant token revoke 3fa2c1"],
)


@command(
    app,
    operations=("identities.create_token",),
    action="identities.token_create",
    examples=[
        "cumulant token create laptop",
        "cumulant token create nightly --scope model.train --scope 'runs.*' --expires 30d",
        "cumulant token create deploy --service ci --scope release.start --json",
        "cumulant token create laptop --server https://cumulant.example.com",
    ],
)
def create(
    call: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the token is for.")],
    *,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ACTION",
            help="An action of yours that it is good for, or `SUBJECT.*`. Default: all.",
        ),
    ] = None,
    service: Annotated[
        str, typer.Option(metavar="NAME", help="A service account that acts with it, in place of you.")
    ] = "",
    expires: Annotated[str, typer.Option(metavar="DURATION", help="How long it lives, at most 366d.")] = "90d",
) -> None:
    """Create an API token and print it, once: only its hash is stored.

    With --server you confirm it in a browser, where you are signed in: a token cannot create tokens.
    """
    if call.server:
        new = _confirmed(call, name, scope or [], service, expires)
    else:
        with call.api() as api:
            new = api.call("identities.create_token", name=name, scope=scope or [], service=service, expires=expires)
    call.answer(new, lambda console: console.print(new.secret, soft_wrap=True, markup=False, highlight=False))
    if not call.json:
        until = f"{new.token.expires:%Y-%m-%d %H:%M} UTC"
        call.note(f"token {new.token.id} of {new.token.principal}, until {until}; it is not shown again")


@command(
    app,
    operations=("identities.tokens",),
    action="identities.token_list",
    name="list",
    examples=["cumulant token list", "cumulant token list --json"],
)
def list_(call: Invocation) -> None:
    """Show API tokens without their secrets: yours, and those of others where you may manage them."""
    with call.api() as api:
        tokens = api.call("identities.tokens")
    call.answer({"tokens": tokens}, lambda console: _print(console, tokens))


@command(
    app,
    operations=("identities.revoke_token",),
    action="identities.token_revoke",
    examples=["cumulant token revoke 3fa2c1", "cumulant token revoke 3fa2c1 --reason 'was in a log'"],
)
def revoke(
    call: Invocation,
    token: Annotated[str, typer.Argument(metavar="ID", help="A token's id, or the beginning of it.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is part of the event.")] = "",
) -> None:
    """Revoke an API token: it is refused from the next request on."""
    with call.api() as api:
        revoked = api.call("identities.revoke_token", token=token, reason=reason)
    call.answer(
        revoked, lambda console: console.print(f"{revoked.id}: {revoked.name} of {revoked.principal} is revoked")
    )


def _confirmed(call: Invocation, name: str, scope: list[str], service: str, expires: str) -> NewToken:
    """A token of a server, whose user confirms it there."""
    from cumulant.core.units import duration
    from cumulant.flows.identities.tokens import NewToken, TokenRequest, check_token_request
    from cumulant.server.client.device_flow import device_token

    request = TokenRequest(name=name, scope=tuple(scope), service=service, expires=duration(expires))
    check_token_request(request)
    call.output.interrupted = "no token was saved: the same command shows a new code to confirm"
    form = {"token_name": name, "scope": " ".join(scope), "service": service, "expires": expires}
    answer = device_token(call.server, form | ({"project": call.given} if call.given else {}), call.note)
    if answer.token is None or answer.token.name != name:
        text = "the server signs in command lines, and creates no tokens for them"
        raise EngineUnavailableError(text, subject=call.server, hint="it is of an earlier version: update it")
    return NewToken(secret=answer.access_token, token=answer.token)


def _print(console: Console, tokens: list[TokenView]) -> None:
    from cumulant.flows.reports.terminal import table

    now = datetime.now(UTC)
    rows = [
        (
            token.id,
            token.name,
            token.principal,
            "all" if token.scope is None else ", ".join(token.scope),
            _expiry(token, now),
            "never" if token.used is None else f"{token.used:%Y-%m-%d %H:%M}",
        )
        for token in tokens
    ]
    if rows:
        console.print(table(["id", "name", "acts as", "scope", "expires", "used"], rows))
    else:
        console.print("no tokens")


def _expiry(token: TokenView, now: datetime) -> str:
    """The day; the time too where it is within a day."""
    near = abs(token.expires - now) < timedelta(days=1)
    return f"{token.expires:{'%Y-%m-%d %H:%M' if near else '%Y-%m-%d'}}" + (" (expired)" if token.expired else "")
