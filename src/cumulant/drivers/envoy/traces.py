"""Spans of the gateway: one a request, sent as OTLP over HTTP; servers get its W3C context."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from cumulant.drivers.envoy.entries import TYPES, extension

_CLUSTER = "traces"
#: characters of a path in a span: what callers write there is theirs
_PATH = 1


def tracing(url: str) -> dict[str, Any]:
    """Tracing of the callers' listener. A parent's flag decides whether a request is sampled; others are."""
    collector = {"http_uri": {"uri": url, "cluster": _CLUSTER, "timeout": "2s"}}
    provider = {
        "name": "envoy.tracers.opentelemetry",
        "typed_config": {
            "@type": f"{TYPES}/envoy.config.trace.v3.OpenTelemetryConfig",
            "http_service": collector,
            "service_name": "gateway",
        },
    }
    return {"provider": provider, "random_sampling": {"value": 100}, "max_path_tag_length": _PATH}


def collector_cluster(url: str) -> dict[str, Any]:
    """The cluster of the collector; of https with the authorities of the system."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "localhost", parts.port or (443 if secure else 80)
    place = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
    cluster: dict[str, Any] = {
        "name": _CLUSTER,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": _CLUSTER, "endpoints": [{"lb_endpoints": [place]}]},
    }
    if secure:
        tls = "envoy.extensions.transport_sockets.tls.v3"
        trusted = {"validation_context": {"trusted_ca": {"filename": "/etc/ssl/certs/ca-certificates.crt"}}}
        cluster["transport_socket"] = extension(
            "envoy.transport_sockets.tls", f"{tls}.UpstreamTlsContext", sni=host, common_tls_context=trusted
        )
    return cluster
