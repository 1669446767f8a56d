"""The mail server of a URL."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from cumulant.core.errors import UsageError

_HINT = "write smtp://USER@HOST:587?from=ADDRESS&to=ADDRESS,ADDRESS&password=NAME, where NAME is a secret"
_KNOWN = ("from", "to", "password", "tls")


class MailServer(msgspec.Struct, frozen=True, kw_only=True):
    """A mail server. `encrypted`: from the first byte; `starttls`: before any data. `secret`: name of the password."""

    host: str
    port: int
    encrypted: bool
    starttls: bool
    user: str | None
    password: str | None
    secret: str | None
    sender: str
    to: tuple[str, ...]


def parse_mail_url(url: str) -> MailServer:
    """`smtp://[USER[:PASSWORD]@]HOST[:PORT]?from=A&to=B,C[&password=SECRET][&tls=none]`, or `smtps://`.

    Raises:
        UsageError: the URL is invalid. No message quotes it, since it may contain a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError("the address of the mail server is no URL", hint=_HINT) from None
    options = dict(parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True))  # ops+late@... is an address
    unknown = next((name for name in options if name not in _KNOWN), None)
    if unknown is not None:
        raise UsageError(f'the address of the mail server has an option "{unknown[:40]}"', hint=_HINT)
    to = tuple(recipient.strip() for recipient in options.get("to", "").split(",") if recipient.strip())
    sender = options.get("from", "")
    if not parts.hostname or parts.path.strip("/") or not to or not all(map(_is_address, (sender, *to))):
        raise UsageError("the address of the mail server needs a host, from=ADDRESS and to=ADDRESS,...", hint=_HINT)
    if not parts.username and options.get("password"):
        raise UsageError("the address of the mail server has a password and no user", hint=_HINT)
    encrypted = parts.scheme == "smtps"
    plain = options.get("tls") == "none"
    if "tls" in options and (encrypted or not plain):
        raise UsageError("of the mail server's options, tls may only be none, and only with smtp://", hint=_HINT)
    if plain and not _is_loopback(parts.hostname) and (parts.password or options.get("password")):
        raise UsageError("a password would cross the network in the clear", hint="leave tls=none out")
    return MailServer(
        host=parts.hostname,
        port=port or (465 if encrypted else 587),
        encrypted=encrypted,
        starttls=not encrypted and not plain,
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        secret=options.get("password") or None,
        sender=sender,
        to=to,
    )


def _is_address(text: str) -> bool:
    name, at, host = text.rpartition("@")
    return bool(name and at and host) and text.isprintable() and not any(sign in text for sign in ' <>,;"()')


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
