"""What is wanted, written where Envoy sees it."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from cumulant.core.errors import CumulantError, EngineUnavailableError
from cumulant.core.network.gateway_token import read_key
from cumulant.drivers.envoy.clusters import clusters_of
from cumulant.drivers.envoy.folder import Folder, State, write
from cumulant.drivers.envoy.routing import table_of

#: seconds for a key that is being written, and between two tries
_PATIENCE, _PAUSE = 3.0, 0.05


def write_clusters(folder: Folder, state: State, key: bytes | None) -> set[str]:
    """Write the servers of the routes wanted and of those before, with tokens by `key`; the names that the wanted ones
    need.
    """
    wanted = [cluster for routes in state.routes.values() for cluster in clusters_of(routes, key)]
    old = [cluster for routes in state.before.values() for cluster in clusters_of(routes, key)]
    found = {cluster["name"]: cluster for cluster in (*old, *wanted)}
    write(folder.clusters, _answer(state, list(found.values())))
    return {cluster["name"] for cluster in wanted}


def gateway_key(folder: Folder, path: str | None) -> bytes | None:
    """The key of the gateway of the folder; None where it has none, or none runs: a gateway writes the servers again,
    with its key, when it starts.

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


def write_table(folder: Folder, state: State) -> None:
    """Write the routes wanted."""
    write(folder.routes, _answer(state, [table_of(state.routes)]))


def _answer(state: State, resources: list[dict[str, Any]]) -> bytes:
    return msgspec.json.encode({"version_info": str(state.generation), "resources": resources})
