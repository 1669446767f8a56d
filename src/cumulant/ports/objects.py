"""Port `objects`: immutable files and folders under content names (servables, reports, studies).

Port `artifacts`: named files below one address, such as those of a registry's runs and models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from cumulant.core.refs import ObjectRef


class ObjectStore(Protocol):
    def put(self, key: str, source: Path) -> ObjectRef:
        """Store a file or folder whole; an object that already stands under `key` is kept."""
        ...

    def open(self, key: str) -> AbstractContextManager[Path]:
        """The object as a read-only file or folder of this machine, while the block lasts: the stored one itself, or a
        copy that a remote store fetches first.

        Raises:
            NotFoundError: there is no such object (its `subject` is `key`), or no such store.
        """
        ...

    def find(self, key: str) -> ObjectRef | None: ...

    def keys(self, prefix: str = "") -> list[str]: ...

    def delete(self, key: str) -> None: ...


class ArtifactEntry(Protocol):
    @property
    def path(self) -> str: ...

    @property
    def bytes(self) -> int: ...

    @property
    def modified(self) -> float:
        """Seconds since 1970, by the store's clock."""
        ...


class FileClasses(NamedTuple):
    """The storage class of each file, in the store's words; empty where it is not known. `cause`: why it is not; empty
    where the store answered, and says none.
    """

    names: list[str]
    cause: str = ""


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

    def classes(self, paths: Sequence[str]) -> FileClasses:
        """The storage class of each file, asked for in this order and for a bounded time."""
        ...

    def delete(self, paths: list[str]) -> None:
        """Delete files; one that does not exist is none."""
        ...
