"""Who may do what: roles, decisions with the policies behind them, the policies themselves."""

from __future__ import annotations

import msgspec

from cumulant.flows.access.explain import (
    AccessDecision,
    AccessRules,
    decide_access,
    explain_access,
    policy_text,
    show_rules,
)
from cumulant.server.operation import ApiCall, get


@get("/access/roles", action="access.show")
def roles(call: ApiCall) -> AccessRules:
    """Show the roles, their actions, and who has which role."""
    return show_rules(call.project, principal=call.principal)


class CheckQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`subject`: a principal, such as `user:ada`; `group`: its groups; `model`: to that model, not to the project."""

    subject: str
    action: str
    group: tuple[str, ...] = ()
    model: str = ""


@get("/access/check", action="access.show")
def check(call: ApiCall, query: CheckQuery) -> AccessDecision:
    """Show whether a principal may do an action, and the policies that decide."""
    return decide_access(
        call.project,
        query.subject,
        query.action,
        principal=call.principal,
        groups=query.group,
        model=query.model or None,
    )


class ExplainQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As the query of a check, of all actions."""

    subject: str
    group: tuple[str, ...] = ()
    model: str = ""


@get("/access/explanation", action="access.show")
def explain(call: ApiCall, query: ExplainQuery) -> list[AccessDecision]:
    """Show for every action whether a principal may do it, and by which policies."""
    return list(
        explain_access(
            call.project, query.subject, principal=call.principal, groups=query.group, model=query.model or None
        )
    )


class PolicyQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`schema`: what policies can use, instead of the policies."""

    schema: bool = False


class AccessPolicies(msgspec.Struct, frozen=True):
    text: str


@get("/access/policies", action="access.show")
def policies(call: ApiCall, query: PolicyQuery) -> AccessPolicies:
    """Show the Cedar policies in force, or their schema."""
    return AccessPolicies(policy_text(call.project, principal=call.principal, schema=query.schema))


OPERATIONS = (roles, check, explain, policies)
