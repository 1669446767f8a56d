"""The route table of Envoy for the desired routes, and the routes of a table."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from cumulant.core.traffic import (
    ARM_HEADER,
    FORCE_HEADER,
    KEY_HEADER,
    NO_PREDICTION,
    REQUEST_HEADER,
    SHADOW_HEADER,
    TOKEN_HEADER,
    Arm,
    Routes,
)
from cumulant.drivers.envoy.clusters import cluster_name, failover_name
from cumulant.drivers.envoy.entries import TYPES, extension, header, seconds

#: name of the table that the listener requests
TABLE = "callers"
#: header with the cluster that a request is mirrored to; only the champion's requests have it
MIRROR_HEADER = "cumulant-mirror-to"
#: of all keys or requests; never another number, or a change would move keys in both directions
_PARTS = 1_000_000
#: seconds without progress of a request or its response, after which it ends
STALL = 30
_RATE = "envoy.filters.http.local_ratelimit"
_LUA = "envoy.filters.http.lua"
#: for routes whose requests have no key in the body
_WITHOUT_KEY: dict[str, Any] = {
    _LUA: {"@type": f"{TYPES}/envoy.extensions.filters.http.lua.v3.LuaPerRoute", "disabled": True}
}
#: name of the cluster of what knows whether the gateway is ready
READINESS = "readiness"
READY_ROUTE: dict[str, Any] = {
    "match": {"path": "/ready"},
    "route": {"cluster": READINESS},
    "typed_per_filter_config": _WITHOUT_KEY,
}


#: the last group of counted requests. Without it Envoy counts the rest as `other`, which may be the name of a model
_OTHER_REQUESTS: dict[str, Any] = {"name": "no prediction", "headers": [{"name": ":path", "present_match": True}]}


def build_table(models: dict[str, Routes], *, agent: bool = False, gateways: int = 1) -> dict[str, Any]:
    """The route table of all models. A single model has every path; with several, the path names the model.

    With an agent, `/ready` is the gateway's own, for what shares requests between gateways. The rates are shared by
    `gateways`.
    """
    names, alone = sorted(models), len(models) == 1
    model_routes = [route for name in names for route in _model_routes(models[name], alone=alone, gateways=gateways)]
    return {
        "@type": f"{TYPES}/envoy.config.route.v3.RouteConfiguration",
        "name": TABLE,
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "routes": [*([READY_ROUTE] if agent else []), *model_routes, _unknown_path_route()],
                "virtual_clusters": [*(_counted_requests(name, alone=alone) for name in names), _OTHER_REQUESTS],
                "response_headers_to_add": [header(REQUEST_HEADER, f"%REQ({REQUEST_HEADER})%")],
                "response_headers_to_remove": [TOKEN_HEADER],
            }
        ],
    }


def routes_in_table(table: dict[str, Any]) -> dict[str, Routes]:
    """The routes that a table was made of, by model."""
    models = {}
    for host in table.get("virtual_hosts", ()):
        for route in host.get("routes", ()):
            encoded = route.get("metadata", {}).get("filter_metadata", {}).get("cumulant", {}).get("routes")
            if encoded:
                routes = msgspec.json.decode(encoded, type=Routes)
                models[routes.model] = routes
    return models


def _unknown_path_route() -> dict[str, Any]:
    body = {"inline_string": "no model of this gateway has this path"}
    return {"match": {"prefix": "/"}, "direct_response": {"status": 404, "body": body}}


def _counted_requests(model: str, *, alone: bool) -> dict[str, Any]:
    """What Envoy counts as a model's requests: those that exchanges count, without testers who chose an arm."""
    headers: list[dict[str, Any]] = [
        {"name": ":method", "string_match": {"exact": "POST"}},
        {"name": ":path", "string_match": {"safe_regex": {"regex": NO_PREDICTION}}, "invert_match": True},
        {"name": FORCE_HEADER, "present_match": True, "invert_match": True},
    ]
    if not alone:
        headers.append({"name": ":path", "string_match": {"safe_regex": {"regex": _model_paths(model)}}})
    return {"name": model, "headers": headers}


def _model_paths(model: str) -> str:
    return rf"/v[12]/(repository/)?models/{re.escape(model)}([/:?].*)?"


def _model_routes(routes: Routes, *, alone: bool, gateways: int) -> list[dict[str, Any]]:
    if alone:
        match: dict[str, Any] = {"prefix": "/"}
    else:
        pattern = rf"/v[12]/(repository/)?models/{re.escape(routes.model)}([/:].*)?"
        match = {"safe_regex": {"regex": pattern}}
    entries = [*(_forced_route(routes, arm, match) for arm in routes.arms), _split_route(routes, match)]
    if routes.limits.rate is not None:
        for route in entries:
            route["typed_per_filter_config"][_RATE] = _rate_limit(max(routes.limits.rate, 1), gateways)
    return entries


