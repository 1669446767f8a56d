"""A registry in memory: runs, model versions and aliases, without a server."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import UsageError, not_found
from cumulant.ports.registry import MODEL_URI, About, Dataset, ModelVersion, Origin, RunLog, cut_versions

if TYPE_CHECKING:
    import pandas as pd


class MemoryRun:
    """An open or finished run; what was logged is in its attributes."""

    def __init__(self, registry: MemoryRegistry, identity: str, name: str, parent: str | None = None) -> None:
        self._registry = registry
        self._id = identity
        self.name = name
        self.parent = parent
        self.logged_params: dict[str, object] = {}
        self.logged_metrics: dict[str, float] = {}
        self.logged_tags: dict[str, str] = {}
        self.artifacts: dict[str, bytes] = {}
        self.datasets: list[Dataset] = []
        self.description = ""
        self.origin: Origin | None = None

    @property
    def id(self) -> str:
        return self._id

    def params(self, values: dict[str, object]) -> None:
        self.logged_params |= values

    def metrics(self, values: dict[str, float], *, step: int | None = None) -> None:
        del step
        self.logged_metrics |= values

    def tags(self, values: dict[str, str]) -> None:
        self.logged_tags |= values

    def artifact(self, path: Path, folder: str | None = None) -> None:
        files = [path] if path.is_file() else sorted(below for below in path.rglob("*") if below.is_file())
        for file in files:
            name = file.relative_to(path.parent).as_posix()
            self.artifacts[f"{folder}/{name}" if folder else name] = file.read_bytes()

    def dataset(self, data: Dataset) -> None:
        if data not in self.datasets:
            self.datasets.append(data)

    def describe(self, text: str) -> None:
        self.description = text

    @contextmanager
    def child(self, name: str, *, begun: datetime | None = None, seconds: float | None = None) -> Iterator[RunLog]:
        del begun, seconds
        yield self._registry.opened(f"{self._id}/{name}", name, parent=self._id)


class MemoryRegistry:
    """Runs and versions by the keys that they were made with; they end with this object."""

    tracking_uri = "memory://"

    def __init__(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="cumulant-registry-")
        self._folder = Path(folder.name)
        self._end = weakref.finalize(self, folder.cleanup)
        self.runs: dict[str, MemoryRun] = {}
        #: by model, and by `model/version`
        self.descriptions: dict[str, str] = {}
        self._versions: dict[str, list[ModelVersion]] = {}
        self._keys: dict[tuple[str, str], str] = {}

    @contextmanager
    def run(self, experiment: str, name: str, *, key: str, origin: Origin | None = None) -> Iterator[RunLog]:
        run = self.opened(f"{experiment}/{key}", name)
        run.origin = run.origin or origin
        yield run

    def opened(self, identity: str, name: str, *, parent: str | None = None) -> MemoryRun:
        return self.runs.setdefault(identity, MemoryRun(self, identity, name, parent))

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
        if standing := self._keys.get((name, key)):
            return self._version(name, standing)
        if len(example) == 0:
            raise UsageError("an input example needs a row", subject=name)
        versions = self._versions.setdefault(name, [])
        number = str(len(versions) + 1)
        shutil.copytree(servable, self._folder / name / number)
        version = ModelVersion(
            name=name,
            version=number,
            uri=f"models:/{name}/{number}",
            run_id=run.id,
            created=datetime.now(UTC),
            tags=dict(tags),
        )
        versions.append(version)
        self._keys[name, key] = number
        if about is not None:
            self.descriptions[f"{name}/{number}"] = about.version
            self.descriptions.setdefault(name, about.model)
        return version

    def models(self) -> Iterator[str]:
        return iter(sorted(self._versions))

    def versions(self, name: str, *, before: str | None = None, limit: int | None = None) -> Sequence[ModelVersion]:
        if name not in self._versions:
            raise not_found("model", name, self._versions)
        return cut_versions(self._versions[name][::-1], before, limit)

    def resolve(self, uri: str) -> ModelVersion:
        match = MODEL_URI.fullmatch(uri)
        if match is None:
            raise not_found("model", uri, self._versions)
        versions = self.versions(match["name"])
        for version in versions:
            if match["alias"] in version.aliases or version.version == match["version"]:
                return version
        if match["alias"] or match["version"]:
            names = [*(alias for version in versions for alias in version.aliases), *(v.version for v in versions)]
            raise not_found(f"version or alias of {match['name']}", match["alias"] or match["version"], names)
        return versions[0]

    def fetch(self, version: ModelVersion, into: Path) -> Path:
        self._version(version.name, version.version)
        return Path(shutil.copytree(self._folder / version.name / version.version, into / "servable"))

    def download(self, uri: str, into: Path) -> Path:
        if uri.startswith("runs:/"):
            raise not_found("model of a run", uri, ())
        return self.fetch(self.resolve(uri), into)

    def alias(self, name: str, alias: str, version: str | None) -> None:
        if version is not None:
            self._version(name, version)
        for standing in self.versions(name):
            others = tuple(other for other in standing.aliases if other != alias)
            aliases = tuple(sorted({*others, alias})) if standing.version == version else others
            self._replace(msgspec.structs.replace(standing, aliases=aliases))

    def tag(self, name: str, version: str, tags: dict[str, str | None]) -> None:
        standing = self._version(name, version)
        merged = {key: value for key, value in {**standing.tags, **tags}.items() if value is not None}
        self._replace(msgspec.structs.replace(standing, tags=merged))

    def metrics(self, run_id: str) -> dict[str, float]:
        return dict(self._run(run_id).logged_metrics)

    def attach(self, run_id: str, path: Path, folder: str | None = None) -> None:
        self._run(run_id).artifact(path, folder)

    def _run(self, run_id: str) -> MemoryRun:
        if run_id not in self.runs:
            raise not_found("run", run_id, self.runs)
        return self.runs[run_id]

    def _version(self, name: str, number: str) -> ModelVersion:
        for version in self.versions(name):
            if version.version == number:
                return version
        raise not_found(f"version of {name}", number, [version.version for version in self.versions(name)])

    def _replace(self, version: ModelVersion) -> None:
        self._versions[version.name][int(version.version) - 1] = version
