"""Access by a list of grants, for tests of what is refused."""

from __future__ import annotations

from collections.abc import Collection

from cumulant.ports.access import Decision, Principal, Resource


class GrantedAccess:
    """Allows the pairs `(principal's id, action)` in `grants`; `requests` has every request."""

    def __init__(self, grants: Collection[tuple[str, str]] = ()) -> None:
        self._grants = frozenset(grants)
        self.requests: list[tuple[str, str, str]] = []

    def check(self, principal: Principal, action: str, resource: Resource) -> Decision:
        self.requests.append((principal.id, action, resource.name))
        return Decision(allowed=(principal.id, action) in self._grants, policies=("grants",), hint=f"grant {action}")
