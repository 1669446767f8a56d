"""Port `access`: whether a principal may do an action to a resource; every flow checks."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Principal(msgspec.Struct, frozen=True):
    """Who acts: `user:ada`, `service:ci`. Policies use `groups` and `claims`; `via`: what established the identity."""

    id: str
    groups: tuple[str, ...] = ()
    tenant: str = "default"
    claims: dict[str, str] = {}
    via: str = "local"


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """What is acted on: a project, or one of its models; where it is, and labels for policies."""

    kind: str
    name: str
    tenant: str = "default"
    region: str = "local"
    labels: dict[str, str] = {}


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of an access driver. `policies`: the ids of the policies that decided; `hint`: what would allow it."""

    allowed: bool
    policies: tuple[str, ...] = ()
    hint: str | None = None


class Access(Protocol):
    def check(self, principal: Principal, action: str, resource: Resource) -> Decision:
        """Whether the principal may. Actions are declared in `flows.ledger.actions`."""
        ...
