"""The connection settings of a journal's URL."""

from __future__ import annotations

from cumulant.core.network.postgresql import DatabaseLocation, parse_location

SCHEMA = "cumulant"
_HINT = (
    "write postgresql://USER:${secret:NAME}@HOST:PORT/DATABASE; options follow as ?sslmode=verify-full&sslrootcert=FILE"
)


def parse_database_url(url: str) -> DatabaseLocation:
    """The settings that a URL names.

    Raises:
        UsageError: no URL of a database, or an option that is unknown.
    """
    return parse_location(url, subject="journal", schema=SCHEMA, hint=_HINT)
