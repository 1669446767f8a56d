"""The error that a fault of the database server becomes."""

from __future__ import annotations

import re

import psycopg

from cumulant.core.errors import CredentialsError, CumulantError, EngineUnavailableError, StorageError, UsageError

_LOCKED = "55P03"
#: what the server refuses, by the code of SQLSTATE: what is wrong, and what to do
_REFUSALS = {
    "53100": ("the disk of the journal's server is full", "free some space there"),
    "42501": (
        "the role may not do this in the journal's database",
        "let it own the database, or grant it the schema: GRANT ALL ON SCHEMA cumulant TO ROLE",
    ),
    "25006": (
        "the journal's server can be read but not written",
        "a standby? Name all servers and add ?target_session_attrs=read-write to the URL",
    ),
    "XX001": ("the journal is damaged and cannot be read", "restore it from a dump"),
    "XX002": ("the journal is damaged and cannot be read", "restore it from a dump"),
}
#: of faults after which trying again may help, how the code begins
_LATER = ("08", "40", "53", "57", "25P03")
_DETAIL = 200
#: what a server that answers refuses with, in any language: the severity is not translated in the protocol's text
_REFUSED = re.compile(r"FATAL|password|authentication|certificate|SSL|role|fe_sendauth", re.IGNORECASE)
_CREDENTIALS = re.compile(r"password|authentication|pg_hba|role", re.IGNORECASE)
_PASSING = re.compile(
    r"starting up|shutting down|too many|in recovery|not yet accepting|remaining connection", re.IGNORECASE
)


def explain(error: psycopg.Error, *, where: str, wait: float) -> CumulantError:
    """The error of a statement that the server refused, or that lost its server."""
    code = error.sqlstate or ""
    if code == _LOCKED:
        return EngineUnavailableError(
            f"the journal is busy: another process has been writing for {wait:g} s",
            subject=where,
            hint="try again; if nothing else runs, look for a stopped process: SELECT * FROM pg_stat_activity",
        )
    if code in _REFUSALS:
        problem, hint = _REFUSALS[code]
        return StorageError(f"{problem} ({_detail(error)})", subject=where, hint=hint)
    if not code or code.startswith(_LATER):
        return unreachable(error, where=where)
    return StorageError(f"the journal cannot be used ({_detail(error)})", subject=where, hint="see the server's log")


def explain_connection(error: psycopg.Error, *, where: str) -> CumulantError:
    """The error of a connection that cannot be made: UsageError where trying again does not help."""
    text = str(error)
    if _REFUSED.search(text) and not _PASSING.search(text):
        kind = CredentialsError if _CREDENTIALS.search(text) else UsageError
        return kind(
            f"the journal's server refuses the connection ({_detail(error)})",
            subject=where,
            hint="check user, password, database and TLS options of the URL: "
            "postgresql://USER:${secret:NAME}@HOST/DATABASE?sslmode=verify-full&sslrootcert=FILE",
        )
    return unreachable(error, where=where)


def unreachable(error: psycopg.Error, *, where: str) -> EngineUnavailableError:
    return EngineUnavailableError(
        f"the journal's server does not answer ({_detail(error)})",
        subject=where,
        hint="start the server, or check host and port; then run the same command again: finished steps are reused",
    )


def _detail(error: psycopg.Error) -> str:
    """The first line of the engine's words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:_DETAIL]
