"""Port `access`: whether a principal may act on a resource; every flow checks."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Principal(msgspec.Struct, frozen=True):
    """Who acts: `user:ada`, `service:ci`; `groups` for policies."""

    name: str
    groups: tuple[str, ...] = ()


class Access(Protocol):
    def check(self, principal: Principal, action: str, subject: str) -> None:
        """Return, or raise RefusedError with what is missing. Actions are declared in `flows.ledger.actions`."""
        ...
