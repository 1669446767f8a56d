"""Port `registry`: experiment runs and model versions with aliases (never stages)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from cumulant.core.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

#: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `NAME@ALIAS`, `NAME/VERSION` or `NAME`
MODEL_URI = re.compile(r"(?:models:/+)?(?P<name>[^/@:']+)(?:@(?P<alias>[^/@:]+)|/(?P<version>[^/@:]+))?")


#: digits of a number that fits into what stores count with
_DIGITS = 19


def model_name(uri: str) -> str:
    """The name of the model that a URI is of, whatever version or alias it names; what is no such URI is itself."""
    parts = MODEL_URI.fullmatch(uri)
    return uri if parts is None else parts["name"]


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    uri: str
    run_id: str | None
    created: datetime
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = {}


def version_number(version: str | None) -> int | None:
    """The number of a version; None: without one. Raises UsageError: it is no number."""
    if version is None:
        return None
    if not (version.isascii() and version.isdecimal() and len(version) < _DIGITS):
        raise UsageError("a version is a number", subject=version[:_DIGITS], hint="`cumulant models list` shows them")
    return int(version)


def cut_versions(listed: Sequence[ModelVersion], before: str | None, limit: int | None) -> Sequence[ModelVersion]:
    """Of versions, the newest first, what `Registry.versions` returns for `before` and `limit`. Raises UsageError."""
    number = version_number(before)
    return [each for each in listed if number is None or int(each.version) < number][:limit]


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run comes from: who started what, when, and from which commit of the code (empty: unknown)."""

    user: str
    command: str
    begun: datetime
    commit: str = ""


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """Data that went into a run. `fields` are its columns with their types; `use`: its purpose."""

    name: str
    digest: str
    source: str
    rows: int
    fields: dict[str, str] = {}
    use: str = "training"


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a person reads in the registry, as short Markdown: on the version, and on the model as a whole."""

    version: str = ""
    model: str = ""


class RunLog(Protocol):
    """One open run of an experiment."""

    @property
    def id(self) -> str: ...

    def params(self, values: dict[str, object]) -> None: ...

    def metrics(self, values: dict[str, float], *, step: int | None = None) -> None: ...

    def tags(self, values: dict[str, str]) -> None: ...

    def artifact(self, path: Path, folder: str | None = None) -> None: ...

    def dataset(self, data: Dataset) -> None:
        """Record a data set that went into the run; recorded again, it stays one."""
        ...

    def describe(self, text: str) -> None:
        """Set the run's description, as Markdown."""
        ...

    def child(
        self, name: str, *, begun: datetime | None = None, seconds: float | None = None
    ) -> AbstractContextManager[RunLog]:
        """A run below this one. `begun` and `seconds`: when its work was done, where that was not now."""
        ...


class Registry(Protocol):
    @property
    def tracking_uri(self) -> str:
        """Where a person finds it: what `mlflow ui --backend-store-uri` takes."""
        ...

    def run(
        self, experiment: str, name: str, *, key: str, origin: Origin | None = None
    ) -> AbstractContextManager[RunLog]:
        """Open a run. `key` is the identity of the work: opened again with it, the run is resumed.

        A new run begins at the time of `origin`, else now.
        """
        ...

    def register(
        self,
        run: RunLog,
        name: str,
        servable: Path,
        example: pd.DataFrame,
        *,
        tags: dict[str, str],
        key: str,
        about: About | None = None,
    ) -> ModelVersion:
        """Log the servable as a model of `run` and register it; the same `key` gives the version that exists.

        A description that the model as a whole has already stays: a person may have written it.
        """
        ...

    def models(self) -> Iterator[str]: ...

    def versions(self, name: str, *, before: str | None = None, limit: int | None = None) -> Sequence[ModelVersion]:
        """Newest first: at most `limit`, older than the version `before`. Raises NotFoundError: no such model."""
        ...

    def resolve(self, uri: str) -> ModelVersion:
        """`models:/name@alias`, `models:/name/3`, `name@alias`, `name/3` or `name` (newest).

        Raises NotFoundError.
        """
        ...

    def fetch(self, version: ModelVersion, into: Path) -> Path:
        """The version's servable folder, under `into`."""
        ...

    def download(self, uri: str, into: Path) -> Path:
        """All files of the model at `uri`, under `into`: any MLflow model, not only one that holds a servable.

        `uri` is as `resolve` takes it, or runs:/ID/PATH. Raises NotFoundError.
        """
        ...

    def alias(self, name: str, alias: str, version: str | None) -> None:
        """Point `alias` at a version; None removes it."""
        ...

    def tag(self, name: str, version: str, tags: dict[str, str | None]) -> None: ...

    def metrics(self, run_id: str) -> dict[str, float]: ...

    def attach(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Add a file to a finished run (a report)."""
        ...
