"""The record of Flink. Importing this loads no client."""

from __future__ import annotations

from cumulant.ports.driver import Driver

gateway = Driver(clients={"stream_engine": "cumulant.drivers.flink.engine:FlinkEngine"}, extra="console")
