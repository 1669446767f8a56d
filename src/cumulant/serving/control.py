"""Loading, swapping and unloading models, and what a worker tells of itself."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cumulant.core.errors import CumulantError, NotFoundError, UsageError
from cumulant.serving.fleet import Fleet
from cumulant.serving.models import Model, ModelSet
from cumulant.serving.repository import Repository
from cumulant.serving.row_model import UNREGISTERED

Open = Callable[[Path], Model]


class Staff:
    """One worker's duties. A model is opened and warmed on a thread, so that requests go on meanwhile."""

    def __init__(
        self, models: ModelSet, repository: Repository, open_one: Open, *, put: Callable[[ModelSet], None],
        told: Callable[[], list[Any]],
    ) -> None:  # fmt: skip
        self.models = models
        self._repository, self._open, self._put, self._told = repository, open_one, put, told
        self._staged: dict[str, tuple[str, list[Model]]] = {}

    async def do(self, verb: str, arguments: Mapping[str, Any]) -> Any:
        """One of `prepare`, `commit`, `discard`, `unload`, `metrics`, `ready`.

        Raises:
            CumulantError: as loading a model; UsageError for another verb.
        """
        match verb:
            case "prepare":
                return await self._prepare(str(arguments["name"]), str(arguments["key"]))
            case "commit":
                name, models = self._staged.pop(str(arguments["key"]))
                self._replace(name, models)
            case "discard":
                for model in self._staged.pop(str(arguments["key"]), ("", []))[1]:
                    model.close()
            case "unload":
                self._replace(str(arguments["name"]), [])
            case "metrics":
                return [msgspec.to_builtins(series) for series in self._told()]
            case "ready":
                return [[model.name, model.version] for model in self.models]
            case _:
                raise UsageError(f"there is no duty {verb}")
        return None

    async def _prepare(self, name: str, key: str) -> list[str]:
        folders = self._repository.versions(name)
        models: list[Model] = []
        try:
            for folder in folders:  # one at a time: what was opened must be known when the next one fails
                models += [await asyncio.to_thread(self._open, folder)]
            ModelSet(models)  # refuses a version that is given twice
        except CumulantError:
            for model in models:
                model.close()
            raise
        self._staged[key] = name, models
        return [model.version for model in models]

    def _replace(self, name: str, models: list[Model]) -> None:
        """From now on `models` answer for `name`; those before finish what they have."""
        old = [model for model in self.models if model.name == name]
        self.models = ModelSet([*self.models.where(lambda one: one.name != name), *models])
        self._put(self.models)
        for model in old:
            model.close()


class Control:
    """Model control over all workers: a model is put in place everywhere or nowhere."""

    def __init__(self, fleet: Fleet, repository: Repository) -> None:
        self._fleet, self._repository = fleet, repository
        # One change at a time: two loads at once could end in different versions on different workers.
        self._turn = asyncio.Lock()

    async def load(self, name: str) -> list[str]:
        """Load or reload every version of a model that its folder holds now; the versions.

        Raises:
            NotFoundError: the repository has no such model.
            CumulantError: a version cannot be loaded; what was served before goes on.
        """
        async with self._turn:
            key = uuid.uuid4().hex
            try:
                found = await self._fleet.everywhere("prepare", {"name": name, "key": key})
            except CumulantError:
                await self._fleet.everywhere("discard", {"key": key})
                raise
            await self._fleet.everywhere("commit", {"key": key})
            return [str(version) for version in found[0]]

    async def unload(self, name: str) -> None:
        """Stop answering for a model; what was accepted is answered.

        Raises:
            NotFoundError: it is not loaded.
        """
        async with self._turn:
            loaded = (await self._fleet.everywhere("ready", {}))[0]
            if name not in {known for known, _ in loaded}:
                raise NotFoundError(f'no model named "{name[:100]}" is loaded', subject=name[:100])
            await self._fleet.everywhere("unload", {"name": name})

    async def index(self, *, ready_only: bool = False) -> list[dict[str, str]]:
        """Every servable of the repository and whether it is served."""
        loaded = {(name, version) for name, version in (await self._fleet.everywhere("ready", {}))[0]}
        found: list[dict[str, str]] = []
        for folder, one in self._repository.described():
            if isinstance(one, CumulantError):
                found.append({"name": folder.name, "version": "", "state": "UNAVAILABLE", "reason": one.message})
                continue
            key = one.name, one.version or UNREGISTERED
            if key in loaded:
                found.append({"name": key[0], "version": key[1], "state": "READY", "reason": ""})
            else:
                found.append({"name": key[0], "version": key[1], "state": "UNAVAILABLE", "reason": "unloaded"})
        return [one for one in found if one["state"] == "READY" or not ready_only]
