"""The address for those who run the gateway: `/metrics`, `/health`, and what the driver asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.network.hosts import Hosts
from cumulant.core.traffic import Routes
from cumulant.drivers.local.gateway.counts import Sample
from cumulant.drivers.local.gateway.front import Connection, Incoming, Site
from cumulant.drivers.local.gateway.messages import error_body, small_answer
from cumulant.drivers.local.gateway.passing import Gateway
from cumulant.drivers.local.gateway.state import Folder
from cumulant.drivers.local.gateway.table import Checks
from cumulant.ports.traffic import EndpointHealth

_PATIENCE = 1.0
_TEXT = b"text/plain; version=0.0.4; charset=utf-8"
_JSON = b"application/json"
_encode = msgspec.json.Encoder().encode


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway says of one model. `active`: requests under way by arm."""

    routes: Routes
    endpoints: tuple[EndpointHealth, ...]
    active: dict[str, int]


class Admin:
    """Answers on the admin address."""

    def __init__(self, gateway: Gateway, folder: Folder, checks: Checks, site: Site, hosts: Hosts) -> None:
        self._gateway, self._folder, self._checks, self._site, self._hosts = gateway, folder, checks, site, hosts

    async def __call__(self, request: Incoming, connection: Connection) -> bool:
        fault = self._hosts.fault(request.header(b"host"), request.header(b"origin"))
        status, body, kind = await self._found(request) if fault is None else (403, error_body(403, fault), _JSON)
        last = connection.last(request) or not request.body.ended
        bare = request.method == b"HEAD"
        connection.write(small_answer(status, body, kind=kind, close=last, bare=bare))
        return not last

    async def _found(self, request: Incoming) -> tuple[int, bytes, bytes]:
        match request.method, request.target.partition(b"?")[0]:
            case b"GET" | b"HEAD", b"/metrics":
                return 200, self._gateway.counts.text(self._gauges()).encode(), _TEXT
            case b"GET" | b"HEAD", b"/health":
                return (
                    (503, b'{"status":"draining"}', _JSON) if self._site.draining else (200, b'{"status":"ok"}', _JSON)
                )
            case b"GET", b"/state":
                return 200, _encode(self.told()), _JSON
            case b"POST", b"/reload":
                try:
                    await self.reload()
                except CumulantError as error:
                    return 500, error_body(500, str(error)), _JSON
                return 200, _encode(self.told()), _JSON
            case _:
                return 404, error_body(404, "there is /metrics, /health and /state here"), _JSON

    async def reload(self) -> None:
        """Go by what the folder holds.

        Raises:
            StorageError: it cannot be read; what was in force stays.
        """
        new = self._gateway.table.change(self._folder.routes())
        await self._checks.follow(new, _PATIENCE)

    def told(self) -> dict[str, Told]:
        """All models."""
        table = self._gateway.table
        return {
            model: Told(routes=one.routes, endpoints=tuple(self._healths(one.routes)), active=dict(one.active))
            for model, one in table.models.items()
        }

    def _healths(self, routes: Routes) -> Iterable[EndpointHealth]:
        for arm in routes.arms:
            for url in arm.endpoints:
                one = self._gateway.table.endpoints[url]
                ready = one.ready is True
                yield EndpointHealth(url=url, arm=arm.name, ready=ready, ejected=one.ejected, active=one.active)

    def _gauges(self) -> Sequence[tuple[str, Sequence[Sample]]]:
        told = self.told()
        arms = [
            ((("model", model), ("arm", arm)), float(n)) for model, one in told.items() for arm, n in one.active.items()
        ]
        servers = [
            ((("model", model), ("arm", health.arm), ("url", health.url)), health)
            for model, one in told.items()
            for health in one.endpoints
        ]
        models = [((("model", model),), one.routes) for model, one in told.items()]
        return (
            ("active_requests", arms),
            ("endpoint_ready", [(labels, float(health.ready)) for labels, health in servers]),
            ("endpoint_ejected", [(labels, float(health.ejected)) for labels, health in servers]),
            ("routes_revision", [(labels, float(routes.revision)) for labels, routes in models]),
            ("candidate_weight_percent", [(labels, routes.weight) for labels, routes in models]),
            ("connections", [((), float(len(self._site.connections)))]),
            ("refused", [((("reason", reason),), float(count)) for reason, count in self._site.refused.items()]),
            ("exchanges_dropped", [((), float(self._gateway.log.dropped))]),
        )
