"""Model control: commands to all workers, for loading, swapping and unloading models."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from cumulant.core.errors import CumulantError, NotFoundError, UsageError
from cumulant.core.servable import UNREGISTERED
from cumulant.serving.content_pins import Pin, check, pin, refuse_duplicates
from cumulant.serving.models.model import Model, ModelSet
from cumulant.serving.models.repository import Repository

Open = Callable[[Path], Model]
Put = Callable[[ModelSet], Coroutine[Any, Any, None]]
ReadSeries = Callable[[], Coroutine[Any, Any, list[Any]]]
T = TypeVar("T")


class Duties(Protocol):
    """Commands that every worker executes."""

    async def do(self, verb: str, arguments: Mapping[str, Any]) -> Any:
        """Raises CumulantError where it cannot."""
        ...


class Fleet(Protocol):
    """All workers, this one among them."""

    async def everywhere(self, verb: str, arguments: Mapping[str, Any]) -> list[Any]:
        """Result of the command on each worker.

        Raises:
            CumulantError: of the first that could not.
        """
        ...


class SingleWorker:
    """Fleet of one worker."""

    def __init__(self, duties: Duties) -> None:
        self._duties = duties

    async def everywhere(self, verb: str, arguments: Mapping[str, Any]) -> list[Any]:
        return [await self._duties.do(verb, arguments)]


class WorkerDuties:
    """Commands that one worker executes. Models are loaded on a thread, so that no request is delayed.

    `put` activates a set of models; where it raises, the former set stays active.
    """

    def __init__(
        self, models: ModelSet, repository: Repository, open_one: Open, *, put: Put, series: ReadSeries
    ) -> None:
        self.models = models
        self._repository, self._open, self._put, self._series = repository, open_one, put, series
        self._staged: dict[str, list[Model]] = {}
        # Changes come from every worker; each is made from the set that the one before left.
        self._turn = asyncio.Lock()

    async def do(self, verb: str, arguments: Mapping[str, Any]) -> Any:
        """One of `prepare`, `commit`, `discard`, `unload`, `metrics`, `ready`.

        Raises:
            CumulantError: as loading a model; UsageError for another verb.
        """
        match verb:
            case "prepare":
                return await self._prepare(arguments)
            case "commit":
                await self._commit(arguments)
            case "discard":
                _close(self._staged.pop(str(arguments["key"]), []))
            case "unload":
                await self._replace(str(arguments["name"]), [])
            case "metrics":
                return [msgspec.to_builtins(series) for series in await self._series()]
            case "ready":
                return [[model.name, model.version] for model in self.models]
            case _:
                raise UsageError(f"there is no duty {verb}")
        return None

    async def _prepare(self, arguments: Mapping[str, Any]) -> list[str]:
        pins = msgspec.convert(arguments.get("pins"), list[Pin] | None)
        if pins is None:
            pins = await asyncio.to_thread(pins_of, self._repository, str(arguments["name"]))
        await asyncio.to_thread(refuse_duplicates, pins)
        models: list[Model] = []
        try:
            for pinned in pins:  # one at a time: what was opened must be known when the next one fails
                models += [await asyncio.to_thread(open_pinned, pinned, self._open)]
            ModelSet(models)  # refuses a version that is given twice
        except BaseException:
            _close(models)
            raise
        self._staged[str(arguments["key"])] = models
        return [model.version for model in models]

    async def _commit(self, arguments: Mapping[str, Any]) -> None:
        name, key = str(arguments["name"]), str(arguments["key"])
        if key not in self._staged:  # this worker started between the preparation and now
            await self._prepare(arguments)
        models = self._staged.pop(key)
        try:
            await self._replace(name, models)
        except BaseException:
            _close(models)
            raise

    async def _replace(self, name: str, models: list[Model]) -> None:
        """Activate `models` under `name`; the former ones finish their requests."""
        async with self._turn:
            old = [model for model in self.models if model.name == name]
            after = ModelSet([*self.models.where(lambda served: served.name != name), *models])
            await self._put(after)
            self.models = after
            _close(old)


def pins_of(repository: Repository, name: str) -> list[Pin]:
    """Pins of every version of a model on disk, without a load check.

    Raises:
        NotFoundError: there is none.
    """
    return [pin(folder) for folder in repository.versions(name)]


def open_pinned(pinned: Pin, open_one: Open) -> Model:
    """Model of exactly the pinned content.

    Raises:
        IntegrityError: the folder holds another one by now.
        CumulantError: as `open_one`.
    """
    check(pinned)
    model = open_one(pinned.place)
    try:
        check(pinned)
    except CumulantError:
        model.close()
        raise
    return model


def _close(models: list[Model]) -> None:
    for model in models:
        model.close()


class Control:
    """Model control over all workers: a model is activated on all of them or on none.

    `check_versions` returns the versions of a name after a load check; by default none is made. `left_out` maps folders
    that are not served since the start to the reason.
    """

    def __init__(
        self,
        fleet: Fleet,
        repository: Repository,
        check_versions: Callable[[str], list[Pin]] | None = None,
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        self._fleet, self._repository = fleet, repository
        self._left_out = left_out or {}
        self._check_versions = check_versions or functools.partial(pins_of, repository)
        # One change at a time: two loads at once could end in different versions on different workers.
        self._turn = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()

    async def load(self, name: str) -> list[str]:
        """Load or reload every version of a model that its folder holds now; the versions.

        Raises:
            NotFoundError: the repository has no such model.
            UsageError: a version ends the process that loads it.
            CumulantError: a version cannot be loaded; the versions before are still served.
        """
        return await self._whole(self._load(name))

    async def _load(self, name: str) -> list[str]:
        async with self._turn:
            pins = await asyncio.to_thread(self._check_versions, name)
            arguments = {"name": name, "key": uuid.uuid4().hex, "pins": msgspec.to_builtins(pins)}
            try:
                answers = await self._fleet.everywhere("prepare", arguments)
            except BaseException:
                await self._fleet.everywhere("discard", arguments)
                raise
            await self._fleet.everywhere("commit", arguments)
            return [str(version) for version in answers[0]]

    async def _whole(self, change: Coroutine[Any, Any, T]) -> T:
        """Finish a change even where its caller is cancelled, so that no change is left half done."""
        task = asyncio.ensure_future(change)
        self._changes.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._changes.discard(task)
        if not task.cancelled():
            task.exception()  # perhaps no caller waits for it any more

    async def unload(self, name: str) -> None:
        """Unload a model; accepted requests are still answered.

        Raises:
            NotFoundError: it is not loaded.
        """
        await self._whole(self._unload(name))

    async def _unload(self, name: str) -> None:
        async with self._turn:
            loaded = (await self._fleet.everywhere("ready", {}))[0]
            if name not in {known for known, _ in loaded}:
                raise NotFoundError(f'no model named "{name[:100]}" is loaded', subject=name[:100])
            await self._fleet.everywhere("unload", {"name": name})

    async def index(self, *, ready_only: bool = False) -> list[dict[str, str]]:
        """Every servable of the repository with its state."""
        loaded = {(name, version) for name, version in (await self._fleet.everywhere("ready", {}))[0]}
        entries: list[dict[str, str]] = []
        for folder, description in await asyncio.to_thread(self._repository.descriptions):
            if isinstance(description, CumulantError):
                entries.append(_unavailable(folder.name, "", description.message))
                continue
            key = description.name, description.version or UNREGISTERED
            if key in loaded:
                entries.append({"name": key[0], "version": key[1], "state": "READY", "reason": ""})
            else:
                entries.append(_unavailable(*key, self._left_out.get(str(folder), "not loaded")))
        return [entry for entry in entries if entry["state"] == "READY" or not ready_only]


def _unavailable(name: str, version: str, reason: str) -> dict[str, str]:
    entry = {"name": name, "version": version, "state": "UNAVAILABLE", "reason": reason}
    return {key: text.encode(errors="replace").decode() for key, text in entry.items()}
