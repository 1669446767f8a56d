"""The URL of every part of a project in one environment, with the built-in defaults under `.cumulant/`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cumulant.ports.plugins import Drivers
from cumulant.project.file.layers import LOCAL
from cumulant.project.file.spec import EnvironmentSpec

STATE = ".cumulant"

#: the key of an environment that names each port's URL; `files` has none, sources name their own
KEYS = {
    "journal": "journal",
    "tables": "store",
    "objects": "store",
    "files": "data",
    "online": "online",
    "registry": "tracking_uri",
    "secrets": "secrets",
    "access": "access",
    "compute": "compute",
    "traffic": "traffic",
}


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """One URL a port. They hold references to secrets, never values."""

    journal: str
    tables: str
    objects: str
    files: str
    online: str
    registry: str
    secrets: str
    access: str
    compute: str
    traffic: str

    def of(self, port: str) -> str:
        url: str = getattr(self, port)
        return url


def state_folder(root: Path, environment: str) -> Path:
    """Where an environment keeps what it does not keep elsewhere. Environments do not share state."""
    return root / STATE if environment == LOCAL else root / STATE / "environments" / environment


def endpoints(spec: EnvironmentSpec, *, drivers: Drivers, root: Path, environment: str, project: str) -> Endpoints:
    """The URLs that `spec` names, and SQLite and folders of the state folder for the rest.

    Which relative path is taken from the project's folder, the driver of its scheme says.
    """
    state = state_folder(root, environment)

    def anchored(url: str | None, port: str, default: str) -> str:
        return drivers.anchored(url, port, root=root, state=state) if url else default

    store = anchored(spec.store, "tables", f"file://{state}").rstrip("/")
    journal = anchored(spec.journal, "journal", f"sqlite://{state / 'journal.db'}")
    return Endpoints(
        journal=_with_option(journal, "project", project),
        tables=f"{store}/tables",
        objects=f"{store}/objects",
        files=f"file://{root}",
        online=anchored(spec.online, "online", f"sqlite://{state / 'online.db'}"),
        registry=anchored(_registry(spec.tracking_uri), "registry", f"mlflow+sqlite://{state / 'mlflow.db'}"),
        secrets=anchored(spec.secrets, "secrets", f"env://{root / STATE / 'secrets'}"),
        access=spec.access or "open://",
        compute=spec.compute or "inline://",
        traffic=anchored(spec.traffic or "envoy://", "traffic", ""),
    )


def _registry(uri: str | None) -> str | None:
    """The driver's URL of an MLflow tracking URI. `sqlite:///mlflow.db` is relative there, `sqlite:////` absolute."""
    if uri is not None and uri.startswith("sqlite:///"):
        return f"mlflow+sqlite://{uri.removeprefix('sqlite:///')}"
    return uri


def _with_option(url: str, name: str, value: str) -> str:
    _, _, query = url.rpartition("?")
    if any(part.startswith(f"{name}=") for part in query.split("&")):
        return url
    return f"{url}{'&' if '?' in url and '=' in query else '?'}{name}={value}"
