"""The client of Envoy's administration interface, over a socket that only its user can open."""

from __future__ import annotations

import socket
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Any

import msgspec

from cumulant.core.errors import EngineUnavailableError

_PATIENCE = 10.0


class _UnixConnection(HTTPConnection):
    """A connection over the Unix socket at `path`. httpx leaves its socket open where it cannot connect."""

    def __init__(self, path: str) -> None:
        super().__init__("envoy", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Admin:
    """A client of the administration interface at the socket `path`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def request(self, target: str, *, method: str = "GET") -> bytes:
        """The body of the response.

        Raises:
            EngineUnavailableError: there was none, or its status is not 200.
        """
        try:
            with closing(_UnixConnection(self.path)) as connection:
                connection.request(method, target)
                response = connection.getresponse()
                body = response.read()
        except (OSError, HTTPException) as error:
            reason = getattr(error, "strerror", None) or error
            raise EngineUnavailableError(f"the gateway's Envoy does not answer: {reason}", subject=self.path) from None
        if response.status != 200:
            raise EngineUnavailableError(f"the gateway's Envoy answered {response.status}", subject=self.path)
        return body

    def ready(self) -> bool:
        try:
            return self.request("/ready").startswith(b"LIVE")
        except EngineUnavailableError:
            return False

    def table(self) -> tuple[str, dict[str, Any]]:
        """Version and content of the route table in force."""
        for entry in self._dump("dynamic_route_configs"):
            if "route_config" in entry:
                return entry.get("version_info", ""), entry["route_config"]
        return "", {}

    def serving(self) -> set[str]:
        """Names of the clusters that are ready."""
        return {entry["cluster"]["name"] for entry in self._dump("dynamic_active_clusters") if "cluster" in entry}

    def hosts(self) -> list[dict[str, Any]]:
        """All clusters with their servers."""
        clusters: list[dict[str, Any]] = msgspec.json.decode(self.request("/clusters?format=json")).get(
            "cluster_statuses", []
        )
        return clusters

    def addresses(self) -> dict[str, str]:
        """`HOST:PORT` of each listener, by name."""
        listeners = msgspec.json.decode(self.request("/listeners?format=json")).get("listener_statuses", [])
        addresses = {}
        for listener in listeners:
            address = listener["local_address"]["socket_address"]
            host = f"[{address['address']}]" if ":" in address["address"] else address["address"]
            addresses[listener["name"]] = f"{host}:{address['port_value']}"
        return addresses

    def active_requests(self) -> int:
        document = msgspec.json.decode(self.request("/stats?format=json&filter=^http.callers.downstream_rq_active$"))
        return sum(int(stat["value"]) for stat in document["stats"] if "value" in stat)

    def refusals(self) -> int:
        """Number of configuration files that Envoy has rejected."""
        document = msgspec.json.decode(self.request("/stats?format=json&filter=(cds|rds.*)[.]update_rejected$"))
        return sum(int(stat["value"]) for stat in document["stats"] if "value" in stat)

    def configured(self) -> bool:
        """Whether Envoy has taken servers and routes since it started; later ones that it rejects change nothing."""
        names = "^(cluster_manager.cds|http.callers.rds.callers).update_success$"
        document = msgspec.json.decode(self.request(f"/stats?format=json&filter={names}"))
        counts = [int(stat["value"]) for stat in document["stats"] if "value" in stat]
        return len(counts) == 2 and min(counts) > 0

    def _dump(self, resource: str) -> list[dict[str, Any]]:
        document = msgspec.json.decode(self.request(f"/config_dump?resource={resource}"))
        configs: list[dict[str, Any]] = document.get("configs", [])
        return configs
