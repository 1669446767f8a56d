"""The connection settings of a Valkey URL."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from cumulant.core.errors import UsageError

_ENCRYPTED = {"valkeys", "rediss"}
#: options of a URL: files of the authorities that are trusted, and of the client's own certificate and its key
_FILES = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}
_HINT = "write valkey://HOST:PORT/DB, or rediss:// for an encrypted connection"


def parse_cache_url(url: str, password: str | None) -> tuple[bool, dict[str, Any]]:
    """Whether the connection is encrypted, and the arguments of the client's connection.

    Raises:
        UsageError: the URL is invalid, or contains a password.
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
    settings: dict[str, Any] = {"host": parts.hostname, "port": port, "db": int(database or "0")}
    settings |= {"username": unquote(parts.username) if parts.username else None, "password": password}
    encrypted = parts.scheme in _ENCRYPTED
    if encrypted:
        settings["ssl_check_hostname"] = True
    return encrypted, settings | _certificate_files(url, parts.query, encrypted=encrypted)


def _certificate_files(url: str, query: str, *, encrypted: bool) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = [name for name in options if name not in _FILES or not encrypted]
    if unknown:
        hint = "rediss:// takes ca=FILE, cert=FILE and key=FILE; no other address takes options"
        raise UsageError(f'the address of the cache has an option "{unknown[0][:100]}"', subject=url, hint=hint)
    return {_FILES[name]: value for name, value in options.items()}
