"""Questions to Envoy's own administration, over a socket that only its user can open."""

from __future__ import annotations

from typing import Any

import msgspec

from cumulant.core.errors import EngineUnavailableError
from cumulant.core.network.http_client import HttpClient, NoResponseError

_PATIENCE = 10.0


class Admin:
    """Envoy's administration at the socket `path`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def ask(self, what: str, *, method: str = "GET") -> bytes:
        """The body of the answer.

        Raises:
            EngineUnavailableError: there was none, or it was no success.
        """
        try:
            response = HttpClient(seconds=_PATIENCE, unix_socket=self.path).send(method, f"http://envoy{what}")
        except NoResponseError as error:
            raise EngineUnavailableError(f"the gateway's Envoy does not answer: {error}", subject=self.path) from None
        if response.status != 200:
            raise EngineUnavailableError(f"the gateway's Envoy answered {response.status}", subject=self.path)
        return response.body

    def ready(self) -> bool:
        try:
            return self.ask("/ready").startswith(b"LIVE")
        except EngineUnavailableError:
            return False

    def table(self) -> tuple[str, dict[str, Any]]:
        """Version and content of the route table that requests are assigned by."""
        for entry in self._dump("dynamic_route_configs"):
            if "route_config" in entry:
                return entry.get("version_info", ""), entry["route_config"]
        return "", {}

    def serving(self) -> set[str]:
        """Names of the clusters that are ready."""
        return {entry["cluster"]["name"] for entry in self._dump("dynamic_active_clusters") if "cluster" in entry}

    def hosts(self) -> list[dict[str, Any]]:
        """All clusters with their servers."""
        found: list[dict[str, Any]] = msgspec.json.decode(self.ask("/clusters?format=json")).get("cluster_statuses", [])
        return found

    def addresses(self) -> dict[str, str]:
        """`HOST:PORT` of each listener, by name."""
        told = msgspec.json.decode(self.ask("/listeners?format=json")).get("listener_statuses", [])
        found = {}
        for listener in told:
            place = listener["local_address"]["socket_address"]
            host = f"[{place['address']}]" if ":" in place["address"] else place["address"]
            found[listener["name"]] = f"{host}:{place['port_value']}"
        return found

    def under_way(self) -> int:
        """Requests of callers that are not answered yet."""
        told = msgspec.json.decode(self.ask("/stats?format=json&filter=^http.callers.downstream_rq_active$"))
        return sum(int(stat["value"]) for stat in told["stats"] if "value" in stat)

    def refusals(self) -> int:
        """How many files Envoy has refused."""
        told = msgspec.json.decode(self.ask("/stats?format=json&filter=(cds|rds.*)[.]update_rejected$"))
        return sum(int(stat["value"]) for stat in told["stats"] if "value" in stat)

    def _dump(self, resource: str) -> list[dict[str, Any]]:
        told = msgspec.json.decode(self.ask(f"/config_dump?resource={resource}"))
        found: list[dict[str, Any]] = told.get("configs", [])
        return found
