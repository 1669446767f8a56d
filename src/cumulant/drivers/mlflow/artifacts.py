"""A registry's files in an object store, by the port `artifacts`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.ports.plugins import Drivers

if TYPE_CHECKING:
    from cumulant.ports.objects import Artifacts
    from cumulant.ports.secrets import Secrets


def open_artifacts(address: str, secrets: Secrets | None) -> Artifacts:
    """The files below an address."""
    drivers = Drivers.installed()
    files: Artifacts = drivers.client(address, "artifacts", secrets=None if secrets is None else lambda: secrets)
    return files


def copy_files(files: Artifacts, folder: Path) -> None:
    """Copy all of them into a folder. Raises StorageError, EngineUnavailableError: as their store does."""
    for entry in list(files.entries()):
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        files.download(entry.path, target)
