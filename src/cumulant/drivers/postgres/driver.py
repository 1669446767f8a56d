"""The record of PostgreSQL. Importing this loads no engine."""

from __future__ import annotations

from cumulant.ports.driver import Driver

server = Driver(
    clients={"journal": "cumulant.drivers.postgres.journal:PostgresJournal"},
    capabilities={"journal": frozenset({"processes", "chain", "hosts"})},
    extra="postgres",
    own_backup="`pg_dump --format=custom --schema=cumulant --file=journal.dump DATABASE`",
)
