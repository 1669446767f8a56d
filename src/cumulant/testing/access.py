"""Access by a list of grants, for tests of what is refused."""

from __future__ import annotations

from collections.abc import Collection

from cumulant.core.errors import RefusedError
from cumulant.ports.access import Principal


class GrantedAccess:
    """Allows the pairs `(principal's name, action)` in `grants`; `requests` holds every request."""

    def __init__(self, grants: Collection[tuple[str, str]] = ()) -> None:
        self._grants = frozenset(grants)
        self.requests: list[tuple[str, str, str]] = []

    def check(self, principal: Principal, action: str, subject: str) -> None:
        self.requests.append((principal.name, action, subject))
        if (principal.name, action) not in self._grants:
            raise RefusedError(
                f"{principal.name} may not do {action} to {subject}", subject=subject, hint=f"grant {action}"
            )
