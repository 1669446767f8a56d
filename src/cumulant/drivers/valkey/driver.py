"""The record of Valkey. Importing this loads no engine."""

from __future__ import annotations

from cumulant.ports.driver import Driver

server = Driver(clients={"cache": "cumulant.drivers.valkey.cache:ValkeyCache"}, extra="valkey")
