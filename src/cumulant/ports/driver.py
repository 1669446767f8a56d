"""The door by which every driver enters: one light record an entry point in the group `cumulant.drivers`.

The record is importable without its engine; the client is imported on first use. Clients are made as
`Client(url)`, or `Client(url, secrets=...)` where the driver says that it needs credentials.
"""

from __future__ import annotations

import msgspec


class Driver(msgspec.Struct, frozen=True):
    """One technology, reached by the URL scheme that names its entry point.

    `clients` maps a port's name (`journal`, `tables`, `objects`, `files`, `online`, `registry`, `compute`,
    `secrets`, `access`, `cache`, `traffic`, `notifier`) to `module:Class`. `capabilities` maps a port's name to what
    the driver can do of the optional parts; what is missing is refused when a plan is made. `extra` installs the
    engine.
    """

    clients: dict[str, str]
    capabilities: dict[str, frozenset[str]] = {}
    extra: str | None = None
