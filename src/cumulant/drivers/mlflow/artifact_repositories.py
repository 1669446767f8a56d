"""MLflow's files in an object store, by the port `artifacts`: with the clients, credentials and settings of all stores
of a project, where MLflow's own class needs another client and variables of its own.

The addresses are those that MLflow writes itself, so that MLflow alone reads the same files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import (
    _artifact_repository_registry as artifact_repositories,
)
from mlflow.tracking import get_tracking_uri

from cumulant.core.errors import UsageError
from cumulant.drivers.mlflow.artifacts import open_artifacts
from cumulant.drivers.mlflow.location import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cumulant.ports.objects import ArtifactEntry, Artifacts
    from cumulant.ports.secrets import Secrets


class StoredArtifacts(ArtifactRepository):
    """The files below one address."""

    def __init__(self, address: str, files: Artifacts, **more: Any) -> None:
        super().__init__(address, **more)
        self._files = files

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        source = Path(local_file)
        self._files.upload(_joined(artifact_path, source.name), source)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        folder = Path(local_dir)
        for source in sorted(path for path in folder.rglob("*") if path.is_file()):
            self._files.upload(_joined(artifact_path, source.relative_to(folder).as_posix()), source)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """The files and folders of one folder; nothing of a file."""
        below = _joined(path, "")
        listed: dict[str, FileInfo] = {}
        for entry in self._entries(below):
            name, slash, _ = entry.path.removeprefix(below).partition("/")
            listed[name] = FileInfo(f"{below}{name}", bool(slash), None if slash else entry.bytes)
        return [listed[name] for name in sorted(listed)]

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        below = _joined(artifact_path, "")
        paths = [entry.path for entry in self._entries(below)]
        self._files.delete([*paths, below.rstrip("/")] if below else paths)

    def _entries(self, below: str) -> list[ArtifactEntry]:
        """The files whose paths begin with this."""
        return [entry for entry in self._files.entries(below.rstrip("/")) if entry.path.startswith(below)]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        if not self._files.download(remote_file_path, Path(local_path)):
            raise FileNotFoundError(f"{self.artifact_uri}/{remote_file_path}")


class _Stores:
    """Makes the repository of an address: ours for the registries that were added, else the one of before."""

    def __init__(self, before: Callable[..., Any] | None) -> None:
        self._before = before
        self._secrets: dict[str, Secrets | None] = {}

    def add(self, tracking_uri: str, secrets: Secrets | None) -> None:
        self._secrets[tracking_uri] = secrets

    def __call__(self, address: str, tracking_uri: str | None = None, **more: Any) -> Any:
        registry = tracking_uri or get_tracking_uri()
        if registry in self._secrets:
            files = open_artifacts(address, self._secrets[registry])
            return StoredArtifacts(address, files, tracking_uri=tracking_uri, **more)
        if self._before is None:
            raise ValueError(f"no store of artifacts at {address}")
        return self._before(address, tracking_uri=tracking_uri, **more)


def use_stores(tracking_uri: str, secrets: Secrets | None) -> None:
    """Let MLflow, in this process, reach the files of a registry in any bucket by the port."""
    registered = cast("Any", artifact_repositories)
    for scheme in (bucket.partition("://")[0] for bucket in BUCKETS):
        stores = registered.get_registered_artifact_repositories().get(scheme)
        if not isinstance(stores, _Stores):
            stores = _Stores(stores)
            registered.register(scheme, stores)
        stores.add(tracking_uri, secrets)


def _joined(folder: str | None, name: str) -> str:
    folder = (folder or "").strip("/")
    path = f"{folder}/{name}" if folder else name
    if "\\" in path:  # the client of the store would write it as `/`
        raise UsageError(f'an object store cannot hold the name "{path}"', subject=path, hint="rename the file")
    return path
