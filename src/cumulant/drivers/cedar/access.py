"""The client: a decision by the policies of bindings and files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cedarpy

from cumulant.core.roles import ROLES, ROLES_OF
from cumulant.drivers.cedar.binding_policies import CedarPolicy, binding_policies, policy_text
from cumulant.drivers.cedar.policy_files import read_policies
from cumulant.drivers.cedar.policy_index import PolicyIndex
from cumulant.drivers.cedar.schema import schema_text
from cumulant.ports.access import Decision, Principal, Resource, RoleBinding

#: sets of policies that are kept parsed, by what can concern a request
_SETS = 512


class CedarAccess:
    """`cedar://` or `cedar://FOLDER`: allows what a policy permits and none forbids; nothing by default.

    Policies are read once, when the client is made.

    Raises:
        UsageError: the folder has no policies or faulty ones.
    """

    def __init__(self, url: str = "cedar://", *, bindings: Sequence[RoleBinding] = ()) -> None:
        folder = url.partition("://")[2]
        self._policies: dict[str, CedarPolicy] = binding_policies(bindings)
        if folder:
            self._policies |= read_policies(Path(folder).expanduser())
        self._index = PolicyIndex(self._policies)
        self._set = lru_cache(_SETS)(self._link)
        self._parsed = lru_cache(_SETS)(_parse)

    def check(self, principal: Principal, action: str, resource: Resource) -> Decision:
        names = self._index.matching(
            principal.id,
            principal.groups,
            action,
            project=resource.labels.get("project", ""),
            environment=resource.labels.get("environment", ""),
        )
        if not names:
            return Decision(allowed=False, hint=_hint(action, ()))
        request = {
            "principal": _uid("Principal", principal.id),
            "action": _uid("Action", action),
            "resource": _uid(resource.kind.capitalize(), resource.name),
        }
        entities = json.dumps(_entities(principal, action, resource))
        try:
            policies, ids = self._set(names)
            result = cedarpy.is_authorized(request, policies, entities)
        except UnicodeEncodeError:  # half a character, from a variable or a token
            return Decision(allowed=False, hint="names of principals and resources have to be text")
        diagnostics = result.diagnostics
        reasons = tuple(sorted(ids[reason] for reason in diagnostics.reasons))
        # Cedar leaves a policy out that cannot be evaluated; it may be one that forbids.
        if result.allowed and not diagnostics.errors:
            return Decision(allowed=True, policies=reasons)
        if diagnostics.errors:
            return Decision(allowed=False, policies=reasons, hint=f"a policy failed: {diagnostics.errors[0]}")
        return Decision(allowed=False, policies=reasons, hint=_hint(action, reasons))

    def policies(self) -> str:
        """The policies in force, as Cedar's text."""
        return "\n".join(f"// {name!r}\n{policy_text(policy).strip()}\n" for name, policy in self._policies.items())

    def schema(self) -> str:
        """The schema that policies of files are checked against."""
        return schema_text()

    def _link(self, names: tuple[str, ...]) -> _LinkedSet:
        """The set of these policies: those of files are parsed, those of bindings are links of templates."""
        plain = [name for name in names if not self._policies[name].template]
        linked = [name for name in names if self._policies[name].template]
        templates = tuple(dict.fromkeys(self._policies[name].template for name in linked))
        policies = self._parsed(tuple(self._policies[name].text for name in plain), templates)
        ids = {f"policy{place}": name for place, name in enumerate(plain)}
        if linked:
            places = {template: f"template{place}" for place, template in enumerate(templates)}
            policies = policies.with_linked_batch(
                [
                    {
                        "template_id": places[self._policies[name].template],
                        "new_id": f"link{number}",
                        "values": {"?principal": dict(self._policies[name].slot)},
                    }
                    for number, name in enumerate(linked)
                ]
            )
            ids |= {f"link{number}": name for number, name in enumerate(linked)}
        return _LinkedSet(policies, ids)


class _LinkedSet(NamedTuple):
    """A set of policies, and what Cedar's ids stand for."""

    policies: cedarpy.PolicySet
    ids: Mapping[str, str]


def _parse(texts: tuple[str, ...], templates: tuple[str, ...]) -> cedarpy.PolicySet:
    """The set of these policies, `policy0`, `policy1`, ... in their order, and templates, `template0`, ..."""
    if not templates:
        return cedarpy.PolicySet.from_str("\n".join(texts))
    named = ", ".join(f'"template{place}": {template}' for place, template in enumerate(templates))
    parsed = cedarpy.PolicySet.from_json_str(
        f'{{"staticPolicies": {{}}, "templates": {{{named}}}, "templateLinks": []}}'
    )
    return parsed.with_added_str("\n".join(texts)) if texts else parsed


def _hint(action: str, forbidding: Sequence[str]) -> str:
    """What would allow a refused action."""
    if forbidding:
        return f"the policy {forbidding[0]} forbids it"
    roles = ROLES_OF.get(action, ())
    role = "any role" if len(roles) == len(ROLES) else f"the role {' or '.join(roles)}"
    return f"it takes {role} here; `access.bindings` of the project file says who has it"


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _entities(principal: Principal, action: str, resource: Resource) -> list[dict[str, Any]]:
    """What the policies of a request can look at, as the schema describes it."""
    labels = dict(resource.labels)
    attributes: dict[str, Any] = {
        "tenant": resource.tenant,
        "region": resource.region,
        "project": labels.get("project", ""),
        "environment": labels.get("environment", ""),
    }
    if author := labels.get("author"):
        attributes["author"] = {"__entity": _uid("Principal", author)}
    return [
        {
            "uid": _uid("Principal", principal.id),
            "attrs": {"tenant": principal.tenant, "via": principal.via},
            "parents": [_uid("Group", group) for group in principal.groups],
            "tags": principal.claims,
        },
        {
            "uid": _uid("Action", action),
            "attrs": {},
            "parents": [_uid("Action", role) for role in ROLES_OF.get(action, ())],
        },
        {"uid": _uid(resource.kind.capitalize(), resource.name), "attrs": attributes, "parents": [], "tags": labels},
    ]
