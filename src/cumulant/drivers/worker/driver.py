"""The record of the workers' driver. Importing this loads no engine."""

from __future__ import annotations

from cumulant.ports.driver import Driver

worker = Driver(
    clients={"compute": "cumulant.drivers.worker.compute:WorkerCompute"},
    capabilities={"compute": frozenset({"isolated", "hosts", "resources"})},
)
