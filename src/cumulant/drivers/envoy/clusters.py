"""Envoy's clusters of the servers of the arms.

A cluster's name holds a hash of its configuration, so that a change of routes never changes the servers of requests in
progress: it names other clusters, which are ready before the routes refer to them.
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.network.gateway_token import token_for
from cumulant.core.traffic import SERVED_HEADER, TOKEN_HEADER, Arm, Limits, Routes
from cumulant.drivers.envoy.entries import TYPES, extension, header, seconds

_TYPE = f"{TYPES}/envoy.config.cluster.v3.Cluster"
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
#: the endpoint metadata that selects its TLS settings
_MATCH = "envoy.transport_socket_match"
#: below the server's own limit of 75 s, so that a request never meets a connection that is just being closed
_IDLE = "30s"
#: of a health check, and of making a connection at most, seconds
_PATIENCE = 1.0


def cluster_name(model: str, arm: Arm, limits: Limits) -> str:
    """`MODEL|ARM|HASH`."""
    connect = connect_seconds(limits)  # all that a cluster has of the deadline
    hashed = msgspec.structs.replace(limits, deadline=0.0 if connect == _PATIENCE else connect, rate=None)
    configuration = msgspec.json.encode([arm, hashed])
    return f"{model}|{arm.name}|{hashlib.sha256(configuration).hexdigest()[:12]}"


def connect_seconds(limits: Limits) -> float:
    """Seconds in which each try of a request must connect: an equal part of the deadline, so that the last one has its
    turn. A request that was sent is not tried again, and has the rest of the deadline.
    """
    part = limits.deadline / (limits.retries + 1)
    return min(_PATIENCE, part) if part > 0 else _PATIENCE


def failover_name(routes: Routes, arm: Arm) -> str:
    """The name of the cluster of an arm's requests: its own servers first, then those of the other arm."""
    names = [cluster_name(routes.model, member, routes.limits) for member in _failover_order(routes, arm)]
    if len(names) == 1:
        return names[0]
    return f"{names[0]}+{names[1].rpartition('|')[2]}"


def arm_of(cluster: str, model: str) -> str:
    """The arm in a cluster's name; empty if the cluster is of another model."""
    parts = cluster.split("|")
    return parts[-2] if len(parts) > 2 and "|".join(parts[:-2]) == model else ""


def build_clusters(routes: Routes, gateway_key: bytes | None = None) -> list[dict[str, Any]]:
    """All clusters of these routes; with the gateway's key, their servers are sent tokens."""
    clusters = [_server_cluster(routes.model, arm, routes.limits, gateway_key) for arm in routes.arms]
    if routes.candidate is not None:
        clusters += [_failover_cluster(routes, arm, tokens=gateway_key is not None) for arm in routes.arms]
    return clusters


def _failover_order(routes: Routes, arm: Arm) -> list[Arm]:
    return [arm, *(other for other in routes.arms if other.name != arm.name)]


def _failover_cluster(routes: Routes, arm: Arm, *, tokens: bool) -> dict[str, Any]:
    members = [cluster_name(routes.model, member, routes.limits) for member in _failover_order(routes, arm)]
    aggregate = "envoy.extensions.clusters.aggregate.v3.ClusterConfig"
    return {
        "@type": _TYPE,
        "name": failover_name(routes, arm),
        "connect_timeout": seconds(_PATIENCE),
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": extension("envoy.clusters.aggregate", aggregate, clusters=members),
        "circuit_breakers": _circuit_breakers(routes.limits, failover=True),
        "typed_extension_protocol_options": _protocol_options(tokens=tokens),
    }


def _protocol_options(*, tokens: bool) -> dict[str, Any]:
    """HTTP/1.1 to the servers; a filter sets the arm's header, since the arm is known once a server is chosen."""
    filters = "envoy.extensions.filters.http"
    names = {SERVED_HEADER: "arm"} | ({TOKEN_HEADER: "token"} if tokens else {})
    mutations = [{"append": header(name, f"%UPSTREAM_METADATA(cumulant:{field})%")} for name, field in names.items()]
    return {
        _HTTP: {
            "@type": f"{TYPES}/{_HTTP}",
            "common_http_protocol_options": {"idle_timeout": _IDLE},
            "explicit_http_config": {"http_protocol_options": {}},
            "http_filters": [
                extension(
                    "envoy.filters.http.header_mutation",
                    f"{filters}.header_mutation.v3.HeaderMutation",
                    mutations={"request_mutations": mutations},
                ),
                extension("envoy.filters.http.upstream_codec", f"{filters}.upstream_codec.v3.UpstreamCodec"),
            ],
        }
    }


