"""Role bindings as Cedar policies. They are made in Cedar's JSON format, where a name is a value and never text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import cedarpy

from cumulant.ports.access import RoleBinding

#: a policy or an expression in Cedar's JSON format
_Json = dict[str, Any]


class CedarPolicy(NamedTuple):
    """A policy, and its scope (`principal`, `action`) in Cedar's JSON format.

    Attributes:
        text: as Cedar's text; empty where it is a link of a template.
        template: in Cedar's JSON format, with a slot in place of whom it is for, whose entity is `slot`. To link a
            template takes a tenth of the time to parse a policy.
        projects, environments: where alone it can hold, as far as that is known; empty: anywhere.
    """

    text: str
    scope: Mapping[str, Any]
    template: str = ""
    slot: Mapping[str, str] = {}
    projects: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()


#: as a user of a binding: everybody
EVERYBODY = "*"


def binding_policies(bindings: Iterable[RoleBinding]) -> dict[str, CedarPolicy]:
    """One policy per binding and user or group, by its id: the binding's, and whom it is for."""
    policies: dict[str, CedarPolicy] = {}
    for binding in bindings:
        subjects = [("Principal", user) for user in binding.users] + [("Group", group) for group in binding.groups]
        for kind, name in subjects:
            who = name if kind == "Principal" else f"group:{name}"
            policies[f"{binding.id} {who}"] = _policy(binding, _scope(kind, name))
    return policies


def policy_text(policy: CedarPolicy) -> str:
    """A policy as Cedar's text, whether or not it is a link."""
    return policy.text or _text(dict(policy.scope))


def _policy(binding: RoleBinding, principal: _Json) -> CedarPolicy:
    policy = {
        "effect": "permit",
        "principal": principal,
        "action": _actions(binding),
        "resource": {"op": "All"},
        "conditions": [{"kind": "when", "body": body} for body in _limits(binding)],
    }
    projects, environments = tuple(dict.fromkeys(binding.projects)), tuple(dict.fromkeys(binding.environments))
    if "entity" not in principal:
        return CedarPolicy(_text(policy), policy, projects=projects, environments=environments)
    template = json.dumps(policy | {"principal": {"op": principal["op"], "slot": "?principal"}})
    return CedarPolicy("", policy, template, principal["entity"], projects, environments)


def _text(policy: _Json) -> str:
    """Cedar's text of a policy in its JSON format."""
    document = {"staticPolicies": {"policy0": policy}, "templates": {}, "templateLinks": []}
    return str(cedarpy.policies_from_json_str(json.dumps(document)))


def _scope(kind: str, name: str) -> dict[str, Any]:
    if kind == "Principal" and name == EVERYBODY:
        return {"op": "All"}
    return {"op": "==" if kind == "Principal" else "in", "entity": {"type": kind, "id": name}}


def _actions(binding: RoleBinding) -> dict[str, Any]:
    if binding.role is not None:
        return {"op": "in", "entity": {"type": "Action", "id": binding.role}}
    return {"op": "in", "entities": [{"type": "Action", "id": action} for action in binding.actions]}


def _limits(binding: RoleBinding) -> list[_Json]:
    """The conditions: the principal's own tenant, and what the binding is limited to."""
    limits = [_equal(_attribute("principal", "tenant"), _attribute("resource", "tenant"))]
    if binding.projects:
        limits.append(_one_of("project", binding.projects))
    if binding.environments:
        limits.append(_one_of("environment", binding.environments))
    if binding.models:
        models = [{"Value": {"__entity": {"type": "Model", "id": name}}} for name in binding.models]
        limits.append({"in": {"left": {"Var": "resource"}, "right": {"Set": models}}})
    if binding.regions:
        limits.append(_any([_in_region(name) for name in binding.regions]))
    return limits


def _one_of(attribute: str, names: Sequence[str]) -> _Json:
    values = {"Set": [{"Value": name} for name in names]}
    return {"contains": {"left": values, "right": _attribute("resource", attribute)}}


def _in_region(name: str) -> _Json:
    region = _attribute("resource", "region")
    pattern: list[Any] = [*({"Literal": letter} for letter in f"{name}-"), "Wildcard"]
    return _any([_equal(region, {"Value": name}), {"like": {"left": region, "pattern": pattern}}])


def _any(choices: Sequence[_Json]) -> _Json:
    """Whether one of them holds; a flat tree, since Cedar reads nested JSON to a limited depth."""
    if len(choices) == 1:
        return choices[0]
    half = len(choices) // 2
    return {"||": {"left": _any(choices[:half]), "right": _any(choices[half:])}}


def _equal(first: _Json, second: _Json) -> _Json:
    return {"==": {"left": first, "right": second}}


def _attribute(of: str, name: str) -> _Json:
    return {".": {"left": {"Var": of}, "attr": name}}
