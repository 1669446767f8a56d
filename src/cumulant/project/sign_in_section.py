"""The key `sign_in` of an environment as a policy, and what it may not say."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import timedelta

import msgspec

from cumulant.core.network.urls import is_secure_url
from cumulant.core.units import duration
from cumulant.project.file.document import Problem, YamlEntry
from cumulant.project.file.sign_in_spec import SignInSpec, TrustedIssuerSpec
from cumulant.project.file.text_values import SECRET

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LONGEST_EXCHANGED = timedelta(days=1)


class SessionLimits(msgspec.Struct, frozen=True):
    """How long a session lives when it is not used, and at most; after which one by a provider is checked there, and
    the API tokens of its user are refused.
    """

    idle: timedelta = timedelta(hours=1)
    longest: timedelta = timedelta(hours=12)
    recheck: timedelta = timedelta(hours=1)
    recheck_tokens: timedelta = timedelta(days=7)


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """An OpenID provider. `client_secret` is a reference, which the vault reveals."""

    issuer: str
    client_id: str
    client_secret: str | None
    acr_values: tuple[str, ...]
    scopes: tuple[str, ...]
    user_claim: str
    groups_claim: str


class TrustedIssuer(msgspec.Struct, frozen=True, kw_only=True):
    """Whose tokens are exchanged for API tokens of which service account, for how long."""

    issuer: str
    audience: str
    subject: str
    claims: dict[str, str]
    service: str
    scope: tuple[str, ...]
    expires: timedelta


class SignInPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Who may call, and how they show who they are. `url`: without a slash at the end; empty where none is declared."""

    url: str = ""
    provider: Provider | None = None
    limits: SessionLimits = SessionLimits()
    proxies: tuple[Network, ...] = ()
    trusted: tuple[TrustedIssuer, ...] = ()


def sign_in_policy(spec: SignInSpec) -> SignInPolicy:
    """The policy of a section without problems."""
    provider = None
    if spec.issuer is not None:
        provider = Provider(
            issuer=spec.issuer,
            client_id=spec.client_id,
            client_secret=spec.client_secret,
            acr_values=tuple(spec.acr_values.split()),
            scopes=tuple(dict.fromkeys(("openid", *spec.scopes.split()))),
            user_claim=spec.user_claim,
            groups_claim=spec.groups_claim,
        )
    return SignInPolicy(
        url=(spec.url or "").rstrip("/"),
        provider=provider,
        limits=SessionLimits(
            duration(spec.idle), duration(spec.longest), duration(spec.recheck), duration(spec.recheck_tokens)
        ),
        proxies=tuple(ipaddress.ip_network(network) for network in spec.proxies),
        trusted=tuple(map(_trusted, spec.trusted)),
    )


def sign_in_problems(spec: SignInSpec, chosen: YamlEntry) -> list[Problem]:
    """What `sign_in` may not say, each with its line."""
    section = chosen.get("sign_in") or chosen
    problems = []
    for key, text in _faults(spec):
        place = (section.get(key) or section).place
        problems.append((place.file, place.line, f"sign_in.{key}: {text}"))
    return problems


def _faults(spec: SignInSpec) -> Iterator[tuple[str, str]]:
    yield from _provider_faults(spec)
    if not timedelta(0) < duration(spec.idle) <= duration(spec.longest):
        yield "idle", "must be more than 0 and at most `longest`"
    for key, text in (("recheck", spec.recheck), ("recheck_tokens", spec.recheck_tokens)):
        if duration(text) <= timedelta(0):
            yield key, "must be more than 0"
    for network in spec.proxies:
        if not _is_network(network):
            yield "proxies", f'"{network}" is no address or network; write 10.0.0.7 or 10.0.0.0/24'
    for trusted in spec.trusted:
        yield from _trusted_faults(trusted)


def _provider_faults(spec: SignInSpec) -> Iterator[tuple[str, str]]:
    if spec.url is not None and not is_secure_url(spec.url, path=False):
        yield "url", f'"{spec.url}" is no address of a console; write https://cumulant.example.com'
    if spec.issuer is not None and not is_secure_url(spec.issuer):
        yield "issuer", f'"{spec.issuer}" is no issuer; write https://HOST/PATH, without a query'
    if spec.issuer is not None and spec.url is None:
        yield "url", "the provider sends users back to it; write https://cumulant.example.com"
    if spec.client_secret is not None and not SECRET.fullmatch(spec.client_secret):
        yield "client_secret", "write ${secret:NAME}: files are read by more than those who may know it"


def _trusted_faults(trusted: TrustedIssuerSpec) -> Iterator[tuple[str, str]]:
    if not is_secure_url(trusted.issuer):
        yield "trusted", f'"{trusted.issuer}" is no issuer; write https://HOST/PATH, without a query'
    if not trusted.subject.strip("*"):
        yield "trusted", "a subject that anybody has is none; write repo:acme/shop:ref:refs/heads/main"
    if not timedelta(0) < duration(trusted.expires) <= _LONGEST_EXCHANGED:
        yield "trusted", "`expires` must be more than 0 and at most 1d"


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _trusted(spec: TrustedIssuerSpec) -> TrustedIssuer:
    return TrustedIssuer(
        issuer=spec.issuer,
        audience=spec.audience,
        subject=spec.subject,
        claims=spec.claims,
        service=spec.service,
        scope=tuple(spec.scope),
        expires=duration(spec.expires),
    )
