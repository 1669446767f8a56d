"""The record of topics in a folder. Importing this loads no engine."""

from __future__ import annotations

from cumulant.ports.driver import Driver

folder = Driver(
    clients={"streams": "cumulant.drivers.folder.streams:FolderStreams"},
    path="folder",
    default_paths={"streams": "streams"},
    options={"streams": frozenset()},
)