def _forced_route(routes: Routes, arm: Arm, match: dict[str, Any]) -> dict[str, Any]:
    """The route of a request that names its arm: it reaches that arm and no other, healthy or not."""
    forced = {"name": FORCE_HEADER, "string_match": {"exact": arm.name}}
    return {
        **_common_settings(routes, forced=True),
        "match": {**match, "headers": [forced]},
        "route": {**_action(routes), "cluster": cluster_name(routes.model, arm, routes.limits)},
        "request_headers_to_add": [header(ARM_HEADER, arm.name)],
        "response_headers_to_add": [header(ARM_HEADER, arm.name)],
    }


def _split_route(routes: Routes, match: dict[str, Any]) -> dict[str, Any]:
    by_key = [
        {"header": {"header_name": KEY_HEADER}, "terminal": True},
        {"header": {"header_name": REQUEST_HEADER}},
    ]
    action = {
        **_action(routes),
        "hash_policy": by_key,
        "weighted_clusters": {"clusters": _weighted_clusters(routes), "use_hash_policy": True},
    }
    if routes.mirror and routes.candidate is not None:
        action["request_mirror_policies"] = [_mirror_policy(routes)]
    route = {**_common_settings(routes, forced=False), "match": match, "route": action}
    route["metadata"]["filter_metadata"]["cumulant"]["routes"] = msgspec.json.encode(routes).decode()
    return route


def _weighted_clusters(routes: Routes) -> list[dict[str, Any]]:
    """The arms' clusters, candidate first: with the keys' hashes, a ramp then moves keys in one direction only."""
    candidate = round(routes.weight / 100 * _PARTS) if routes.candidate else 0
    parts = {"candidate": candidate, "champion": _PARTS - candidate}
    return [_weighted_cluster(routes, arm, parts[arm.name]) for arm in routes.arms]


def _weighted_cluster(routes: Routes, arm: Arm, parts: int) -> dict[str, Any]:
    headers = [header(ARM_HEADER, arm.name)]
    if arm.name == "champion" and routes.mirror and routes.candidate:
        to = cluster_name(routes.model, routes.candidate, routes.limits)
        headers.append(header(MIRROR_HEADER, to))
    return {
        "name": failover_name(routes, arm),
        "weight": parts,
        "request_headers_to_add": headers,
        "response_headers_to_add": [header(ARM_HEADER, arm.name)],
    }


def _mirror_policy(routes: Routes) -> dict[str, Any]:
    share = {"numerator": round(routes.mirror / 100 * _PARTS), "denominator": "MILLION"}
    return {
        "cluster_header": MIRROR_HEADER,
        "runtime_fraction": {"default_value": share, "runtime_key": "cumulant.mirror"},
        "request_headers_mutations": [{"append": header(SHADOW_HEADER, "1")}, {"remove": MIRROR_HEADER}],
        "disable_shadow_host_suffix_append": True,
    }


def _action(routes: Routes) -> dict[str, Any]:
    deadline = routes.limits.deadline
    timeout = seconds(deadline) if deadline else "0s"  # none
    action: dict[str, Any] = {"timeout": timeout, "auto_host_rewrite": _has_named_server(routes)}
    if deadline >= STALL:  # the server may take its time
        action["idle_timeout"] = seconds(deadline + 1)
    if routes.limits.retries:
        action["retry_policy"] = _retry_policy(routes.limits.retries)
    return action


def _has_named_server(routes: Routes) -> bool:
    return any(re.search(r"//[^/]*[A-Za-z]", url) for arm in routes.arms for url in arm.endpoints)


def _retry_policy(count: int) -> dict[str, Any]:
    """Retries only if no byte of the request was sent: first another server, then the other arm."""
    retry = "envoy.extensions.retry"
    return {
        "retry_on": "connect-failure,reset-before-request",
        "num_retries": count,
        "retry_priority": extension(
            "envoy.retry_priorities.previous_priorities",
            f"{retry}.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            update_frequency=1,
        ),
        "retry_host_predicate": [
            extension(
                "envoy.retry_host_predicates.previous_hosts", f"{retry}.host.previous_hosts.v3.PreviousHostsPredicate"
            )
        ],
        "host_selection_retry_max_attempts": 3,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.01s"},
    }


def _common_settings(routes: Routes, *, forced: bool) -> dict[str, Any]:
    labels: dict[str, Any] = {"model": routes.model, "revision": str(routes.revision), "forced": "1" if forced else "0"}
    metadata: dict[str, Any] = {"cumulant": labels}
    filters: dict[str, Any] = {}
    if routes.key is None or forced:
        filters |= _WITHOUT_KEY
    else:
        metadata[_LUA] = {"key": routes.key}
    return {"metadata": {"filter_metadata": metadata}, "typed_per_filter_config": filters}


def _rate_limit(rate: int, gateways: int) -> dict[str, Any]:
    """A gateway's share of the rate: the bucket holds whole requests, one at least; the time in which it fills makes
    it exact.
    """
    tokens = -(-rate // gateways)
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "@type": f"{TYPES}/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "rate",
        "token_bucket": {
            "max_tokens": tokens,
            "tokens_per_fill": tokens,
            "fill_interval": seconds(tokens * gateways / rate),
        },
        "filter_enabled": always,
        "filter_enforced": always,
    }
