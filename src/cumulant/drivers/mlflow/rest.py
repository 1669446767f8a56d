"""A reader of a tracking server's registry by MLflow's REST API: importing MLflow takes seconds of CPU.

Nothing is written. Where this does not work (another response than the API's, a redirect, credentials other than those
of the environment, a slow server), the result is None: MLflow's client then reads it, or raises its error.
"""

from __future__ import annotations

import base64
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from cumulant.core.network.http_client import HttpClient, NoResponseError
from cumulant.drivers.mlflow.reach import check_reachable
from cumulant.drivers.mlflow.tables import ALL_VERSIONS, VersionPage, model_version
from cumulant.ports.registry import ModelVersion

Result = TypeVar("Result")
_TIMEOUT = 10.0
_NOT_FOUND = 404
_PAGE = 1000
#: variables that this reader uses as MLflow does; with others that configure the connection, MLflow's client is used
_FOLLOWED = {f"MLFLOW_TRACKING_{name}" for name in ("URI", "USERNAME", "PASSWORD", "TOKEN")}


class _UnreadableError(Exception):
    """A response that only MLflow's client can interpret."""


class Rest(msgspec.Struct, frozen=True):
    url: str
    environ: Mapping[str, str] = msgspec.field(default_factory=lambda: os.environ)

    def models(self) -> list[str] | None:
        return self._read(
            lambda: [model["name"] for model in self._pages("registered-models/search", "registered_models")]
        )

    def versions(self, name: str, page: VersionPage = ALL_VERSIONS) -> list[ModelVersion] | None:
        """The versions of a model, newest first; none of a model that is not registered."""
        return self._read(lambda: page.cut(self._versions(name)))

    def metrics(self, run_id: str) -> dict[str, float] | None:
        """The last value of each metric of a run that exists."""

        def read() -> dict[str, float]:
            run = self._get("runs/get", run_id=run_id)["run"]
            return {metric["key"]: float(metric["value"]) for metric in run["data"].get("metrics", ())}

        return self._read(read)

    def _versions(self, name: str) -> list[ModelVersion]:
        model = self._get("registered-models/get", name=name)
        aliases = defaultdict[str, list[str]](list)
        for entry in sorted(
            model.get("registered_model", {}).get("aliases", ()), key=lambda entry: str(entry["alias"])
        ):
            aliases[str(entry["version"])].append(entry["alias"])
        documents = (
            list(self._pages("model-versions/search", "model_versions", filter=f"name = '{name}'")) if model else []
        )
        documents.sort(key=lambda document: int(document["version"]), reverse=True)
        return [_version(document, tuple(aliases[str(document["version"])])) for document in documents]

    def _pages(self, path: str, part: str, **query: str) -> Iterator[dict[str, Any]]:
        query["max_results"] = str(_PAGE)
        while True:
            page = self._get(path, **query)
            yield from page.get(part, ())
            query["page_token"] = page.get("next_page_token", "")
            if not query["page_token"]:
                return

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        """The document at a path; an empty one where the server reports that it does not exist."""
        address = f"{self.url.rstrip('/')}/api/2.0/mlflow/{path}?{urlencode(query)}"
        # A redirect is not followed: it could take the token to another host.
        response = HttpClient(seconds=_TIMEOUT, use_proxies=True).get(address, self._credentials())
        if response.ok:
            return msgspec.json.decode(response.body, type=dict[str, Any])
        if response.status == _NOT_FOUND and b"RESOURCE_DOES_NOT_EXIST" in response.body:
            return {}
        raise _UnreadableError

    def _credentials(self) -> dict[str, str]:
        name, password, token = (
            self.environ.get(f"MLFLOW_TRACKING_{part}") for part in ("USERNAME", "PASSWORD", "TOKEN")
        )
        if name and password:
            return {"authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}
        return {"authorization": f"Bearer {token}"} if token else {}

    def _read(self, read: Callable[[], Result]) -> Result | None:
        """The result of `read`; None if the server cannot be read this way."""
        if urlsplit(self.url).scheme not in ("http", "https") or "@" in self.url or _has_other_settings(self.environ):
            return None
        check_reachable(self.url)
        try:
            return read()
        except (_UnreadableError, NoResponseError, msgspec.MsgspecError, KeyError, TypeError, ValueError):
            return None


def _has_other_settings(environ: Mapping[str, str]) -> bool:
    """Whether the environment has settings of the connection that this reader does not support."""
    return "MLFLOW_WORKSPACE" in environ or any(
        name.startswith("MLFLOW_TRACKING_") and name not in _FOLLOWED for name in environ
    )


def _version(document: dict[str, Any], aliases: tuple[str, ...]) -> ModelVersion:
    created = int(document.get("creation_timestamp") or document.get("last_updated_timestamp") or 0)
    tags = {tag["key"]: tag.get("value", "") for tag in document.get("tags", ())}
    return model_version(
        document["name"], document["version"], document.get("run_id", ""), created, aliases=aliases, tags=tags
    )
