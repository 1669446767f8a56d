"""The record of Kinesis. Importing this loads no engine."""

from __future__ import annotations

from cumulant.ports.driver import Driver

streams = Driver(
    clients={"streams": "cumulant.drivers.kinesis.streams:KinesisStreams"},
    capabilities={"streams": frozenset({"hosts"})},
    options={"streams": frozenset({"endpoint"})},
    extra="kinesis",
)
