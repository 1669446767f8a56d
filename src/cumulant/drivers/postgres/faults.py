"""The error that a fault of the database server becomes."""

from __future__ import annotations

import psycopg

from cumulant.core.errors import CumulantError, EngineUnavailableError, StorageError, UsageError
from cumulant.core.network.postgresql import detail, unreachable

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
        return StorageError(f"{problem} ({detail(error)})", subject=where, hint=hint)
    if not code and isinstance(error, psycopg.DataError):  # a NUL, which the client refuses to send
        return UsageError(f"the journal cannot hold this text: {detail(error)}", subject=where)
    if not code or code.startswith(_LATER):
        return unreachable(error, where=where, subject="journal")
    return StorageError(f"the journal cannot be used ({detail(error)})", subject=where, hint="see the server's log")
