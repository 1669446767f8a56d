"""The door by which every driver enters: one light record an entry point in the group `cumulant.drivers`.

The record is importable without its engine; the client is imported on first use. Clients are made as
`Client(url)`, with `secrets=...` where the client has such a parameter: it needs credentials then.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Driver(msgspec.Struct, frozen=True):
    """One technology, reached by the URL scheme that names its entry point.

    `clients` maps a port's name (`journal`, `tables`, `objects`, `files`, `online`, `registry`, `compute`,
    `secrets`, `access`, `cache`, `traffic`, `notifier`) to `module:Class`. `capabilities` maps a port's name to what
    the driver can do of the optional parts; what is missing is refused when a plan is made. `extra` installs the
    engine.

    `path` says that the URL's path is a file or a folder on this machine: a project takes a relative one from its own
    folder. `default_paths` maps a port's name to where a URL without a path (`envoy://`) leads, below the state of the
    project's environment. `embeds` maps a port's name to the scheme of the embedded driver whose clients of the same
    port this one keeps its copies in: its own client is made with `embedded=`, which makes one in a folder.
    """

    clients: dict[str, str]
    capabilities: dict[str, frozenset[str]] = {}
    extra: str | None = None
    path: Literal["file", "folder"] | None = None
    default_paths: dict[str, str] = {}
    embeds: dict[str, str] = {}
