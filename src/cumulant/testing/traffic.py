"""A gateway in memory: it stores the routes, and returns the exchanges that a test adds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from cumulant.core.errors import LeaseHeldError
from cumulant.core.traffic import Exchange, Routes
from cumulant.ports.traffic import EndpointHealth, GatewayAddress, ListenOptions


class MemoryTraffic:
    """Routes by model, and a list of exchanges. `busy`: the requests in progress by arm."""

    def __init__(self) -> None:
        self._routes: dict[str, Routes] = {}
        self._exchanges: list[Exchange] = []
        self.busy: dict[tuple[str, str], int] = {}

    def command(self, opening: ListenOptions) -> list[str]:  # noqa: ARG002 - the port has it
        return []  # there is no process to start

    def address(self) -> GatewayAddress | None:
        return None

    def apply(self, routes: Routes) -> None:
        present = self._routes.get(routes.model)
        if present is not None and not present.gives_way_to(routes):
            raise LeaseHeldError(
                f"routes of {routes.model} in force have revision {present.revision}, not below {routes.revision}",
                subject=routes.model,
            )
        self._routes[routes.model] = routes

    def in_force(self, model: str) -> Routes | None:
        return self._routes.get(model)

    def lagging(self, model: str) -> Sequence[str]:  # noqa: ARG002 - the port has it
        return ()

    def share_rates(self, gateways: int) -> None:
        """No request passes here, so that there is no rate."""

    def finish_change(self) -> None:
        """A change is never cut off."""

    def keep_ready(self, seconds: float, reason: str = "") -> None:
        """There is no process that could be ready."""

    def health(self, model: str) -> Sequence[EndpointHealth]:
        routes = self._routes.get(model)
        arms = routes.arms if routes else ()
        return [EndpointHealth(url=url, arm=arm.name, ready=True) for arm in arms for url in arm.endpoints]

    def active(self, model: str, arm: str) -> int:
        return self.busy.get((model, arm), 0)

    def put(self, exchanges: Iterable[Exchange]) -> None:
        """What callers were answered."""
        self._exchanges += exchanges

    def exchanges(self, after: str = "", *, limit: int = 100_000) -> tuple[list[Exchange], str]:
        begin = int(after or 0)
        exchanges = self._exchanges[begin : begin + limit]
        return exchanges, str(begin + len(exchanges))

    def erase_names(self, keys: Collection[str], requests: Collection[str]) -> int:
        named = [exchange.names(keys, requests) for exchange in self._exchanges]
        self._exchanges = [
            exchange.without_names() if erased else exchange
            for exchange, erased in zip(self._exchanges, named, strict=True)
        ]
        return sum(named)

    def close(self) -> None:
        """Nothing to close."""
