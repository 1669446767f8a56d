"""Access without restrictions, for a single-user machine."""

from __future__ import annotations

from cumulant.ports.access import Principal


class OpenAccess:
    """`open://`: allows every action; the events still record each one."""

    def __init__(self, url: str = "open://") -> None:
        self.url = url

    def check(self, principal: Principal, action: str, subject: str) -> None:
        """Return for every principal, action and subject."""
