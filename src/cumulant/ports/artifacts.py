"""Port `artifacts`: named files below one address, such as those of a registry's runs and models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class ArtifactEntry(Protocol):
    @property
    def path(self) -> str: ...

    @property
    def bytes(self) -> int: ...


class Artifacts(Protocol):
    """Paths are relative to the address, with `/` between their parts."""

    def upload(self, path: str, source: Path) -> None:
        """Write a file, new or not."""
        ...

    def download(self, path: str, target: Path) -> bool:
        """Read a file into `target`; False where it does not exist."""
        ...

    def entries(self, prefix: str = "") -> Iterator[ArtifactEntry]:
        """The files below the folder `prefix`, at any depth."""
        ...

    def delete(self, paths: list[str]) -> None:
        """Delete files; one that does not exist is none."""
        ...
