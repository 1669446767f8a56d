"""Which policies can concern a request, by principal, groups, action, project and environment alone.

Cedar evaluates every policy of a set, some 2 µs each. A policy whose scope (the part in parentheses) names another
principal or action, or whose binding is limited to another project or environment, is not satisfied whatever else the
resource is, so a set without it gives the same decision.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, NamedTuple

from cumulant.core.roles import ROLES, ROLES_OF, actions_of
from cumulant.drivers.cedar.binding_policies import CedarPolicy


class _Key(NamedTuple):
    """What a policy is for; None: any. `subject`: type and id of an entity."""

    subject: tuple[str, str] | None
    project: str | None
    environment: str | None


class PolicyIndex:
    """Ids of policies by what they can concern."""

    def __init__(self, policies: Mapping[str, CedarPolicy]) -> None:
        self._ids: dict[str, dict[_Key, list[str]]] = {action: defaultdict(list) for action in ROLES_OF}
        for name, policy in policies.items():
            subject = _subject(policy.scope["principal"])
            places = list(product(policy.projects or (None,), policy.environments or (None,)))
            for action in _actions(policy.scope["action"]):
                for place in places:
                    self._ids[action][_Key(subject, *place)].append(name)

    def matching(
        self, principal: str, groups: Iterable[str], action: str, *, project: str, environment: str
    ) -> tuple[str, ...]:
        """The ids of the policies that can concern the request."""
        known = self._ids.get(action)
        if not known:
            return ()
        subjects = dict.fromkeys((None, ("Principal", principal), *(("Group", group) for group in groups)))
        keys = map(_Key._make, product(subjects, (None, project), (None, environment)))
        return tuple(name for key in keys for name in known.get(key, ()))


def _subject(scope: Mapping[str, Any]) -> tuple[str, str] | None:
    """Whom the scope of a policy names."""
    entity = scope.get("entity") or scope.get("in", {}).get("entity")
    return None if entity is None else (entity["type"], entity["id"])


def _actions(scope: Mapping[str, Any]) -> set[str]:
    """The actions that the scope of a policy names; of a role, its actions."""
    entities = [scope["entity"]] if "entity" in scope else scope.get("entities")
    if entities is None:
        return set(ROLES_OF)
    names = {entity["id"] for entity in entities}
    of_roles = {action for name in names & set(ROLES) for action in actions_of(name)}
    return of_roles | names & set(ROLES_OF)
