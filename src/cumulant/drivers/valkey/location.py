"""The connection settings of a Valkey URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.network.urls import check_secret_name

_ENCRYPTED = {"valkeys", "rediss"}
#: options of a URL: files of the authorities that are trusted, and of the client's own certificate and its key
_FILES = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}
_HINT = "write valkey://HOST:PORT/DB, or rediss:// for an encrypted connection"
_SECRET = "password"  # noqa: S105 - the name of an option


class ValkeyAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A server's address. `files` are arguments of the client's encrypted connection; `secret`: name of the password,
    None where the URL names none.
    """

    host: str
    port: int
    database: int
    user: str | None
    encrypted: bool
    files: dict[str, str]
    secret: str | None = None

    def settings(self, password: str | None) -> dict[str, Any]:
        """The arguments of the client's connection."""
        settings: dict[str, Any] = {"host": self.host, "port": self.port, "db": self.database}
        settings |= {"username": self.user, "password": password}
        return settings | ({"ssl_check_hostname": True, **self.files} if self.encrypted else {})

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_cache_url(url: str, password: str | None) -> tuple[bool, dict[str, Any]]:
    """Whether the connection is encrypted, and the arguments of the client's connection.

    Raises:
        UsageError: the URL is invalid, or contains a password.
    """
    hint = "give it in the variable CUMULANT_CACHE_PASSWORD"
    address = parse_address(url, holds="cache", hint=hint)
    return address.encrypted, address.settings(password)


def parse_online_url(url: str) -> ValkeyAddress:
    """`valkey://[USER@]HOST[:PORT][/DB][?password=SECRET]`; `rediss://` also takes `ca`, `cert` and `key`.

    Raises:
        UsageError: the URL is invalid, or contains a password.
    """
    hint = "write ?password=NAME, where NAME is a secret"
    address = parse_address(url, holds="online store", hint=hint, options=(_SECRET,))
    check_secret_name(address.secret, _SECRET)
    for file in address.files.values():
        if not Path(file).is_file():
            raise UsageError("a file that the address of the online store names does not exist", subject=file)
    return address


def parse_address(url: str, *, holds: str, hint: str, options: tuple[str, ...] = ()) -> ValkeyAddress:
    """The address in a URL of what `holds` names; `hint` says where a password is written.

    Raises:
        UsageError: the URL is invalid, or contains a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError as error:
        raise UsageError(f"the address of the {holds} is no URL: {error}", hint=_HINT) from None
    if parts.password:
        raise UsageError(f"the address of the {holds} holds a password, which others can read there", hint=hint)
    database = parts.path.strip("/")
    if not parts.hostname or parts.fragment or not (database or "0").isdecimal():
        raise UsageError(f"{url} is no address of {_with_article(holds)}", subject=url, hint=_HINT)
    encrypted = parts.scheme in _ENCRYPTED
    values = dict(parse_qsl(parts.query, keep_blank_values=True))
    allowed = {*options, *(_FILES if encrypted else ())}
    if unknown := [name for name in values if name not in allowed]:
        takes = "rediss:// takes ca=FILE, cert=FILE and key=FILE; no other address takes options"
        if options:
            takes = f"an address takes {', '.join(options)}; rediss:// also ca=FILE, cert=FILE and key=FILE"
        message = f'the address of the {holds} has an option "{unknown[0][:100]}"'
        raise UsageError(message, subject=url, hint=takes)
    return ValkeyAddress(
        host=parts.hostname,
        port=port,
        database=int(database or "0"),
        user=unquote(parts.username) if parts.username else None,
        encrypted=encrypted,
        files={_FILES[name]: value for name, value in values.items() if name in _FILES},
        secret=values.get(_SECRET) or None,
    )


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
