"""Who may do what in a project, and by which policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import UsageError, not_found
from cumulant.core.roles import ROLES, ROLES_OF
from cumulant.flows.ledger.actions import ACTIONS, resource_of, verb
from cumulant.ports.access import PolicySource, Principal, RoleBinding

if TYPE_CHECKING:
    from cumulant.project.project import Project


class AccessDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What the access driver decides. `roles`: those that have the action."""

    principal: str
    action: str
    resource: str
    allowed: bool
    policies: tuple[str, ...]
    roles: tuple[str, ...]
    hint: str | None = None


class ActionRoles(msgspec.Struct, frozen=True, kw_only=True):
    """An action and the roles that have it."""

    action: str
    text: str
    writes: bool
    roles: tuple[str, ...]


class AccessRules(msgspec.Struct, frozen=True, kw_only=True):
    """The roles, their actions, and who has which role in this environment. `driver`: of the environment's `access`."""

    driver: str
    roles: dict[str, str]
    actions: tuple[ActionRoles, ...]
    bindings: tuple[RoleBinding, ...]


@verb("access.show")
def show_rules(project: Project, *, principal: Principal) -> AccessRules:
    """The roles and their actions, and the bindings of the project file."""
    actions = tuple(
        ActionRoles(action=name, text=ACTIONS[name].text, writes=ACTIONS[name].writes, roles=roles)
        for name, roles in ROLES_OF.items()
    )
    return AccessRules(
        driver=f"{project.endpoints.access.partition('://')[0]}://",
        roles={str(role): text for role, text in ROLES.items()},
        actions=actions,
        bindings=project.policies.bindings,
    )


@verb("access.show")
def decide_access(
    project: Project,
    subject: str,
    action: str,
    *,
    principal: Principal,
    groups: Sequence[str] = (),
    model: str | None = None,
) -> AccessDecision:
    """Whether the principal `subject` of these groups may do an action to the project, or to a model of it.

    Raises:
        NotFoundError: no such action is declared.
    """
    if action not in ACTIONS:
        raise not_found("action", action, ACTIONS)
    return _decision(project, _subject(project, subject, groups), action, model)


@verb("access.show")
def explain_access(
    project: Project, subject: str, *, principal: Principal, groups: Sequence[str] = (), model: str | None = None
) -> tuple[AccessDecision, ...]:
    """Every action, and whether the principal `subject` of these groups may do it."""
    who = _subject(project, subject, groups)
    return tuple(_decision(project, who, action, model) for action in ACTIONS)


@verb("access.show")
def policy_text(project: Project, *, principal: Principal, schema: bool = False) -> str:
    """The policies in force as text, or what they can use.

    Raises:
        UsageError: the environment's driver has no policies.
    """
    access = project.access()
    if not isinstance(access, PolicySource):
        scheme = project.endpoints.access.partition("://")[0]
        raise UsageError(f"{scheme}:// has no policies", subject="access", hint="`access: cedar://` decides by roles")
    return access.schema() if schema else access.policies()


def _subject(project: Project, name: str, groups: Sequence[str]) -> Principal:
    """A principal as an identity would make it; its claims are not known here."""
    named = name if ":" in name or name == "anonymous" else f"user:{name}"
    return Principal(named, tuple(groups), tenant=project.scope.tenant, via="http")


def _decision(project: Project, subject: Principal, action: str, model: str | None) -> AccessDecision:
    resource = resource_of(project, model)
    decision = project.access().check(subject, action, resource)
    return AccessDecision(
        principal=subject.id,
        action=action,
        resource=f"{resource.kind} {resource.name}",
        allowed=decision.allowed,
        policies=decision.policies,
        roles=ROLES_OF.get(action, ()),
        hint=decision.hint,
    )
