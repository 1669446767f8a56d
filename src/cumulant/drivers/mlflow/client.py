"""The port `registry` on MLflow 3."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.errors import NotFoundError, UsageError, not_found
from cumulant.core.system.atomic_files import storage_errors
from cumulant.drivers.mlflow.artifacts import copy_files, open_artifacts
from cumulant.drivers.mlflow.database import follow_artifacts, make_database
from cumulant.drivers.mlflow.engine import engine, use_uri
from cumulant.drivers.mlflow.location import BUCKETS, locate
from cumulant.drivers.mlflow.models import log_model
from cumulant.drivers.mlflow.postgres_schema import make_schema
from cumulant.drivers.mlflow.reach import check_reachable
from cumulant.drivers.mlflow.rest import Rest
from cumulant.drivers.mlflow.runs import KEY_TAG, MlflowRun, add_artifact, open_run, origin_tags
from cumulant.drivers.mlflow.tables import PostgresTables, Tables, VersionPage, model_version
from cumulant.ports.registry import MODEL_URI, About, ModelVersion, cut_versions, version_number

if TYPE_CHECKING:
    import pandas as pd

    from cumulant.ports.objects import Artifacts
    from cumulant.ports.registry import Origin, RunLog
    from cumulant.ports.secrets import Secrets

#: a logged model by its own id, which is no registered name
_LOGGED = re.compile(r"models:/m-[0-9a-f]{32}")
_SERVABLE = "artifacts"
_NONE = "there is none yet: cumulant train"
#: MLflow's pages open the experiment as one of trained models, not of agents and traces
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


class MlflowRegistry:
    """`mlflow+sqlite:///PATH/mlflow.db`, `mlflow+postgresql://HOST/DATABASE?artifacts=URL`, `https://HOST` or
    `databricks`. MLflow is imported on first use.

    A database is read without MLflow (`tables`), and so is a server (`rest`); MLflow alone writes.

    Raises:
        UsageError: an address of another kind, or a name that MLflow refuses.
        EngineUnavailableError: the tracking server does not answer.
        StorageError: no space, or a place that cannot be written.
    """

    def __init__(self, url: str, *, secrets: Secrets | None = None) -> None:
        self._location, self._secrets = locate(url), secrets

    @property
    def tracking_uri(self) -> str:
        """What stock MLflow takes: `mlflow ui --backend-store-uri ...`."""
        return self._location.tracking_uri

    @cached_property
    def _client(self) -> Any:
        location = self._location
        check_reachable(location.tracking_uri)  # MLflow itself retries for 15 seconds
        with engine(location.name) as mlflow:
            if location.database is not None and location.artifacts is not None:
                make_database(location.database, location.artifacts)
                follow_artifacts(location.database, location.artifacts)
            if location.postgres is not None:
                from cumulant.drivers.mlflow.artifact_repositories import use_stores  # it imports MLflow

                use_stores(location.tracking_uri, self._secrets)
                make_schema(location.postgres)
            return mlflow.MlflowClient(location.tracking_uri)

    def _engine(self, subject: str) -> AbstractContextManager[ModuleType]:
        """The package, once the server is reachable: importing it takes seconds."""
        assert self._client is not None
        return engine(subject)

    @contextmanager
    def run(self, experiment: str, name: str, *, key: str, origin: Origin | None = None) -> Iterator[MlflowRun]:
        tags, begun = (origin_tags(origin), origin.begun) if origin else ({}, None)
        with open_run(self._client, self._experiment(experiment), name, key=key, tags=tags, begun=begun) as run:
            yield run

    def _experiment(self, name: str) -> str:
        with self._engine(f"experiment {name}") as mlflow:
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                try:
                    place = self._artifacts(name)
                    return str(self._client.create_experiment(name, artifact_location=place, tags=_EXPERIMENT_TAGS))
                except mlflow.exceptions.MlflowException as error:
                    experiment = self._client.get_experiment_by_name(name)
                    if experiment is None:  # not created by another process meanwhile
                        raise error from None
            if experiment.lifecycle_stage == "deleted":
                self._client.restore_experiment(experiment.experiment_id)
            return str(experiment.experiment_id)

    def _artifacts(self, experiment: str) -> str | None:
        name = re.sub(r"[^\w\-.]", "_", experiment)
        if self._location.postgres is not None:
            return f"{self._location.postgres.artifacts}/{name}"
        return None if self._location.artifacts is None else (self._location.artifacts / name).as_uri()

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
        about = about or About()
        with self._engine(name), use_uri(self.tracking_uri):
            if (present := self._version_with_key(name, key)) is not None:
                return present
            experiment_id = self._client.get_run(run.id).info.experiment_id
            model_id = log_model(self._client, (experiment_id, run.id), servable, example, tags=tags, key=key)
            model = self._model(name)
            if model is None:
                self._client.create_registered_model(name, description=about.model or None)
            elif about.model and not model.description:
                self._client.update_registered_model(name, description=about.model)
            created = self._client.create_model_version(
                name,
                f"models:/{model_id}",
                run_id=run.id,
                tags={**tags, KEY_TAG: key},
                description=about.version or None,
                model_id=model_id,
            )
            return self._version(self._client.get_model_version(name, created.version), ())

    def _version_with_key(self, name: str, key: str) -> ModelVersion | None:
        return (
            next((version for version in self.versions(name) if version.tags.get(KEY_TAG) == key), None)
            if self._model(name)
            else None
        )

    def _model(self, name: str) -> Any | None:
        models = self._client.search_registered_models(f"name = '{_check_name(name)}'", max_results=1)
        return models[0] if models else None

    @cached_property
    def _tables(self) -> Tables | None:
        location = self._location
        if location.database is None or location.artifacts is None:
            return None
        try:
            follow_artifacts(location.database, location.artifacts)
        except (OSError, sqlite3.Error):
            return None  # MLflow's client raises the same, mapped to our errors
        return Tables(location.database)

    @cached_property
    def _reader(self) -> Tables | PostgresTables | Rest | None:
        if self._location.postgres is not None:
            return PostgresTables(self._location.postgres)
        return self._tables if self._location.database is not None else Rest(self._location.tracking_uri)

    def models(self) -> Iterator[str]:
        names = self._reader.models() if self._reader else None
        if names is not None:
            yield from names
            return
        token = None
        while True:
            with self._engine("registered models"):
                page = self._client.search_registered_models(page_token=token)
            yield from (model.name for model in page)
            token = page.token
            if not token:
                return

    def versions(self, name: str, *, before: str | None = None, limit: int | None = None) -> Sequence[ModelVersion]:
        page = VersionPage(version_number(before), limit)
        read = self._reader.versions(_check_name(name), page) if self._reader else None
        if read or (read is not None and name in self.models()):
            return read
        if read is not None:
            raise not_found("registered model", name, self.models(), empty=_NONE)
        with self._engine(name):
            aliases = self._aliases(name)
            entities, token = [], None
            while True:
                page = self._client.search_model_versions(f"name = '{_check_name(name)}'", page_token=token)
                entities += page
                token = page.token
                if not token:
                    break
        entities.sort(key=lambda entity: int(entity.version), reverse=True)
        listed = [self._version(entity, aliases.get(str(entity.version), ())) for entity in entities]
        return cut_versions(listed, before, limit)

    def _aliases(self, name: str) -> dict[str, tuple[str, ...]]:
        """Version -> its aliases. Raises NotFoundError for an unknown model."""
        if self._model(name) is None:
            raise not_found("registered model", name, self.models(), empty=_NONE)
        byversion: dict[str, tuple[str, ...]] = {}
        for alias, version in sorted(self._client.get_registered_model(name).aliases.items()):
            byversion[str(version)] = (*byversion.get(str(version), ()), alias)
        return byversion

    def _version(self, entity: Any, aliases: tuple[str, ...]) -> ModelVersion:
        created = entity.creation_timestamp or entity.last_updated_timestamp or 0
        return model_version(
            entity.name, entity.version, entity.run_id, created, aliases=aliases, tags=dict(entity.tags)
        )

    def resolve(self, uri: str) -> ModelVersion:
        parts = MODEL_URI.fullmatch(uri)
        if parts is None:
            hint = "write models:/NAME@ALIAS, models:/NAME/VERSION, NAME@ALIAS, NAME/VERSION or NAME"
            raise NotFoundError(f'"{uri}" is no model URI', subject=uri, hint=hint)
        name, alias, version = parts["name"], parts["alias"], parts["version"]
        versions = self.versions(name)
        if not versions:
            raise not_found(f"version of {name}", version or "newest", ())
        if alias is not None:
            matches = [candidate for candidate in versions if alias in candidate.aliases]
            known = [other for candidate in versions for other in candidate.aliases]
            return _pick_version(matches, f"alias of {name}", alias, known)
        if version is not None:
            matches = [candidate for candidate in versions if candidate.version == version]
            known = [candidate.version for candidate in versions]
            return _pick_version(matches, f"version of {name}", version, known)
        return versions[0]

    def fetch(self, version: ModelVersion, into: Path) -> Path:
        """Copy the version's servable folder below `into`; its description names the registered version."""
        target = into / f"{version.name}-{version.version}"
        with ExitStack() as opened:
            folder = self._tables.folder(version) if self._tables else None
            if folder is None and (stored := self._stored(version)) is not None:
                folder = Path(opened.enter_context(TemporaryDirectory()))
                copy_files(stored, folder)
            if folder is None:
                folder = Path(opened.enter_context(TemporaryDirectory()))
                mlflow = opened.enter_context(self._engine(version.uri))
                opened.enter_context(use_uri(self.tracking_uri))
                source = self._client.get_model_version_download_uri(version.name, version.version)
                mlflow.artifacts.download_artifacts(source, dst_path=str(folder), tracking_uri=self.tracking_uri)
            servable = next(folder.glob(f"**/{_SERVABLE}/*/servable.json"), None)
            if servable is None:
                hint = "train it with `cumulant train`"
                raise UsageError(f"{version.uri} was not registered by Cumulant", subject=version.uri, hint=hint)
            _copy_servable(servable.parent, target, version.version)
        return target

    def _stored(self, version: ModelVersion) -> Artifacts | None:
        """The files of a version in an object store, read without MLflow."""
        address = self._reader.storage(version) if isinstance(self._reader, PostgresTables) else None
        if address is None or not address.startswith(BUCKETS):
            return None
        return open_artifacts(address, self._secrets)

    def download(self, uri: str, into: Path) -> Path:
        """Download the folder of an MLflow model of any kind, below `into`."""
        into.mkdir(parents=True, exist_ok=True)
        with engine(uri) as mlflow, use_uri(self.tracking_uri):
            source = uri
            if not uri.startswith("runs:/") and _LOGGED.fullmatch(uri) is None:
                version = self.resolve(uri)
                source = self._client.get_model_version_download_uri(version.name, version.version)
            folder = mlflow.artifacts.download_artifacts(source, dst_path=str(into), tracking_uri=self.tracking_uri)
        return Path(folder)

    def alias(self, name: str, alias: str, version: str | None) -> None:
        with self._engine(f"{name}@{alias}"):
            if version is None:
                self._client.delete_registered_model_alias(name, alias)
            else:
                self._client.set_registered_model_alias(name, alias, version)

    def tag(self, name: str, version: str, tags: dict[str, str | None]) -> None:
        with self._engine(f"models:/{name}/{version}"):
            for key, value in tags.items():
                if value is None:
                    self._client.delete_model_version_tag(name, version, key)
                else:
                    self._client.set_model_version_tag(name, version, key, value)

    def metrics(self, run_id: str) -> dict[str, float]:
        read = self._reader.metrics(run_id) if self._reader else None
        if read is not None:
            return read
        with self._engine(f"run {run_id}"):
            return dict(self._client.get_run(run_id).data.metrics)

    def attach(self, run_id: str, path: Path, folder: str | None = None) -> None:
        artifacts = self._tables.artifacts(run_id) if self._tables else None
        if artifacts is not None and path.is_file():
            _copy_artifact(path, _artifact_folder(artifacts, folder))
            return
        with self._engine(f"run {run_id}"):
            add_artifact(self._client, run_id, path, folder)


