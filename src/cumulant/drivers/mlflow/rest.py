"""What a tracking server's registry holds, read by MLflow's REST API: importing MLflow takes seconds of CPU.

Nothing is written. What cannot be read this way (another answer than the API's, a redirect, credentials other than
those of the environment, a server that is slow) gives None: MLflow's client then reads it, or raises its error.
"""

from __future__ import annotations

import base64
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from cumulant.core.network.http_client import HttpClient, NoResponseError
from cumulant.drivers.mlflow.reach import check_reachable
from cumulant.ports.registry import ModelVersion

Result = TypeVar("Result")
_TIMEOUT = 10.0
_NOT_FOUND = 404
_PAGE = 1000
#: variables that this reader follows as MLflow does; others that say how the server is reached are left to MLflow
_FOLLOWED = {f"MLFLOW_TRACKING_{name}" for name in ("URI", "USERNAME", "PASSWORD", "TOKEN")}


class _UnreadableError(Exception):
    """An answer that only MLflow's client can tell the meaning of."""


class Rest(msgspec.Struct, frozen=True):
    """The server at `url`."""

    url: str
    environ: Mapping[str, str] = msgspec.field(default_factory=lambda: os.environ)

    def models(self) -> list[str] | None:
        """Names of the registered models, in their order."""
        return self._read(lambda: [one["name"] for one in self._pages("registered-models/search", "registered_models")])

    def versions(self, name: str) -> list[ModelVersion] | None:
        """The versions of a model, newest first; none of a model that is not registered."""
        return self._read(lambda: self._versions(name))

    def metrics(self, run_id: str) -> dict[str, float] | None:
        """The last value of each metric of a run that exists."""

        def read() -> dict[str, float]:
            run = self._get("runs/get", run_id=run_id)["run"]
            return {one["key"]: float(one["value"]) for one in run["data"].get("metrics", ())}

        return self._read(read)

    def _versions(self, name: str) -> list[ModelVersion]:
        model = self._get("registered-models/get", name=name)
        aliases = defaultdict[str, list[str]](list)
        for one in sorted(model.get("registered_model", {}).get("aliases", ()), key=lambda one: str(one["alias"])):
            aliases[str(one["version"])].append(one["alias"])
        found = list(self._pages("model-versions/search", "model_versions", filter=f"name = '{name}'")) if model else []
        found.sort(key=lambda one: int(one["version"]), reverse=True)
        return [_version(one, tuple(aliases[str(one["version"])])) for one in found]

    def _pages(self, path: str, part: str, **query: str) -> Iterator[dict[str, Any]]:
        query["max_results"] = str(_PAGE)
        while True:
            page = self._get(path, **query)
            yield from page.get(part, ())
            query["page_token"] = page.get("next_page_token", "")
            if not query["page_token"]:
                return

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        """The document at a path; an empty one where the server says that there is no such thing.

        Raises:
            _UnreadableError, NoResponseError: the server gives something else, or nothing.
        """
        address = f"{self.url.rstrip('/')}/api/2.0/mlflow/{path}?{urlencode(query)}"
        # A redirect is not followed: it could take the token to another host.
        response = HttpClient(seconds=_TIMEOUT, use_proxies=True).get(address, self._credentials())
        if response.ok:
            return msgspec.json.decode(response.body, type=dict[str, Any])
        if response.status == _NOT_FOUND and b"RESOURCE_DOES_NOT_EXIST" in response.body:
            return {}
        raise _UnreadableError

    def _credentials(self) -> dict[str, str]:
        """As MLflow takes them from the environment."""
        name, password, token = (
            self.environ.get(f"MLFLOW_TRACKING_{one}") for one in ("USERNAME", "PASSWORD", "TOKEN")
        )
        if name and password:
            return {"authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}
        return {"authorization": f"Bearer {token}"} if token else {}

    def _read(self, read: Callable[[], Result]) -> Result | None:
        """What `read` makes of the server's answers.

        Raises:
            EngineUnavailableError, UsageError: as `check_reachable`.
        """
        if urlsplit(self.url).scheme not in ("http", "https") or "@" in self.url or _otherwise(self.environ):
            return None
        check_reachable(self.url)
        try:
            return read()
        except (_UnreadableError, NoResponseError, msgspec.MsgspecError, KeyError, TypeError, ValueError):
            return None


def _otherwise(environ: Mapping[str, str]) -> bool:
    """Whether the environment says something of the server that this reader does not follow."""
    return "MLFLOW_WORKSPACE" in environ or any(
        name.startswith("MLFLOW_TRACKING_") and name not in _FOLLOWED for name in environ
    )


def _version(one: dict[str, Any], aliases: tuple[str, ...]) -> ModelVersion:
    name, version = one["name"], str(one["version"])
    created = int(one.get("creation_timestamp") or one.get("last_updated_timestamp") or 0)
    return ModelVersion(
        name=name,
        version=version,
        uri=f"models:/{name}/{version}",
        run_id=one.get("run_id", ""),
        created=datetime.fromtimestamp(created / 1000, UTC),
        aliases=aliases,
        tags={tag["key"]: tag.get("value", "") for tag in one.get("tags", ())},
    )
