"""The key `sign_in` of an environment: who may call the API and the console, and how they show who they are."""

from typing import Annotated

import msgspec
from msgspec import Meta

_DURATION = {"text": "duration"}


class TrustedIssuerSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Jobs elsewhere, such as of a CI, whose tokens are exchanged for short API tokens of a service account."""

    issuer: Annotated[
        str, Meta(description="Who signs the tokens of the jobs: `https://token.actions.githubusercontent.com`.")
    ]
    audience: Annotated[str, Meta(min_length=1, description="The audience that the tokens must name.")]
    subject: Annotated[
        str, Meta(min_length=1, description="The subject that the tokens must have; `*` stands for any characters.")
    ]
    claims: Annotated[
        dict[str, str], Meta(description="Further claims that the tokens must have, with their values.")
    ] = {}
    service: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
            description="The service account that the jobs act as: `ci` is `service:ci`.",
        ),
    ]
    scope: Annotated[list[str], Meta(min_length=1, description="The actions that it may do: `model.train`, `runs.*`.")]
    expires: Annotated[str, Meta(description="How long an API token lives, at most one day.", extra=_DURATION)] = "15m"


class SignInSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How callers of the API and the console show who they are."""

    url: Annotated[
        str | None,
        Meta(description="The address of the console as browsers have it, such as `https://cumulant.example.com`."),
    ] = None
    issuer: Annotated[
        str | None,
        Meta(
            description="The OpenID provider. Default: none; on loopback `cumulant api` prints a one-time link,"
            " elsewhere API tokens alone are accepted."
        ),
    ] = None
    client_id: Annotated[str, Meta(description="The name of Cumulant at the provider.")] = "cumulant"
    client_secret: Annotated[
        str | None,
        Meta(description="Its secret there: `${secret:NAME}`. Default: none, for public clients."),
    ] = None
    acr_values: Annotated[
        str,
        Meta(
            description="How strong a sign-in at the provider has to be, by its names, separated by spaces: such as"
            " `phr phrh`. Default: as the provider decides."
        ),
    ] = ""
    scopes: Annotated[str, Meta(description="What is requested of the provider besides `openid`.")] = "profile"
    user_claim: Annotated[
        str,
        Meta(
            min_length=1,
            description="The claim that names the user: with `sub`, the default, `user:SUB`. A claim that users can"
            " change lets them act as others.",
        ),
    ] = "sub"
    groups_claim: Annotated[str, Meta(min_length=1, description="The claim that lists the user's groups.")] = "groups"
    idle: Annotated[str, Meta(description="An unused session ends after so long.", extra=_DURATION)] = "1h"
    longest: Annotated[str, Meta(description="Every session ends after so long.", extra=_DURATION)] = "12h"
    recheck: Annotated[
        str,
        Meta(
            description="After so long a session by a provider is checked there again: its user, and the groups.",
            extra=_DURATION,
        ),
    ] = "1h"
    recheck_tokens: Annotated[
        str,
        Meta(
            description="So long after the last sign-in of their user by a provider, or a day earlier (a seventh, where"
            " that is less), API tokens are refused until the next one; those of service accounts are not.",
            extra=_DURATION,
        ),
    ] = "7d"
    proxies: Annotated[
        list[str],
        Meta(description="Addresses or networks of proxies whose `X-Forwarded-` headers are believed: `10.0.0.0/24`."),
    ] = []
    trusted: Annotated[
        list[TrustedIssuerSpec],
        Meta(description="Issuers of tokens of jobs, such as a CI, which are exchanged for short API tokens."),
    ] = []
