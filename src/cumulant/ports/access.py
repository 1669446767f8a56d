"""Port `access`: whether a principal may do an action to a resource; every flow checks."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import msgspec

#: named as the policy where a token's scope refuses
SCOPE_POLICY = "token-scope"
Via = Literal["cli", "python", "http", "service"]


class Principal(msgspec.Struct, frozen=True):
    """Who acts: `user:ada`, `service:ci`. Policies use `groups` and `claims`.

    `tenant`: whose principal it is. `via`: what established the identity: `cli` (a command line), `python` (a program
    that uses the Python API), `http` (a caller of a server), `service` (a process of Cumulant, by its own schedule).
    `scope`: the only actions that its token is good for; None: all that the policies allow. `source`: the host or
    address that it acts from, and `trace`: of its request, for records only; empty: not known.
    """

    id: str
    groups: tuple[str, ...] = ()
    tenant: str = "default"
    claims: dict[str, str] = {}
    via: Via = "service"
    scope: tuple[str, ...] | None = None
    source: str = ""
    trace: str = ""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """What is acted on: a project, one of its models, or a prediction server; where it is, and labels for policies.

    Labels: `project`, `environment`, and `author` of the release that an approval is for.
    """

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


class RoleBinding(msgspec.Struct, frozen=True, kw_only=True):
    """What users and groups may do: the actions of a role, or single actions. `id` names it in decisions.

    `*` among the users is everybody, a caller without a name too. `projects`, `models`, `environments` and `regions`
    limit it; empty: no limit. With `models` it is for resources that are these models alone. A region includes its
    parts: `eu` includes `eu-central-1`.
    """

    id: str
    role: str | None = None
    actions: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()


def outside_scope(principal: Principal, action: str) -> Decision | None:
    """The refusal of an action that the principal's token is not good for; None where the policies decide."""
    if principal.scope is None or action in principal.scope:
        return None
    return Decision(allowed=False, policies=(SCOPE_POLICY,), hint=f"use a token whose scope includes {action}")


class Access(Protocol):
    def check(self, principal: Principal, action: str, resource: Resource) -> Decision:
        """Whether the principal may. Actions are declared in `flows.ledger.actions`.

        Prediction servers call it on their event loop and keep the decision for seconds: it decides from memory.
        """
        ...


@runtime_checkable
class PolicySource(Protocol):
    """A driver that decides by policies, which can be shown."""

    def policies(self) -> str:
        """The policies in force, as text in the driver's language."""
        ...

    def schema(self) -> str:
        """What policies can use: types, attributes and actions."""
        ...
