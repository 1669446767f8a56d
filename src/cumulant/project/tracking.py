"""The registry of this machine, where there is no project: the one that MLflow's own variable names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import NotFoundError, UsageError
from cumulant.ports.plugins import Drivers

if TYPE_CHECKING:
    from cumulant.ports.registry import Registry

VARIABLE = "MLFLOW_TRACKING_URI"


def registry_here() -> Registry:
    """A client of the registry that MLFLOW_TRACKING_URI names.

    Raises:
        UsageError: the variable is not set, or names a store of a kind that no driver reads.
        NotFoundError: its SQLite file does not exist.
    """
    address = os.environ.get(VARIABLE, "").strip()
    if not address:
        hint = f"set {VARIABLE}, or run this in a project's folder, or name one with --project"
        raise UsageError(f"there is no project here and {VARIABLE} is not set: no registry to ask", hint=hint)
    drivers = Drivers.installed()
    url = drivers.anchored(address, "registry", root=Path.cwd(), state=Path.cwd())
    drivers.driver(url, "registry")
    file = drivers.path(url)
    if file is not None and not file.is_file():
        raise NotFoundError(f"{VARIABLE} names {file}, which does not exist", subject=str(file))
    registry: Registry = drivers.client(url, "registry")
    return registry