def _artifact_folder(artifacts: Path, folder: str | None) -> Path:
    """The folder of that name among a run's files; UsageError if it leads out of them."""
    root = artifacts.resolve()
    target = (root / (folder or "")).resolve()
    if not target.is_relative_to(root):
        hint = "give a relative path without .., such as report"
        raise UsageError(f'"{folder}" is not a folder among the files of the run', subject=folder, hint=hint)
    return target


def _copy_artifact(path: Path, folder: Path) -> None:
    """Copy a file to a run's files, as MLflow does if they are in the file system."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path.name)


def _check_name(name: str) -> str:
    if "'" in name or not name:
        raise UsageError(f'"{name}" cannot be the name of a model', subject=name, hint="use letters, digits, - and _")
    return name


def _pick_version(versions: Sequence[ModelVersion], kind: str, wanted: str, known: Sequence[str]) -> ModelVersion:
    if not versions:
        raise not_found(kind, wanted, known)
    return versions[0]


def _copy_servable(source: Path, target: Path, version: str) -> None:
    """Copy the servable atomically, with its version in the description."""
    draft = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    # Without the modes: an object store may have given out files that are read-only.
    shutil.copytree(source, draft, copy_function=shutil.copyfile)
    described = msgspec.json.decode((draft / "servable.json").read_bytes(), type=dict[str, Any])
    named = described | {"version": version}
    (draft / "servable.json").write_bytes(msgspec.json.format(msgspec.json.encode(named), indent=2))
    shutil.rmtree(target, ignore_errors=True)
    with storage_errors(target):
        draft.rename(target)
