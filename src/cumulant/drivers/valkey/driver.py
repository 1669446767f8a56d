"""The record of Valkey. Importing this loads no engine."""

from __future__ import annotations

from cumulant.ports.driver import Driver

_HERE = "cumulant.drivers.valkey"

server = Driver(
    clients={"cache": f"{_HERE}.cache:ValkeyCache", "online": f"{_HERE}.online:ValkeyOnline"},
    capabilities={"online": frozenset({"swap", "processes", "hosts"})},
    extra="valkey",
)
