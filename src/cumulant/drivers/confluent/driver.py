"""The record of schema registries. Importing this loads no engine."""

from __future__ import annotations

from cumulant.ports.driver import Driver

registry = Driver(
    clients={"schemas": "cumulant.drivers.confluent.registry:ConfluentSchemas"},
    capabilities={"schemas": frozenset({"hosts"})},
    extra="schemas",
)