def _server_cluster(model: str, arm: Arm, limits: Limits, gateway_key: bytes | None) -> dict[str, Any]:
    name = cluster_name(model, arm, limits)
    servers = [parse_endpoint(url) for url in arm.endpoints]
    members = [_endpoint_entry(server, arm, gateway_key) for server in servers]
    cluster: dict[str, Any] = {
        "@type": _TYPE,
        "name": name,
        "type": "STATIC" if all(_is_address(server.hostname) for server in servers) else "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": seconds(connect_seconds(limits)),
        "lb_policy": "LEAST_REQUEST",
        # If all servers seem to have failed, requests are sent rather than refused.
        "common_lb_config": {"healthy_panic_threshold": {"value": 1.0}},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": members}]},
        "circuit_breakers": _circuit_breakers(limits),
        "outlier_detection": _outlier_detection(limits),
        # A server that its name no longer resolves to gets no requests, also while it still answers health checks.
        "ignore_health_on_host_removal": True,
        "health_checks": [_health_check(limits)],
        "typed_extension_protocol_options": _protocol_options(tokens=gateway_key is not None),
    }
    if hosts := sorted({str(server.hostname) for server in servers if server.scheme == "https"}):
        cluster["transport_socket_matches"] = [_tls_match(host, arm.authority) for host in hosts]
    return cluster


def parse_endpoint(url: str) -> SplitResult:
    """The parts of a server's base URL.

    Raises:
        UsageError: it is not `http(s)://HOST[:PORT]`.
    """
    try:
        place = urlsplit(url)
        whole = place.scheme in {"http", "https"} and place.hostname and place.port != 0
    except ValueError:  # a port that is none, half an IPv6 address
        whole = False
    if not whole or place.path.strip("/") or place.query:
        hint = "write it as http://HOST:PORT, without a path"
        raise UsageError(f'"{url}" is no address of a server', subject=url, hint=hint)
    return place


def _endpoint_entry(place: SplitResult, arm: Arm, gateway_key: bytes | None) -> dict[str, Any]:
    port = place.port or (443 if place.scheme == "https" else 80)
    metadata: dict[str, Any] = {"cumulant": {"arm": arm.name}}
    if gateway_key is not None:
        metadata["cumulant"]["token"] = token_for(gateway_key, place.geturl())
    if place.scheme == "https":
        metadata[_MATCH] = {"host": place.hostname}
    return {
        "endpoint": {"address": {"socket_address": {"address": place.hostname, "port_value": port}}},
        "metadata": {"filter_metadata": metadata},
    }


def _is_address(host: str | None) -> bool:
    try:
        ipaddress.ip_address(host or "")
    except ValueError:
        return False
    return True


def _tls_match(host: str, authority: str | None) -> dict[str, Any]:
    """TLS to the servers of that name: the certificate's chain and its name are verified."""
    tls = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    address = _is_address(host)
    name = {"san_type": "IP_ADDRESS" if address else "DNS", "matcher": {"exact": host}}
    trusted = {"system_root_certs": {}} if authority is None else {"trusted_ca": {"filename": authority}}
    context = {"validation_context": {**trusted, "match_typed_subject_alt_names": [name]}}
    # an IP address is not allowed as a server name indication
    indication = {} if address else {"sni": host}
    socket = extension("envoy.transport_sockets.tls", tls, common_tls_context=context, **indication)
    return {"name": host, "match": {"host": host}, "transport_socket": socket}


def _circuit_breakers(limits: Limits, *, failover: bool = False) -> dict[str, Any]:
    """Limits of a cluster. Failover to the other arm has no retry budget.

    All requests of an arm need it at once when the arm fails; and it cannot become a retry storm, since the failed arm
    took none of them.
    """
    most = limits.connections + limits.pending
    threshold: dict[str, Any] = {
        "max_connections": limits.connections,
        "max_pending_requests": limits.pending,
        "max_requests": most,
    }
    if failover:
        threshold["max_retries"] = most
    else:
        threshold["retry_budget"] = {"budget_percent": {"value": limits.retry_budget}, "min_retry_concurrency": 3}
    return {"thresholds": [threshold]}


def _outlier_detection(limits: Limits) -> dict[str, Any]:
    """Ejection by statuses 502 to 504 and by broken connections; 500 is the model's and never ejects a server."""
    return {
        "split_external_local_origin_errors": True,
        "enforcing_consecutive_5xx": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
        "consecutive_gateway_failure": limits.eject_after,
        "enforcing_consecutive_gateway_failure": 100,
        "consecutive_local_origin_failure": limits.eject_after,
        "interval": "0.5s",
        "base_ejection_time": seconds(limits.eject_for),
        "max_ejection_time": seconds(limits.eject_for * 10),
        "max_ejection_percent": 100,
    }


def _health_check(limits: Limits) -> dict[str, Any]:
    every = seconds(limits.health_every)
    return {
        "timeout": seconds(_PATIENCE),
        "interval": every,
        "no_traffic_interval": every,
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        # A server that is not ours may not know the path; that it answers is enough.
        "http_health_check": {"path": "/v2/health/ready", "expected_statuses": [{"start": 200, "end": 500}]},
    }
