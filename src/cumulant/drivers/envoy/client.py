"""The port `traffic` on Envoy, by the gateway's folder."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from cumulant.core.errors import EngineUnavailableError, LeaseHeldError, StorageError
from cumulant.core.network.authorities import check_authority
from cumulant.core.traffic import Exchange, Routes
from cumulant.drivers.envoy import engine, exchanges
from cumulant.drivers.envoy.admin import Admin
from cumulant.drivers.envoy.clusters import arm_of, cluster_name, parse_endpoint
from cumulant.drivers.envoy.folder import Folder, GatewayState, Readiness, RoutesBusyError
from cumulant.drivers.envoy.published import read_gateway_key, write_clusters, write_table
from cumulant.drivers.envoy.routing import routes_in_table
from cumulant.ports.traffic import EndpointHealth, GatewayAddress, ListenOptions

#: seconds within which a change must take effect
_PATIENCE = 20.0
_PAUSE = 0.01

_Clusters = list[dict[str, Any]]


class EnvoyTraffic:
    """The gateway of the folder that `url` names."""

    def __init__(self, url: str) -> None:
        self._folder = Folder.at(url)

    def command(self, opening: ListenOptions) -> list[str]:
        engine.find_program()
        command = [sys.executable, "-m", "cumulant.drivers.envoy", str(self._folder.path)]
        command += ["--http", opening.http, "--admin", opening.admin]
        if opening.tls is not None:
            command += ["--certificate", opening.tls.certificate, "--private-key", opening.tls.private_key]
            command += ["--authority", opening.tls.authority] if opening.tls.authority else []
        command += ["--key-file", opening.key_file] if opening.key_file else []
        command += ["--traces", opening.traces] if opening.traces else []
        command += ["--agent"] if opening.agent else []
        return [*command, "--gateway-key-file", opening.gateway_key_file] if opening.gateway_key_file else command

    def address(self) -> GatewayAddress | None:
        gateway = self._folder.gateway()
        return gateway.address if gateway else None

    def apply(self, routes: Routes) -> None:
        for arm in routes.arms:
            check_authority(arm.authority)
            for url in arm.endpoints:
                parse_endpoint(url)
        routes.limits.check()

        def put(state: GatewayState) -> GatewayState:
            present = state.routes.get(routes.model)
            if present is not None and not present.gives_way_to(routes):
                raise LeaseHeldError(
                    f"routes of {routes.model} in force have revision {present.revision}, not below {routes.revision}",
                    subject=routes.model,
                )
            return state if present == routes else state.with_routes(routes)

        self._change(put)

    def share_rates(self, gateways: int) -> None:
        if self._folder.state().gateways != gateways:
            self._change(lambda state: state.shared_by(gateways))

    def _change(self, change: Callable[[GatewayState], GatewayState]) -> None:
        """Put in force what `change` makes of the state, or nothing of it."""
        with self._folder.lock_routes():
            state = self._folder.state()
            wanted = change(state)
            key = read_gateway_key(self._folder, state.gateway_key_file)
            restored = msgspec.structs.replace(state, generation=wanted.generation + 1)
            try:
                self._folder.write_state(wanted)
                self._write_and_wait(wanted, key)
            except StorageError:
                self._restore(restored, key)
                raise
            except EngineUnavailableError:
                if self._folder.gateway() is not None:
                    # It runs and rejects them: the stored state must be the one in force.
                    self._restore(restored, key)
                    raise

    def _restore(self, state: GatewayState, key: bytes | None) -> None:
        """Write the state before a change again. Where the disk does not take it, `finish_change` is left to do."""
        with contextlib.suppress(StorageError):
            self._folder.write_state(state)
            write_clusters(self._folder, state, key)
            write_table(self._folder, state)

    def finish_change(self) -> None:
        admin = self._admin()
        if admin is None or not _is_behind(admin, self._folder.state()):
            return
        with contextlib.suppress(RoutesBusyError), self._folder.lock_routes(wait=0.0):
            state = self._folder.state()
            if _is_behind(admin, state):
                self._write_and_wait(state, read_gateway_key(self._folder, state.gateway_key_file))

    def _write_and_wait(self, state: GatewayState, key: bytes | None) -> None:
        """Writes the servers first, and the routes once the servers are ready, so that no request fails."""
        admin = self._admin()
        refused = admin.refusals() if admin else 0
        needed = write_clusters(self._folder, state, key)
        if admin is not None:
            _wait(lambda: needed <= admin.serving(), admin, refused, "servers")
        write_table(self._folder, state)
        if admin is not None:
            _wait(lambda: admin.table()[0] == str(state.generation), admin, refused, "routes")

    def in_force(self, model: str) -> Routes | None:
        admin = self._admin()
        routes = routes_in_table(admin.table()[1]) if admin else self._folder.state().routes
        return routes.get(model)

    def lagging(self, model: str) -> Sequence[str]:
        """None: routes in force are read from Envoy itself."""
        del model
        return ()

    def keep_ready(self, seconds: float, reason: str = "") -> None:
        self._folder.write_readiness(Readiness.lasting(seconds, reason))

    def health(self, model: str) -> Sequence[EndpointHealth]:
        admin = self._admin()
        routes = self.in_force(model)
        if admin is None or routes is None:
            return []
        return _list_health(routes, admin.hosts())

    def active(self, model: str, arm: str) -> int:
        admin = self._admin()
        return _count_active(model, arm, admin.hosts()) if admin else 0

    def exchanges(self, after: str = "", *, limit: int = 100_000) -> tuple[list[Exchange], str]:
        return exchanges.read_exchanges(self._folder.exchanges, after, limit)

    def erase_names(self, keys: Collection[str], requests: Collection[str]) -> int:
        return exchanges.erase_names(self._folder.exchanges, lambda exchange: exchange.names(keys, requests))

    def close(self) -> None:
        """Does nothing: no connection stays open between calls."""

    def _admin(self) -> Admin | None:
        gateway = self._folder.gateway()
        return Admin(gateway.socket) if gateway else None


def _is_behind(admin: Admin, state: GatewayState) -> bool:
    """Whether Envoy works by earlier routes than those that are stored."""
    table = routes_in_table(admin.table()[1])
    return any(model not in table or table[model].revision < routes.revision for model, routes in state.routes.items())


def _wait(is_done: Callable[[], bool], admin: Admin, refused: int, what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    hint = "the gateway's output says why"
    while not is_done():
        if admin.refusals() > refused:
            raise EngineUnavailableError(f"the gateway refuses these {what}", hint=hint)
        if time.monotonic() > deadline:
            raise EngineUnavailableError(f"the gateway did not take these {what} within {_PATIENCE:.0f} s", hint=hint)
        time.sleep(_PAUSE)


def _list_health(routes: Routes, clusters: _Clusters) -> list[EndpointHealth]:
    hosts = {cluster["name"]: cluster.get("host_statuses", []) for cluster in clusters}
    return [
        _health(host, arm.name, arm.endpoints)
        for arm in routes.arms
        for host in hosts.get(cluster_name(routes.model, arm, routes.limits), ())
    ]


def _count_active(model: str, arm: str, clusters: _Clusters) -> int:
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
