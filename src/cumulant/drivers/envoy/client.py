"""The port `traffic` on Envoy, by the gateway's folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from cumulant.core.errors import EngineUnavailableError, LeaseHeldError
from cumulant.core.network.authorities import check_authority
from cumulant.core.traffic import Exchange, Routes
from cumulant.drivers.envoy import engine, exchanges
from cumulant.drivers.envoy.admin import Admin
from cumulant.drivers.envoy.clusters import parse_endpoint
from cumulant.drivers.envoy.folder import Folder, GatewayState
from cumulant.drivers.envoy.published import read_gateway_key, write_clusters, write_table
from cumulant.drivers.envoy.routing import routes_in_table
from cumulant.drivers.envoy.servers import count_active, list_health
from cumulant.ports.traffic import EndpointHealth, GatewayAddress, ListenOptions

#: seconds within which a change must take effect
_PATIENCE = 20.0
_PAUSE = 0.01


class EnvoyTraffic:
    """The gateway of the folder that `url` names."""

    def __init__(self, url: str) -> None:
        self._folder = Folder.at(url)

    def program(self, opening: ListenOptions) -> list[str]:
        engine.find_program()
        command = [sys.executable, "-m", "cumulant.drivers.envoy", str(self._folder.path)]
        command += ["--http", opening.http, "--admin", opening.admin]
        if opening.tls is not None:
            command += ["--certificate", opening.tls.certificate, "--private-key", opening.tls.private_key]
            command += ["--authority", opening.tls.authority] if opening.tls.authority else []
        command += ["--key-file", opening.key_file] if opening.key_file else []
        return [*command, "--gateway-key-file", opening.gateway_key_file] if opening.gateway_key_file else command

    def address(self) -> GatewayAddress | None:
        gateway = self._folder.gateway()
        return gateway.address if gateway else None

    def apply(self, routes: Routes) -> None:
        for arm in routes.arms:
            check_authority(arm.authority)
            for url in arm.endpoints:
                parse_endpoint(url)
        with self._folder.lock_routes():
            state = self._folder.state()
            present = state.routes.get(routes.model)
            if present is not None and not present.gives_way_to(routes):
                raise LeaseHeldError(
                    f"routes of {routes.model} in force have revision {present.revision}, not below {routes.revision}",
                    subject=routes.model,
                )
            wanted = state if present == routes else state.with_routes(routes)
            key = read_gateway_key(self._folder, state.gateway_key_file)
            self._folder.write_state(wanted)
            self._apply_state(wanted, state, key)

    def _apply_state(self, wanted: GatewayState, before: GatewayState, key: bytes | None) -> None:
        try:
            self._write_and_wait(wanted, key)
        except EngineUnavailableError:
            if self._folder.gateway() is not None:
                # It runs and rejects them: the stored state must be the one in force.
                restored = msgspec.structs.replace(before, generation=wanted.generation + 1)
                self._folder.write_state(restored)
                write_clusters(self._folder, restored, key)
                write_table(self._folder, restored)
                raise

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

    def health(self, model: str) -> Sequence[EndpointHealth]:
        admin = self._admin()
        routes = self.in_force(model)
        if admin is None or routes is None:
            return []
        return list_health(routes, admin.hosts())

    def active(self, model: str, arm: str) -> int:
        admin = self._admin()
        return count_active(model, arm, admin.hosts()) if admin else 0

    def exchanges(self, after: str = "", *, limit: int = 100_000) -> tuple[list[Exchange], str]:
        return exchanges.read_exchanges(self._folder.exchanges, after, limit)

    def close(self) -> None:
        """Does nothing: no connection stays open between calls."""

    def _admin(self) -> Admin | None:
        gateway = self._folder.gateway()
        return Admin(gateway.socket) if gateway else None


def _wait(is_done: Callable[[], bool], admin: Admin, refused: int, what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    hint = "the gateway's output says why"
    while not is_done():
        if admin.refusals() > refused:
            raise EngineUnavailableError(f"the gateway refuses these {what}", hint=hint)
        if time.monotonic() > deadline:
            raise EngineUnavailableError(f"the gateway did not take these {what} within {_PATIENCE:.0f} s", hint=hint)
        time.sleep(_PAUSE)
