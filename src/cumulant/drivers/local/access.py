"""Access without restrictions, for a single-user machine."""

from __future__ import annotations

from cumulant.ports.access import Decision, Principal, Resource


class OpenAccess:
    """`open://`: allows every action; the events still record each one."""

    def __init__(self, url: str = "open://") -> None:
        self.url = url

    def check(self, principal: Principal, action: str, resource: Resource) -> Decision:  # noqa: ARG002 - the port's
        return Decision(allowed=True)
