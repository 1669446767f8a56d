"""What Envoy says of the servers behind it."""

from __future__ import annotations

from typing import Any

from cumulant.core.traffic import Routes
from cumulant.drivers.envoy.clusters import arm_of, cluster_name, endpoint
from cumulant.ports.traffic import EndpointHealth

Clusters = list[dict[str, Any]]


def servers(routes: Routes, clusters: Clusters) -> list[EndpointHealth]:
    """Health of the servers of `routes`, of `clusters` as Envoy lists them."""
    hosts = {cluster["name"]: cluster.get("host_statuses", []) for cluster in clusters}
    return [
        _health(host, arm.name, arm.endpoints)
        for arm in routes.arms
        for host in hosts.get(cluster_name(routes.model, arm, routes.limits), ())
    ]


def under_way(model: str, arm: str, clusters: Clusters) -> int:
    """Requests that servers of an arm work at, also those of routes before."""
    of_arm = [cluster for cluster in clusters if arm_of(cluster["name"], model) == arm]
    return sum(_active(host) for cluster in of_arm for host in cluster.get("host_statuses", ()))


def _health(host: dict[str, Any], arm: str, endpoints: tuple[str, ...]) -> EndpointHealth:
    told = host.get("health_status", {})
    ejected = bool(told.get("failed_outlier_check"))
    failed = told.get("failed_active_health_check") or told.get("pending_active_hc")
    return EndpointHealth(
        url=_url(host, endpoints), arm=arm, ready=not failed and not ejected, ejected=ejected, active=_active(host)
    )


def _url(host: dict[str, Any], endpoints: tuple[str, ...]) -> str:
    place = host["address"]["socket_address"]
    for url in endpoints:
        asked = endpoint(url)
        port = asked.port or (443 if asked.scheme == "https" else 80)
        if port == place["port_value"] and asked.hostname in {place["address"], host.get("hostname")}:
            return url
    return f"http://{place['address']}:{place['port_value']}"


def _active(host: dict[str, Any]) -> int:
    return sum(int(stat.get("value", 0)) for stat in host.get("stats", ()) if stat["name"] == "rq_active")
