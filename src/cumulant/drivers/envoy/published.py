"""What is wanted, written where Envoy sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from cumulant.core.gateway_token import read_key
from cumulant.drivers.envoy.clusters import clusters_of
from cumulant.drivers.envoy.folder import Folder, State, write
from cumulant.drivers.envoy.routing import table_of


def write_clusters(folder: Folder, state: State) -> set[str]:
    """Write the servers of the routes wanted and of those before; the names that the wanted ones need."""
    key = _key(state.gateway_key_file)
    wanted = [cluster for routes in state.routes.values() for cluster in clusters_of(routes, key)]
    old = [cluster for routes in state.before.values() for cluster in clusters_of(routes, key)]
    found = {cluster["name"]: cluster for cluster in (*old, *wanted)}
    write(folder.clusters, _answer(state, list(found.values())))
    return {cluster["name"] for cluster in wanted}


def _key(path: str | None) -> bytes | None:
    """None where no gateway runs: it brings its key, and makes these files anew, when it starts. A change of routes is
    never refused for it.
    """
    return read_key(path) if path is not None and Path(path).exists() else None


def write_table(folder: Folder, state: State) -> None:
    """Write the routes wanted."""
    write(folder.routes, _answer(state, [table_of(state.routes)]))


def _answer(state: State, resources: list[dict[str, Any]]) -> bytes:
    return msgspec.json.encode({"version_info": str(state.generation), "resources": resources})
