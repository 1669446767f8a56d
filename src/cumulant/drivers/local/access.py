"""Access on a machine of one's own: every principal may do everything."""

from __future__ import annotations

from cumulant.ports.access import Principal


class OpenAccess:
    """`open://`: allows all. What was done is in the event chain all the same."""

    def __init__(self, url: str = "open://") -> None:
        self.url = url

    def check(self, principal: Principal, action: str, subject: str) -> None:
        """Return always."""
