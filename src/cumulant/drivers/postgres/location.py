"""The connection settings of a PostgreSQL URL."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from cumulant.core.errors import UsageError, did_you_mean

SCHEMA = "cumulant"
_SCHEMA_OPTION = "schema"
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,40}")
_HINT = (
    "write postgresql://USER:${secret:NAME}@HOST:PORT/DATABASE; options follow as ?sslmode=verify-full&sslrootcert=FILE"
)
#: a host that is gone without a word is noticed within half a minute
_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "fallback_application_name": "cumulant",
    "client_encoding": "utf8",
}


class DatabaseLocation(msgspec.Struct, frozen=True, kw_only=True):
    """Where a journal is: the settings of the connection, the schema of its tables, and its name without a password."""

    settings: dict[str, str]
    schema: str
    name: str


def parse_database_url(url: str) -> DatabaseLocation:
    """The settings that a URL names; every option of libpq is one, and `schema`.

    A connection to another machine is encrypted unless the URL says otherwise.

    Raises:
        UsageError: no URL of a database, or an option that is unknown.
    """
    base, _, query = url.partition("?")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        schema = options.pop(_SCHEMA_OPTION, SCHEMA)
        _check_options(options)
        given = conninfo_to_dict(f"{base}?{urlencode(options)}" if options else base)
    except (ValueError, psycopg.ProgrammingError):
        given = {}
    settings = {name: str(value) for name, value in given.items()}
    if not settings or not all(port.isdecimal() for port in settings.get("port", "0").split(",")):
        # The engine's words may contain the URL with its password.
        raise UsageError("the journal's URL is no address of a PostgreSQL database", subject="journal", hint=_HINT)
    if _NAME.fullmatch(schema) is None:
        raise UsageError(
            f'"{schema}" is no name of a schema: lower-case letters, digits and _', subject="journal", hint=_HINT
        )
    hosts = settings.get("host", "").split(",")
    defaults = dict(_DEFAULTS)
    if not all(map(_is_local, hosts)):
        defaults["sslmode"] = "require"
    where = f"{settings.get('host', 'the local socket')}{':' + settings['port'] if 'port' in settings else ''}"
    name = f"{where}/{settings.get('dbname', settings.get('user', ''))}"
    return DatabaseLocation(settings=defaults | settings, schema=schema, name=name)


def _check_options(options: Iterable[str]) -> None:
    """Raises UsageError: an option is unknown."""
    known = {option.keyword.decode() for option in Conninfo.get_defaults()} | {"ssl"}
    for name in options:
        if name not in known:
            raise UsageError(
                f'the URL of the journal has an unknown option "{name[:100]}"',
                subject="journal",
                hint=did_you_mean(name, {*known, _SCHEMA_OPTION}) or "write `schema`, or an option of libpq",
            )


def _is_local(host: str) -> bool:
    """Whether a host is this machine: a socket's folder, or an address of the loopback."""
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
