"""What machines of `deploy: hosts://` report when it changes: what they serve and where, never requests."""

from __future__ import annotations

from typing import ClassVar

from cumulant.core.events import Fact


class HostChanged(Fact, frozen=True, kw_only=True):
    """A machine runs with these roles, and its ready servers are these: `VERSION at URL`."""

    kind: ClassVar[str] = "deployment.host_changed"
    host: str
    roles: tuple[str, ...]
    servers: tuple[str, ...]


class HostRemoved(Fact, frozen=True, kw_only=True):
    """A machine reports no more. `lost`: others noticed, by reports that did not come; else it has ended."""

    kind: ClassVar[str] = "deployment.host_removed"
    host: str
    lost: bool
