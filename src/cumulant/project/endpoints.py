"""The URL of every part of a project in one environment, with the built-in defaults under `.cumulant/`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cumulant.project.drivers import scheme_of
from cumulant.project.file.layers import LOCAL
from cumulant.project.file.spec import EnvironmentSpec

STATE = ".cumulant"

#: the key of an environment that names each port's URL; `files` has none, sources name their own
KEYS = {
    "journal": "journal", "tables": "store", "objects": "store", "files": "data", "online": "online",
    "registry": "tracking_uri", "secrets": "secrets", "access": "access", "compute": "compute", "traffic": "traffic",
}  # fmt: skip

_ON_THIS_MACHINE = ("file", "sqlite", "env", "mlflow+sqlite", "local", "envoy")


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
        found: str = getattr(self, port)
        return found


def state_folder(root: Path, environment: str) -> Path:
    """Where an environment keeps what it does not keep elsewhere. Environments do not share state."""
    return root / STATE if environment == LOCAL else root / STATE / "environments" / environment


def endpoints(spec: EnvironmentSpec, *, root: Path, environment: str, project: str) -> Endpoints:
    """The URLs that `spec` names, and SQLite and folders of the state folder for the rest.

    A relative `file://` or `sqlite://` path is taken from the project's folder.
    """
    state = state_folder(root, environment)
    store = _anchored(spec.store, root) or f"file://{state}"
    store = store.rstrip("/")
    journal = _anchored(spec.journal, root) or f"sqlite://{state / 'journal.db'}"
    return Endpoints(
        journal=_with_option(journal, "project", project),
        tables=f"{store}/tables",
        objects=f"{store}/objects",
        files=f"file://{root}",
        online=_anchored(spec.online, root) or f"sqlite://{state / 'online.db'}",
        registry=_registry(spec.tracking_uri, root) or f"mlflow+sqlite://{state / 'mlflow.db'}",
        secrets=_anchored(spec.secrets, root) or f"env://{root / STATE / 'secrets'}",
        access=spec.access or "open://",
        compute=spec.compute or "inline://",
        traffic=_traffic(spec.traffic, root, state),
    )


def _traffic(url: str | None, root: Path, state: Path) -> str:
    """The gateway's folder behind its driver's scheme; `envoy://` alone means the usual folder."""
    url = url or "local://"
    return f"{url}{state / 'gateway'}" if url.endswith("://") else _anchored(url, root) or url


def _registry(uri: str | None, root: Path) -> str | None:
    """The driver's URL of an MLflow tracking URI. `sqlite:///mlflow.db` is relative there, `sqlite:////` absolute."""
    if uri is not None and uri.startswith("sqlite:///"):
        return f"mlflow+sqlite://{root / uri.removeprefix('sqlite:///')}"
    return _anchored(uri, root)


def _anchored(url: str | None, root: Path) -> str | None:
    if url is None or scheme_of(url) not in _ON_THIS_MACHINE:
        return url
    scheme, separator, rest = url.partition("://")
    if not separator or not rest or Path(rest).is_absolute() or rest.startswith("~"):
        return url
    return f"{scheme}://{root / rest}"


def _with_option(url: str, name: str, value: str) -> str:
    _, _, query = url.rpartition("?")
    if any(part.startswith(f"{name}=") for part in query.split("&")):
        return url
    return f"{url}{'&' if '?' in url and '=' in query else '?'}{name}={value}"
