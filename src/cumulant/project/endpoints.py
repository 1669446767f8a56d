"""The URL of every port of a project in one environment."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cumulant.core.scope import Scope
from cumulant.ports.plugins import Drivers
from cumulant.project.file.layers import LOCAL
from cumulant.project.file.spec import DRIVERS, EnvironmentSpec

STATE = ".cumulant"

#: the key of an environment that names each port's URL; `files` has none, sources name their own
KEYS = {
    "journal": "journal",
    "tables": "store",
    "objects": "store",
    "files": "data",
    "online": "online",
    "log": "log",
    "streams": "streams",
    "registry": "tracking_uri",
    "secrets": "secrets",
    "access": "access",
    "compute": "compute",
    "traffic": "traffic",
}


#: the embedded drivers, which serve what an environment does not name; each knows its place in the state folder
DEFAULTS = {
    "journal": "sqlite://",
    "tables": "file://",
    "objects": "file://",
    "files": "file://.",
    "online": "sqlite://",
    "log": "file://",
    "streams": "folder://",
    "registry": "mlflow+sqlite://",
    "secrets": f"env://{STATE}/secrets",
    "access": "open://",
    "compute": "inline://",
    "traffic": "envoy://",
}


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """One URL a port. They hold references to secrets, never values."""

    journal: str
    tables: str
    objects: str
    files: str
    online: str
    log: str
    streams: str
    registry: str
    secrets: str
    access: str
    compute: str
    traffic: str
    #: of checkpoints, which are objects; None: they are not written
    audit: str | None = None
    #: of the engine that computes features of the history; None: this process does
    history: str | None = None
    #: of the engine that runs jobs over streams; None: there is none
    stream_engine: str | None = None
    #: of the schemas of messages; None: there is no registry
    schemas: str | None = None

    def of(self, port: str) -> str:
        url: str = getattr(self, port)
        return url


def url_below(url: str, path: str) -> str:
    """The URL of what is at `path` below `url`, with its options."""
    address, mark, options = url.partition("?")
    return f"{address.rstrip('/')}/{path}{mark}{options}"


def state_folder(root: Path, environment: str) -> Path:
    """Where an environment keeps what it does not keep elsewhere. Environments do not share state."""
    return root / STATE if environment == LOCAL else root / STATE / "environments" / environment


def endpoints(spec: EnvironmentSpec, *, drivers: Drivers, root: Path, scope: Scope) -> Endpoints:
    """The URLs that `spec` names, and those of the embedded drivers for the rest.

    The driver of a scheme decides which relative path is taken from the project's folder.
    """
    state = state_folder(root, scope.environment)
    urls = {}
    for port, key in KEYS.items():
        url = (getattr(spec, key) if key in DRIVERS else None) or DEFAULTS[port]
        if key == "store" and url.partition("://")[2]:
            url = url_below(url, port)  # tables and objects are both below it
        if key == "log" and spec.log is not None:
            url = url_below(url, scope.prefix.rstrip("/"))
        urls[port] = drivers.anchored(url, port, root=root, state=state)
    audit = None if spec.audit is None else drivers.anchored(spec.audit, "objects", root=root, state=state)
    return Endpoints(**urls, audit=audit, history=spec.history, stream_engine=spec.stream_engine, schemas=spec.schemas)
