"""Envoy's start configuration: its listeners. Clusters and routes come from the files that it watches."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cumulant.core.network.hosts import is_loopback
from cumulant.core.traffic import (
    ARM_HEADER,
    CALLER_HEADER,
    KEY_HEADER,
    REQUEST_HEADER,
    SERVED_HEADER,
    SHADOW_HEADER,
    TOKEN_HEADER,
    Certificates,
)
from cumulant.drivers.envoy.entries import TYPES, extension, header
from cumulant.drivers.envoy.folder import Folder
from cumulant.drivers.envoy.routing import MIRROR_HEADER, READINESS, READY_ROUTE, STALL, TABLE
from cumulant.drivers.envoy.traces import collector_cluster, tracing
from cumulant.ports.traffic import ListenOptions

_FILTERS = "envoy.extensions.filters"
_HTTP = f"{TYPES}/{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"
#: bytes of a request that are buffered before its server reads them; bodies with keys are at most half of it
_BUFFER = 8 * 1024 * 1024
#: an address reserved for future use
_NOBODY = "240.0.0.1"
#: seconds for a request's head, for all of it, and of a connection without requests
_HEAD, _WHOLE, _IDLE = 10, 300, 300
#: connections of callers, beyond which new ones are closed
_CONNECTIONS = 16_384
#: by status: the error's code, its message, and whether a retry can help
_REPLIES = {
    404: ("not-found", "%LOCAL_REPLY_BODY%", False),
    429: ("overloaded", "more requests a second than this gateway takes", True),
    502: ("engine-unavailable", "no server of the model answers", True),
    503: ("engine-unavailable", "no server of the model answers", True),
    504: ("deadline", "no server of the model answered in time", True),
}
_RETRY_LATER = {429, 502, 503}
#: an invalid response counts as a missing one: the server may have acted, and the caller gets the same error
_REPLACED_STATUS = {502: 503}

#: what RFC 9325 recommends for TLS 1.2, in the gateway's order of preference; TLS 1.3 has no others
TLS_1_2_CIPHERS = (
    "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]",
    "[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)

#: headers that only the gateway sets, and Envoy's own, by which a caller could change deadlines and retries
UNTRUSTED = (
    ARM_HEADER,
    SERVED_HEADER,
    SHADOW_HEADER,
    TOKEN_HEADER,
    MIRROR_HEADER,
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-max-retries",
    "x-envoy-original-path",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
)

_REFUSED: dict[str, Any] = {
    "direct_response": {"status": 403, "body": {"inline_string": "this is for programs of this machine"}}
}

#: one line of the log on standard output; see `access_log.py`
LOGGED = {
    "request": f"%REQ({REQUEST_HEADER})%",
    "caller_id": f"%REQ({CALLER_HEADER})%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "start": "%START_TIME(%s%6f)%",
    "took": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "took_ms": "%DURATION%",
    "model": "%METADATA(ROUTE:cumulant:model)%",
    "revision": "%METADATA(ROUTE:cumulant:revision)%",
    "forced": "%METADATA(ROUTE:cumulant:forced)%",
    "assigned": f"%REQ({ARM_HEADER})%",
    "served": "%UPSTREAM_METADATA(cumulant:arm)%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "key": f"%REQ({KEY_HEADER})%",
}


class Sockets(NamedTuple):
    """Sockets that only the gateway's user can open: of Envoy's administration interface, and of what answers
    `/ready`.
    """

    admin: str
    ready: str


def build_bootstrap(folder: Folder, opening: ListenOptions, sockets: Sockets) -> dict[str, Any]:
    """The configuration."""
    return {
        "node": {"id": "gateway", "cluster": "cumulant"},
        "admin": {"address": {"pipe": {"path": sockets.admin, "mode": 0o600}}},
        "dynamic_resources": {"cds_config": _watched_file(folder.clusters)},
        "static_resources": {
            "listeners": [_callers(folder, opening), _administration(opening)],
            "clusters": [
                _local_cluster("envoy", sockets.admin),
                _local_cluster(READINESS, sockets.ready),
                *([] if opening.traces is None else [collector_cluster(opening.traces)]),
            ],
        },
        "overload_manager": {"resource_monitors": [_connection_limit()]},
    }


def _connection_limit() -> dict[str, Any]:
    kind = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    name = "envoy.resource_monitors.global_downstream_max_connections"
    return extension(name, kind, max_active_downstream_connections=_CONNECTIONS)


def _watched_file(path: Path) -> dict[str, Any]:
    watched = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"path_config_source": watched, "resource_api_version": "V3", "initial_fetch_timeout": "10s"}


def _callers(folder: Folder, opening: ListenOptions) -> dict[str, Any]:
    manager = {
        "@type": _HTTP,
        "stat_prefix": "callers",
        "rds": {"route_config_name": TABLE, "config_source": _watched_file(folder.routes)},
        "http_filters": [_body_key(), _rate(), _router()],
        "early_header_mutation_extensions": [_early_mutations()],
        # No caller has this address: no address is trusted more than others. An empty list would mean loopback.
        "internal_address_config": {"cidr_ranges": [{"address_prefix": _NOBODY, "prefix_len": 32}]},
        "use_remote_address": True,
        "normalize_path": True,
        "server_header_transformation": "PASS_THROUGH",
        "generate_request_id": False,  # `_early_mutations` names requests
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "request_id_extension": {
            "typed_config": {
                "@type": f"{TYPES}/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                "pack_trace_reason": False,
                "use_request_id_for_trace_sampling": False,  # callers choose ids
            }
        },
        **_caller_timeouts(),
        "http_protocol_options": {"accept_http_10": True},
        "local_reply_config": {
            "mappers": [_reply_mapper(status) for status in _REPLIES],
            "body_format": {"json_format": _reply_body("request", "%LOCAL_REPLY_BODY%", retryable=False)},
        },
        "access_log": [_log()],
        **({} if opening.traces is None else {"tracing": tracing(opening.traces)}),
    }
    return _listener("callers", opening.http, manager, opening.tls)


def _caller_timeouts() -> dict[str, Any]:
    """Time limits of callers, so that an idle one does not occupy a connection."""
    return {
        "request_headers_timeout": f"{_HEAD}s",
        "request_timeout": f"{_WHOLE}s",
        "stream_idle_timeout": f"{STALL}s",
        "common_http_protocol_options": {"idle_timeout": f"{_IDLE}s"},
    }


def _administration(opening: ListenOptions) -> dict[str, Any]:
    """The listener of metrics and health only: the rest of Envoy's administration can stop it."""
    host = opening.admin.rpartition(":")[0].strip("[]") or "127.0.0.1"
    routes: list[dict[str, Any]] = [
        # No page of a browser reads them: it would send its origin, or use a host name that was made to resolve here.
        {"match": {"prefix": "/", "headers": [{"name": "origin", "present_match": True}]}, **_REFUSED},
        {"match": {"path": "/metrics"}, "route": {"cluster": "envoy", "prefix_rewrite": "/stats/prometheus"}},
        {"match": {"path": "/health"}, "route": {"cluster": "envoy", "prefix_rewrite": "/ready"}},
        READY_ROUTE,
    ]
    manager = {
        "@type": _HTTP,
        "stat_prefix": "administration",
        "route_config": {"virtual_hosts": _routes_for_host(host, routes)},
        "http_filters": [_router()],
        "strip_any_host_port": True,
        **_caller_timeouts(),
    }
    return _listener("administration", opening.admin, manager, None)


