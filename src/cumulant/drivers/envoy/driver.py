"""The record of the driver. Importing this loads no engine."""

from __future__ import annotations

from cumulant.ports.driver import Driver

gateway = Driver(
    clients={"traffic": "cumulant.drivers.envoy.client:EnvoyTraffic"},
    extra="release",
    path="folder",
    default_paths={"traffic": "gateway"},
    options={"traffic": frozenset()},
    stored={"traffic": {"{name}/state.json": "file", "{name}/exchanges": "folder"}},
)
