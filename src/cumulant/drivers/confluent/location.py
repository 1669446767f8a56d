"""The address of a registry in its URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.network.urls import check_secret_name

PREFIX = "confluent+"
_HINT = "write confluent+https://USER@HOST:8081?password=NAME, where NAME is a secret"


class RegistryAddress(msgspec.Struct, frozen=True, kw_only=True):
    """`url`: without user and options, and without a slash at the end. `secret`: the name of the password; `authority`:
    the file of those who may have signed the certificate.
    """

    url: str
    user: str | None = None
    secret: str | None = None
    authority: str | None = None


def parse_registry_url(url: str) -> RegistryAddress:
    """`confluent+https://[USER@]HOST[:PORT][/PATH][?password=SECRET&ca=FILE]`; `confluent+http://` is not encrypted.

    Raises:
        UsageError: the URL is invalid, or contains a password.
    """
    try:
        parts = urlsplit(url.removeprefix(PREFIX))
        port = parts.port
    except ValueError:
        raise UsageError("the address of the schema registry is no URL", hint=_HINT) from None
    if parts.password is not None:
        raise UsageError("the address of the schema registry holds a password, which others can read", hint=_HINT)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise UsageError(f"{url} is no address of a schema registry", subject=url, hint=_HINT)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = ("password", "ca") if parts.scheme == "https" else ("password",)
    if unknown := [name for name in options if name not in known]:
        message = f'the address of the schema registry has an option "{unknown[0][:100]}"'
        raise UsageError(message, subject=url, hint="it takes password=NAME, and with https also ca=FILE")
    secret, authority = options.get("password") or None, options.get("ca")
    if (parts.username is None) != (secret is None):
        raise UsageError(
            "a user of the schema registry needs a password, and a password a user", subject=url, hint=_HINT
        )
    check_secret_name(secret, "password")
    if authority is not None and not Path(authority).is_file():
        raise UsageError("the file of authorities that the address names does not exist", subject=authority)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port is None else f"{host}:{port}"
    user = None if parts.username is None else unquote(parts.username)
    plain = f"{parts.scheme}://{place}{parts.path.rstrip('/')}"
    return RegistryAddress(url=plain, user=user, secret=secret, authority=authority)
