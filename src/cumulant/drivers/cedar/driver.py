"""The record of the driver. Importing this loads nothing else."""

from __future__ import annotations

from cumulant.ports.driver import Driver

#: `cedar://`: the bindings of the project file; `cedar://FOLDER`: and the policies in the folder's `.cedar` files
policies = Driver(
    clients={"access": "cumulant.drivers.cedar.access:CedarAccess"},
    extra="cedar",
    path="folder",
    options={"access": frozenset()},
)
