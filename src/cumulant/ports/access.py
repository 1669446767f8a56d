"""Port `access`: whether a principal may do an action to a resource; every flow checks."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

Via = Literal["cli", "python", "http", "service"]


class Principal(msgspec.Struct, frozen=True):
    """Who acts: `user:ada`, `service:ci`. Policies use `groups` and `claims`.

    `tenant`: whose principal it is. `via`: what established the identity: `cli` (a command line), `python` (a program
    that uses the Python API), `http` (a caller of a server), `service` (a process of Cumulant).
    """

    id: str
    groups: tuple[str, ...] = ()
    tenant: str = "default"
    claims: dict[str, str] = {}
    via: Via = "service"


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """What is acted on: a project, one of its models, or a prediction server; where it is, and labels for policies."""

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
        """Whether the principal may. Actions are declared in `flows.ledger.actions`.

        Prediction servers call it on their event loop and keep the decision for seconds: it decides from memory.
        """
        ...
