"""The health of the servers, from Envoy's own figures."""

from __future__ import annotations

from typing import Any

from cumulant.core.traffic import Routes
from cumulant.drivers.envoy.clusters import arm_of, cluster_name, parse_endpoint
from cumulant.ports.traffic import EndpointHealth

Clusters = list[dict[str, Any]]


def list_health(routes: Routes, clusters: Clusters) -> list[EndpointHealth]:
    """Health of the servers of `routes`, from Envoy's list of clusters."""
    hosts = {cluster["name"]: cluster.get("host_statuses", []) for cluster in clusters}
    return [
        _health(host, arm.name, arm.endpoints)
        for arm in routes.arms
        for host in hosts.get(cluster_name(routes.model, arm, routes.limits), ())
    ]


def count_active(model: str, arm: str, clusters: Clusters) -> int:
    """Number of requests in progress at an arm's servers, those of previous routes included."""
    of_arm = [cluster for cluster in clusters if arm_of(cluster["name"], model) == arm]
    return sum(_active(host) for cluster in of_arm for host in cluster.get("host_statuses", ()))


def _health(host: dict[str, Any], arm: str, endpoints: tuple[str, ...]) -> EndpointHealth:
    status = host.get("health_status", {})
    ejected = bool(status.get("failed_outlier_check"))
    failed = status.get("failed_active_health_check") or status.get("pending_active_hc")
    return EndpointHealth(
        url=_url(host, endpoints),
        arm=arm,
        ready=not failed and not ejected,
        ejected=ejected,
        active=_active(host),
    )


def _url(host: dict[str, Any], endpoints: tuple[str, ...]) -> str:
    address = host["address"]["socket_address"]
    for url in endpoints:
        parts = parse_endpoint(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if port == address["port_value"] and parts.hostname in {address["address"], host.get("hostname")}:
            return url
    return f"http://{address['address']}:{address['port_value']}"


def _active(host: dict[str, Any]) -> int:
    return sum(int(stat.get("value", 0)) for stat in host.get("stats", ()) if stat["name"] == "rq_active")
