"""What a URL says of a Valkey."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from cumulant.core.errors import UsageError

_ENCRYPTED = {"valkeys", "rediss"}
#: options of a URL: files of the authorities that are trusted, and of the client's own certificate and its key
_FILES = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}
_HINT = "write valkey://HOST:PORT/DB, or rediss:// for an encrypted connection"


def settings_of(url: str, password: str | None) -> tuple[bool, dict[str, Any]]:
    """Whether the connection is encrypted, and what the client's connection is made with.

    Raises:
        UsageError: it is no such URL, or holds a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError as error:
        raise UsageError(f"the address of the cache is no URL: {error}", hint=_HINT) from None
    if parts.password:
        hint = "give it in the variable CUMULANT_CACHE_PASSWORD"
        raise UsageError("the address of the cache holds a password, which others can read there", hint=hint)
    database = parts.path.strip("/")
    if not parts.hostname or parts.fragment or not (database or "0").isdecimal():
        raise UsageError(f"{url} is no address of a cache", subject=url, hint=_HINT)
    found: dict[str, Any] = {"host": parts.hostname, "port": port, "db": int(database or "0")}
    found |= {"username": unquote(parts.username) if parts.username else None, "password": password}
    encrypted = parts.scheme in _ENCRYPTED
    if encrypted:
        found["ssl_check_hostname"] = True
    return encrypted, found | _files(url, parts.query, encrypted=encrypted)


def _files(url: str, query: str, *, encrypted: bool) -> dict[str, str]:
    found = dict(parse_qsl(query, keep_blank_values=True))
    unknown = [name for name in found if name not in _FILES or not encrypted]
    if unknown:
        hint = "rediss:// takes ca=FILE, cert=FILE and key=FILE; no other address takes options"
        raise UsageError(f'the address of the cache has an option "{unknown[0][:100]}"', subject=url, hint=hint)
    return {_FILES[name]: value for name, value in found.items()}