def _routes_for_host(host: str, routes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The virtual hosts of `routes`: on loopback, they answer to names of loopback only."""
    if not is_loopback(host):
        return [{"name": "all", "domains": ["*"], "routes": routes}]
    names = {"localhost", "*.localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host}
    return [
        {"name": "loopback", "domains": sorted(names), "routes": routes},
        {"name": "others", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **_REFUSED}]},
    ]


def _listener(name: str, address: str, manager: dict[str, Any], tls: Certificates | None) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    chain: dict[str, Any] = {"filters": [{"name": "http", "typed_config": manager}]}
    if tls is not None:
        chain["transport_socket"] = _tls_socket(tls)
    return {
        "name": name,
        "address": {"socket_address": {"address": host.strip("[]") or "127.0.0.1", "port_value": int(port)}},
        "filter_chains": [chain],
        "per_connection_buffer_limit_bytes": _BUFFER,
        # Figures and health are there also while callers hold all connections.
        "ignore_global_conn_limit": name == "administration",
        # Otherwise another process could listen at the same port.
        "enable_reuse_port": False,
    }


def _tls_socket(tls: Certificates) -> dict[str, Any]:
    files = {"certificate_chain": {"filename": tls.certificate}, "private_key": {"filename": tls.private_key}}
    common: dict[str, Any] = {
        "tls_certificates": [files],
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "cipher_suites": list(TLS_1_2_CIPHERS)},
    }
    if tls.authority:
        common["validation_context"] = {"trusted_ca": {"filename": tls.authority}}
    return extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context=common,
        require_client_certificate=tls.authority is not None,
    )


def _early_mutations() -> dict[str, Any]:
    """First changes of a caller's headers: some are removed, and each request gets an id of the gateway's."""
    kind = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    mutations: list[dict[str, Any]] = [
        *({"remove": name} for name in UNTRUSTED),
        {"append": header(REQUEST_HEADER, "%UNIQUE_ID%")},
        {"append": header(CALLER_HEADER, f"%REQ({REQUEST_HEADER})%", "ADD_IF_ABSENT")},
    ]
    return extension("envoy.http.early_header_mutation.header_mutation", kind, mutations=mutations)


def _body_key() -> dict[str, Any]:
    code = Path(__file__).with_name("body_key.lua").read_text("utf-8")
    return extension(
        "envoy.filters.http.lua", f"{_FILTERS}.http.lua.v3.Lua", default_source_code={"inline_string": code}
    )


def _rate() -> dict[str, Any]:
    kind = f"{_FILTERS}.http.local_ratelimit.v3.LocalRateLimit"
    return extension("envoy.filters.http.local_ratelimit", kind, stat_prefix="rate")


def _router() -> dict[str, Any]:
    return extension("envoy.filters.http.router", f"{_FILTERS}.http.router.v3.Router", suppress_envoy_headers=True)


def _log() -> dict[str, Any]:
    kind = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
    return extension("envoy.access_loggers.stdout", kind, log_format={"json_format": LOGGED})


def _local_cluster(name: str, socket: str) -> dict[str, Any]:
    place = {"endpoint": {"address": {"pipe": {"path": socket}}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [place]}]},
    }


def _reply_mapper(status: int) -> dict[str, Any]:
    code, message, retryable = _REPLIES[status]
    comparison = {"op": "EQ", "value": {"default_value": status, "runtime_key": f"cumulant.reply.{status}"}}
    mapper: dict[str, Any] = {
        "filter": {"status_code_filter": {"comparison": comparison}},
        "body_format_override": {"json_format": _reply_body(code, message, retryable=retryable)},
    }
    if status in _REPLACED_STATUS:
        mapper["status_code"] = _REPLACED_STATUS[status]
    if status in _RETRY_LATER:
        mapper["headers_to_add"] = [{"header": {"key": "retry-after", "value": "1"}}]
    return mapper


def _reply_body(code: str, message: str, *, retryable: bool) -> dict[str, Any]:
    return {"code": code, "error": message, "retryable": retryable}
