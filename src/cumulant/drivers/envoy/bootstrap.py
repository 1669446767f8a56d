"""What Envoy is started with: its listeners. Servers and routes come from the files that it watches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
from cumulant.drivers.envoy.folder import Folder
from cumulant.drivers.envoy.replies import local_replies
from cumulant.drivers.envoy.routing import MIRROR_HEADER, STALL, TABLE
from cumulant.ports.traffic import Opening

_FILTERS = "type.googleapis.com/envoy.extensions.filters"
_HTTP = f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"
#: bytes that a request may have before its server takes them; bodies with keys are at most half of it
_BUFFER = 8 * 1024 * 1024
#: of the addresses kept for later use
_NOBODY = "240.0.0.1"
#: seconds for a request's head, for all of it, and of a connection without requests
_HEAD, _WHOLE, _IDLE = 10, 300, 300
#: connections of callers, beyond which new ones are closed
_CONNECTIONS = 16_384

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

#: one line of the log on standard output; see `told.py`
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


def bootstrap(folder: Folder, opening: Opening, socket: str) -> dict[str, Any]:
    """The configuration; `socket` is where Envoy's own administration listens, for the driver alone."""
    return {
        "node": {"id": "gateway", "cluster": "cumulant"},
        "admin": {"address": {"pipe": {"path": socket, "mode": 0o600}}},
        "dynamic_resources": {"cds_config": _watched(folder.clusters)},
        "static_resources": {
            "listeners": [_callers(folder, opening), _administration(opening.admin)],
            "clusters": [_envoy_itself(socket)],
        },
        "overload_manager": {"resource_monitors": [_most_connections()]},
    }


def _most_connections() -> dict[str, Any]:
    kind = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    config = {"@type": f"type.googleapis.com/{kind}", "max_active_downstream_connections": _CONNECTIONS}
    return {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": config}


def _watched(path: Path) -> dict[str, Any]:
    watched = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"path_config_source": watched, "resource_api_version": "V3", "initial_fetch_timeout": "10s"}


def _callers(folder: Folder, opening: Opening) -> dict[str, Any]:
    manager = {
        "@type": _HTTP,
        "stat_prefix": "callers",
        "rds": {"route_config_name": TABLE, "config_source": _watched(folder.routes)},
        "http_filters": [_body_key(), _rate(), _router()],
        "early_header_mutation_extensions": [_early()],
        # No caller has this address: none is believed more for where it is. An empty list would mean loopback.
        "internal_address_config": {"cidr_ranges": [{"address_prefix": _NOBODY, "prefix_len": 32}]},
        "use_remote_address": True,
        "normalize_path": True,
        "server_header_transformation": "PASS_THROUGH",
        "generate_request_id": False,  # `_early` names requests
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "request_id_extension": {
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                "pack_trace_reason": False,
            }
        },
        **_patience(),
        "http_protocol_options": {"accept_http_10": True},
        "local_reply_config": local_replies(),
        "access_log": [_log()],
    }
    return _listener("callers", opening.http, manager, opening.tls)


def _patience() -> dict[str, Any]:
    """How long callers may take, so that none holds a connection for nothing."""
    return {
        "request_headers_timeout": f"{_HEAD}s",
        "request_timeout": f"{_WHOLE}s",
        "stream_idle_timeout": f"{STALL}s",
        "common_http_protocol_options": {"idle_timeout": f"{_IDLE}s"},
    }


def _administration(address: str) -> dict[str, Any]:
    """Figures and health only: the rest of Envoy's administration can stop it."""
    host = address.rpartition(":")[0].strip("[]") or "127.0.0.1"
    routes: list[dict[str, Any]] = [
        # No page of a browser reads them: it would say where it is from, or use a name that was made to lead here.
        {"match": {"prefix": "/", "headers": [{"name": "origin", "present_match": True}]}, **_REFUSED},
        {"match": {"path": "/metrics"}, "route": {"cluster": "envoy", "prefix_rewrite": "/stats/prometheus"}},
        {"match": {"path": "/health"}, "route": {"cluster": "envoy", "prefix_rewrite": "/ready"}},
    ]
    manager = {
        "@type": _HTTP,
        "stat_prefix": "administration",
        "route_config": {"virtual_hosts": _called_by(host, routes)},
        "http_filters": [_router()],
        "strip_any_host_port": True,
        **_patience(),
    }
    return _listener("administration", address, manager, None)


def _called_by(host: str, routes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """On loopback the routes are there by a name of loopback only."""
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
        chain["transport_socket"] = _encrypted(tls)
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


def _encrypted(tls: Certificates) -> dict[str, Any]:
    files = {"certificate_chain": {"filename": tls.certificate}, "private_key": {"filename": tls.private_key}}
    common: dict[str, Any] = {"tls_certificates": [files], "alpn_protocols": ["h2", "http/1.1"]}
    if tls.authority:
        common["validation_context"] = {"trusted_ca": {"filename": tls.authority}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": common,
            "require_client_certificate": tls.authority is not None,
        },
    }


def _early() -> dict[str, Any]:
    """What happens to headers of callers first: some are taken out, and each request gets a name of the gateway's,
    which stands for the caller's own where there is none.
    """
    kind = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    mutations: list[dict[str, Any]] = [
        *({"remove": name} for name in UNTRUSTED),
        _set(REQUEST_HEADER, "%UNIQUE_ID%", "OVERWRITE_IF_EXISTS_OR_ADD"),
        _set(CALLER_HEADER, f"%REQ({REQUEST_HEADER})%", "ADD_IF_ABSENT"),
    ]
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {"@type": f"type.googleapis.com/{kind}", "mutations": mutations},
    }


def _set(name: str, value: str, action: str) -> dict[str, Any]:
    return {"append": {"header": {"key": name, "value": value}, "append_action": action}}


def _body_key() -> dict[str, Any]:
    code = Path(__file__).with_name("body_key.lua").read_text("utf-8")
    config = {"@type": f"{_FILTERS}.http.lua.v3.Lua", "default_source_code": {"inline_string": code}}
    return {"name": "envoy.filters.http.lua", "typed_config": config}


def _rate() -> dict[str, Any]:
    config = {"@type": f"{_FILTERS}.http.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "rate"}
    return {"name": "envoy.filters.http.local_ratelimit", "typed_config": config}


def _router() -> dict[str, Any]:
    config = {"@type": f"{_FILTERS}.http.router.v3.Router", "suppress_envoy_headers": True}
    return {"name": "envoy.filters.http.router", "typed_config": config}


def _log() -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
    config = {"@type": kind, "log_format": {"json_format": LOGGED}}
    return {"name": "envoy.access_loggers.stdout", "typed_config": config}


def _envoy_itself(socket: str) -> dict[str, Any]:
    place = {"endpoint": {"address": {"pipe": {"path": socket}}}}
    return {
        "name": "envoy",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "envoy", "endpoints": [{"lb_endpoints": [place]}]},
    }
