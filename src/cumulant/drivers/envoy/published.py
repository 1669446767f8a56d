"""The configuration files that Envoy watches."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from cumulant.core.errors import CumulantError, EngineUnavailableError
from cumulant.core.network.gateway_token import read_key
from cumulant.drivers.envoy.clusters import build_clusters
from cumulant.drivers.envoy.folder import Folder, GatewayState, write_file
from cumulant.drivers.envoy.routing import build_table

#: seconds for a key that is being written, and between two attempts
_PATIENCE, _PAUSE = 3.0, 0.05


def write_clusters(folder: Folder, state: GatewayState, key: bytes | None) -> set[str]:
    """Write the clusters of the desired and the previous routes, with tokens by `key`; names of the desired ones."""
    wanted = [cluster for routes in state.routes.values() for cluster in build_clusters(routes, key)]
    old = [cluster for routes in state.before.values() for cluster in build_clusters(routes, key)]
    clusters = {cluster["name"]: cluster for cluster in (*old, *wanted)}
    write_file(folder.clusters, _discovery_response(state, list(clusters.values())))
    return {cluster["name"] for cluster in wanted}


def read_gateway_key(folder: Folder, path: str | None) -> bytes | None:
    """The key of the folder's gateway; None if it has none.

    None also if no gateway runs and the key cannot be read: a gateway writes the clusters again, with its key, when it
    starts.

    Raises:
        EngineUnavailableError: it runs, and its key cannot be read within `_PATIENCE` seconds. Nothing was changed.
    """
    if path is None:
        return None
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return read_key(path)
        except CumulantError as error:
            if not folder.is_running():
                return None
            if time.monotonic() > deadline:
                raise EngineUnavailableError(
                    f"{error.message}: without it servers would not believe the gateway, so its routes stay",
                    subject=path,
                    hint="change the routes again later; `cumulant up` writes the key anew within seconds",
                ) from None
        time.sleep(_PAUSE)


def write_table(folder: Folder, state: GatewayState) -> None:
    table = build_table(state.routes, agent=state.agent, gateways=state.gateways)
    write_file(folder.routes, _discovery_response(state, [table]))


def _discovery_response(state: GatewayState, resources: list[dict[str, Any]]) -> bytes:
    return msgspec.json.encode({"version_info": str(state.generation), "resources": resources})
