"""Port `deploy`: servers of versions, wherever they run.

A version is described by what every machine can read (`objects`, the online store), never by a folder or a port: where
a server lies and listens is decided where it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

#: the argument that names the online table with a version's stored features
STATE_TABLE = "state_table"


class ServedSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version that is to be served."""

    version: str
    #: the servable's key in `objects`; empty: the registry has its files
    servable: str = ""
    #: what its servers get beside the settings of the project file, such as `STATE_TABLE`
    arguments: dict[str, str] = {}


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """One server as the machine that runs it reports it."""

    version: str
    #: base URL at which the gateways reach it
    endpoint: str
    ready: bool
    #: name of its machine
    host: str
    #: arguments of the spec that it was started with
    arguments: dict[str, str] = {}
    #: ends of its process in the last minute
    restarts: int = 0


class Deploy(Protocol):
    def ensure(self, model: str, specs: Sequence[ServedSpec]) -> None:
        """Make these versions known, so that their servers start when they are wanted; returns before they are ready.

        Raises:
            CumulantError: a spec cannot be stored or followed.
        """
        ...

    def present(self, model: str) -> Sequence[ServerState]:
        """The servers that are known to run, or are about to.

        Raises:
            CumulantError: their states cannot be read.
        """
        ...
