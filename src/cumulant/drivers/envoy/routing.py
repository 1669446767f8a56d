"""The wanted routes as Envoy's route table, and back."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from cumulant.core.traffic import (
    ARM_HEADER,
    FORCE_HEADER,
    KEY_HEADER,
    REQUEST_HEADER,
    SHADOW_HEADER,
    TOKEN_HEADER,
    Arm,
    Routes,
)
from cumulant.drivers.envoy.clusters import cluster_name, rescued_name

#: of the table that the listener asks for
TABLE = "callers"
#: names the cluster that a request is mirrored to; only the champion's requests get it
MIRROR_HEADER = "cumulant-mirror-to"
#: of all keys or requests; never another number, or a change would move keys in both directions
_PARTS = 1_000_000
#: seconds in which nothing of a request or its answer moves, after which it ends
STALL = 30
_RATE = "envoy.filters.http.local_ratelimit"
_LUA = "envoy.filters.http.lua"


def table_of(models: dict[str, Routes]) -> dict[str, Any]:
    """The route table of all models. With one model every path is its own; with several the path names it."""
    names = sorted(models)
    found = [route for name in names for route in _of_model(models[name], alone=len(names) == 1)]
    return {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": TABLE,
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "routes": [*found, _nowhere()],
                "response_headers_to_add": [_header(REQUEST_HEADER, f"%REQ({REQUEST_HEADER})%")],
                "response_headers_to_remove": [TOKEN_HEADER],
            }
        ],
    }


def told_by(table: dict[str, Any]) -> dict[str, Routes]:
    """The routes that an Envoy's table was made of, by model."""
    found = {}
    for host in table.get("virtual_hosts", ()):
        for route in host.get("routes", ()):
            told = route.get("metadata", {}).get("filter_metadata", {}).get("cumulant", {}).get("routes")
            if told:
                routes = msgspec.json.decode(told, type=Routes)
                found[routes.model] = routes
    return found


def _nowhere() -> dict[str, Any]:
    body = {"inline_string": "no model of this gateway has this path"}
    return {"match": {"prefix": "/"}, "direct_response": {"status": 404, "body": body}}


def _of_model(routes: Routes, *, alone: bool) -> list[dict[str, Any]]:
    if alone:
        match: dict[str, Any] = {"prefix": "/"}
    else:
        pattern = rf"/v[12]/(repository/)?models/{re.escape(routes.model)}([/:].*)?"
        match = {"safe_regex": {"regex": pattern}}
    forced = [_forced(routes, arm, match) for arm in routes.arms]
    return [*forced, _split(routes, match)]


def _forced(routes: Routes, arm: Arm, match: dict[str, Any]) -> dict[str, Any]:
    """A tester's request goes to the arm asked for and to no other, dead or not."""
    asked = {"name": FORCE_HEADER, "string_match": {"exact": arm.name}}
    return {
        **_common(routes, forced=True),
        "match": {**match, "headers": [asked]},
        "route": {**_action(routes), "cluster": cluster_name(routes.model, arm, routes.limits)},
        "request_headers_to_add": [_header(ARM_HEADER, arm.name)],
        "response_headers_to_add": [_header(ARM_HEADER, arm.name)],
    }


def _split(routes: Routes, match: dict[str, Any]) -> dict[str, Any]:
    by_key = [
        {"header": {"header_name": KEY_HEADER}, "terminal": True},
        {"header": {"header_name": REQUEST_HEADER}},
    ]
    action = {
        **_action(routes),
        "hash_policy": by_key,
        "weighted_clusters": {"clusters": _shares(routes), "use_hash_policy": True},
    }
    if routes.mirror and routes.candidate is not None:
        action["request_mirror_policies"] = [_mirror(routes)]
    found = {**_common(routes, forced=False), "match": match, "route": action}
    found["metadata"]["filter_metadata"]["cumulant"]["routes"] = msgspec.json.encode(routes).decode()
    return found


def _shares(routes: Routes) -> list[dict[str, Any]]:
    """The candidate first: with the keys' hashes this makes a ramp move keys in one direction only."""
    candidate = round(routes.weight / 100 * _PARTS) if routes.candidate else 0
    parts = {"candidate": candidate, "champion": _PARTS - candidate}
    return [_share(routes, arm, parts[arm.name]) for arm in routes.arms]


def _share(routes: Routes, arm: Arm, parts: int) -> dict[str, Any]:
    headers = [_header(ARM_HEADER, arm.name)]
    if arm.name == "champion" and routes.mirror and routes.candidate:
        to = cluster_name(routes.model, routes.candidate, routes.limits)
        headers.append(_header(MIRROR_HEADER, to))
    return {
        "name": rescued_name(routes, arm),
        "weight": parts,
        "request_headers_to_add": headers,
        "response_headers_to_add": [_header(ARM_HEADER, arm.name)],
    }


def _mirror(routes: Routes) -> dict[str, Any]:
    share = {"numerator": round(routes.mirror / 100 * _PARTS), "denominator": "MILLION"}
    mark = {"append": {"header": {"key": SHADOW_HEADER, "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
    return {
        "cluster_header": MIRROR_HEADER,
        "runtime_fraction": {"default_value": share, "runtime_key": "cumulant.mirror"},
        "request_headers_mutations": [mark, {"remove": MIRROR_HEADER}],
        "disable_shadow_host_suffix_append": True,
    }


def _action(routes: Routes) -> dict[str, Any]:
    deadline = routes.limits.deadline
    found: dict[str, Any] = {"timeout": f"{deadline}s", "auto_host_rewrite": _named(routes)}
    if deadline >= STALL:  # the server may take its time
        found["idle_timeout"] = f"{deadline + 1}s"
    if routes.limits.retries:
        found["retry_policy"] = _retries(routes.limits.retries)
    return found


def _named(routes: Routes) -> bool:
    """Whether a server has a name: then it is asked by that."""
    return any(re.search(r"//[^/]*[A-Za-z]", url) for arm in routes.arms for url in arm.endpoints)


def _retries(count: int) -> dict[str, Any]:
    """Only where no byte of the request was sent; first another server, then the other arm."""
    priority = "envoy.retry_priorities.previous_priorities"
    predicate = "envoy.retry_host_predicates.previous_hosts"
    types = "type.googleapis.com/envoy.extensions.retry"
    return {
        "retry_on": "connect-failure,reset-before-request",
        "num_retries": count,
        "retry_priority": {
            "name": priority,
            "typed_config": {
                "@type": f"{types}.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 1,
            },
        },
        "retry_host_predicate": [
            {
                "name": predicate,
                "typed_config": {"@type": f"{types}.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
        "host_selection_retry_max_attempts": 3,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.01s"},
    }


def _common(routes: Routes, *, forced: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"model": routes.model, "revision": str(routes.revision), "forced": "1" if forced else "0"}
    metadata: dict[str, Any] = {"cumulant": told}
    filters: dict[str, Any] = {}
    if routes.key is None or forced:
        filters[_LUA] = {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute",
            "disabled": True,
        }
    else:
        metadata[_LUA] = {"key": routes.key}
    if routes.limits.rate is not None:
        filters[_RATE] = _rate(routes.limits.rate)
    return {"metadata": {"filter_metadata": metadata}, "typed_per_filter_config": filters}


def _rate(rate: int) -> dict[str, Any]:
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "rate",
        "token_bucket": {"max_tokens": rate, "tokens_per_fill": rate, "fill_interval": "1s"},
        "filter_enabled": always,
        "filter_enforced": always,
    }


def _header(name: str, value: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
