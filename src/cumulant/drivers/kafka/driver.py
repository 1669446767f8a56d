"""The record of Kafka. Importing this loads no engine."""

from __future__ import annotations

from cumulant.ports.driver import Driver

broker = Driver(
    clients={"streams": "cumulant.drivers.kafka.streams:KafkaStreams"},
    capabilities={"streams": frozenset({"hosts"})},
    extra="kafka",
)
