"""The port `traffic` by an Envoy whose folder is known."""

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
from cumulant.drivers.envoy.clusters import endpoint
from cumulant.drivers.envoy.folder import Folder, State
from cumulant.drivers.envoy.published import gateway_key, write_clusters, write_table
from cumulant.drivers.envoy.routing import told_by
from cumulant.drivers.envoy.servers import servers, under_way
from cumulant.ports.traffic import Door, EndpointHealth, Opening

#: seconds until a change must be in force
_PATIENCE = 20.0
_PAUSE = 0.01


class EnvoyTraffic:
    """The gateway of the folder that `url` names."""

    def __init__(self, url: str) -> None:
        self._folder = Folder.at(url)

    def program(self, opening: Opening) -> list[str]:
        engine.program()
        found = [sys.executable, "-m", "cumulant.drivers.envoy", str(self._folder.path)]
        found += ["--http", opening.http, "--admin", opening.admin]
        if opening.tls is not None:
            found += ["--certificate", opening.tls.certificate, "--private-key", opening.tls.private_key]
            found += ["--authority", opening.tls.authority] if opening.tls.authority else []
        found += ["--key-file", opening.key_file] if opening.key_file else []
        return [*found, "--gateway-key-file", opening.gateway_key_file] if opening.gateway_key_file else found

    def door(self) -> Door | None:
        seat = self._folder.seat()
        return seat.door if seat else None

    def apply(self, routes: Routes) -> None:
        for arm in routes.arms:
            check_authority(arm.authority)
            for url in arm.endpoints:
                endpoint(url)
        with self._folder.alone():
            state = self._folder.state()
            present = state.routes.get(routes.model)
            if present is not None and not present.gives_way_to(routes):
                raise LeaseHeldError(
                    f"routes of {routes.model} in force have revision {present.revision}, not below {routes.revision}",
                    subject=routes.model,
                )
            wanted = state if present == routes else state.changed(routes)
            key = gateway_key(self._folder, state.gateway_key_file)
            self._folder.write_state(wanted)
            self._publish(wanted, state, key)

    def _publish(self, wanted: State, before: State, key: bytes | None) -> None:
        try:
            self._show(wanted, key)
        except EngineUnavailableError:
            if self._folder.seat() is not None:
                # It runs and refuses: what is kept must be what is in force.
                kept = msgspec.structs.replace(before, generation=wanted.generation + 1)
                self._folder.write_state(kept)
                write_clusters(self._folder, kept, key)
                write_table(self._folder, kept)
                raise

    def _show(self, state: State, key: bytes | None) -> None:
        """Servers first, and routes to them once they are ready: no request meets a server that is not there."""
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
        found = told_by(admin.table()[1]) if admin else self._folder.state().routes
        return found.get(model)

    def health(self, model: str) -> Sequence[EndpointHealth]:
        admin = self._admin()
        routes = self.in_force(model)
        if admin is None or routes is None:
            return []
        return servers(routes, admin.hosts())

    def active(self, model: str, arm: str) -> int:
        admin = self._admin()
        return under_way(model, arm, admin.hosts()) if admin else 0

    def exchanges(self, after: str = "", *, limit: int = 100_000) -> tuple[list[Exchange], str]:
        return exchanges.read(self._folder.exchanges, after, limit)

    def close(self) -> None:
        """Nothing is held between calls."""

    def _admin(self) -> Admin | None:
        seat = self._folder.seat()
        return Admin(seat.socket) if seat else None


def _wait(found: Callable[[], bool], admin: Admin, refused: int, what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    hint = "the gateway's output says why"
    while not found():
        if admin.refusals() > refused:
            raise EngineUnavailableError(f"the gateway refuses these {what}", hint=hint)
        if time.monotonic() > deadline:
            raise EngineUnavailableError(f"the gateway did not take these {what} within {_PATIENCE:.0f} s", hint=hint)
        time.sleep(_PAUSE)
