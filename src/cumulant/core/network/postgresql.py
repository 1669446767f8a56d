"""The connection settings of a PostgreSQL URL, and the error of a connection that fails: of all drivers that use one.

Importing this loads psycopg. The words of libpq may contain the URL with its password, so that they are not shown where
a URL cannot be read.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from cumulant.core.errors import CredentialsError, CumulantError, EngineUnavailableError, UsageError, did_you_mean

_SCHEMA_OPTION = "schema"
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,40}")
_OPTION = re.compile(r"[A-Za-z_]{1,40}")
_MOST_PORT = 65_535
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
_DETAIL = 200
#: what a server that answers refuses with, in any language: the severity is not translated in the protocol's text; and
#: a value of an option that libpq refuses
_REFUSED = re.compile(
    r"FATAL|password|authentication|certificate|SSL|role|fe_sendauth|invalid [\w ]*value", re.IGNORECASE
)
_CREDENTIALS = re.compile(r"password|authentication|pg_hba|role", re.IGNORECASE)
_PASSING = re.compile(
    r"starting up|shutting down|too many|in recovery|not yet accepting|remaining connection", re.IGNORECASE
)


class DatabaseLocation(msgspec.Struct, frozen=True, kw_only=True):
    """Where tables are: the settings of the connection, their schema, and the name without a password; `extra` are
    options of the driver's own.
    """

    settings: dict[str, str]
    schema: str
    name: str
    extra: dict[str, str] = {}


def parse_location(url: str, *, subject: str, schema: str, hint: str, extra: Iterable[str] = ()) -> DatabaseLocation:
    """The settings that a URL names. Its options are libpq's, `schema` and those of `extra`.

    A connection to another machine is encrypted unless the URL says otherwise. `subject` (what is in the database, such
    as `journal`) and `hint` (how to write the URL) are for errors; `schema` is the default.

    Raises:
        UsageError: no URL of a database, or an option that is unknown.
    """
    base, _, query = url.partition("?")
    own: dict[str, str] = {}
    try:
        # `+` is itself to libpq, not a space.
        options = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=bool(query)))
        schema = options.pop(_SCHEMA_OPTION, schema)
        own = {name: options.pop(name) for name in extra if name in options}
        _check_options(options, subject, [_SCHEMA_OPTION, *extra])
        given = conninfo_to_dict(f"{base}?{urlencode(options, quote_via=quote)}" if options else base)
    except (ValueError, psycopg.ProgrammingError):
        given = {}
    settings = {name: str(value) for name, value in given.items()}
    # Of a password that is not encoded, libpq takes what follows `/` for the database.
    if not settings or "@" in base.partition("://")[2].partition("/")[2] or not _is_address(settings):
        raise UsageError(
            f"the {subject}'s URL is no address of a PostgreSQL database; in a user or password, write %40 for @, "
            "%2F for /, %3F for ? and %25 for %",
            subject=subject,
            hint=hint,
        )
    if _NAME.fullmatch(schema) is None:
        raise UsageError(
            f'"{schema[:100]}" is no name of a schema: lower-case letters, digits and _', subject=subject, hint=hint
        )
    hosts = settings.get("host", "").split(",")
    defaults = dict(_DEFAULTS)
    if not all(map(_is_local, hosts)):
        defaults["sslmode"] = "require"
    where = f"{settings.get('host', 'the local socket')}{':' + settings['port'] if 'port' in settings else ''}"
    name = f"{where}/{settings.get('dbname', settings.get('user', ''))}"
    return DatabaseLocation(settings=defaults | settings, schema=schema, name=name, extra=own)


def _is_address(settings: Mapping[str, str]) -> bool:
    """Whether hosts and ports can be some: libpq takes the rest of a password after its `@` for a host."""
    ports = settings.get("port", "1").split(",")
    hosts = settings.get("host", "").split(",")
    return all(
        port == "" or (port.isdecimal() and len(port) < 6 and 0 < int(port) <= _MOST_PORT) for port in ports
    ) and not any("@" in host[1:] and host[0] != "/" for host in hosts)


def _check_options(options: Iterable[str], subject: str, more: Iterable[str]) -> None:
    """Raises UsageError: an option is unknown."""
    known = {option.keyword.decode() for option in Conninfo.get_defaults()} | {"ssl"}
    for name in options:
        if _OPTION.fullmatch(name) is None:
            raise ValueError("a part of a password, of which nothing is shown")
        if name not in known:
            raise UsageError(
                f'the URL of the {subject} has an unknown option "{name}"',
                subject=subject,
                hint=did_you_mean(name, {*known, *more}) or "write `schema`, or an option of libpq",
            )


def _is_local(host: str) -> bool:
    """Whether a host is this machine: a socket's folder, or an address of the loopback."""
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def explain_connection(error: psycopg.Error, *, where: str, subject: str) -> CumulantError:
    """The error of a connection that cannot be made: UsageError where trying again does not help."""
    text = str(error)
    if _REFUSED.search(text) and not _PASSING.search(text):
        kind = CredentialsError if _CREDENTIALS.search(text) else UsageError
        return kind(
            f"the {subject}'s server refuses the connection ({detail(error)})",
            subject=where,
            hint="check user, password, database and TLS options of the URL: "
            "postgresql://USER:${secret:NAME}@HOST/DATABASE?sslmode=verify-full&sslrootcert=FILE",
        )
    return unreachable(error, where=where, subject=subject)


def unreachable(error: psycopg.Error, *, where: str, subject: str) -> EngineUnavailableError:
    return EngineUnavailableError(
        f"the {subject}'s server does not answer ({detail(error)})",
        subject=where,
        hint="start the server, or check host and port; then run the same command again: finished steps are reused",
    )


def detail(error: psycopg.Error) -> str:
    """The first line of the engine's words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:_DETAIL]
