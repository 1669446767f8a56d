"""One process that answers: its models, its connections, its part in the fleet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError
from cumulant.serving.app import Application
from cumulant.serving.control import Control, Staff
from cumulant.serving.fallback import Fallback
from cumulant.serving.fleet import Alone, Fleet
from cumulant.serving.http import Limits, Site
from cumulant.serving.log import LogClient
from cumulant.serving.logbook import Logbook
from cumulant.serving.loops import short_turns
from cumulant.serving.metrics import Series
from cumulant.serving.models import Model, ModelSet, open_model
from cumulant.serving.process import of_process
from cumulant.serving.recording import Recorder
from cumulant.serving.repository import Repository
from cumulant.serving.settings import Settings
from cumulant.serving.sharing import Sharer
from cumulant.serving.sockets import BACKLOG, several_possible
from cumulant.serving.stores import open_store
from cumulant.serving.watchers import Watchers

if TYPE_CHECKING:
    from cumulant.ports.online import OnlineStore
    from cumulant.serving.grpc import Server


class Worker:
    """Loads the models when it is made. `without`: names that are not to be loaded.

    Raises:
        NotFoundError, IntegrityError, UsageError, EngineUnavailableError: as `open_model`.
    """

    def __init__(self, settings: Settings, *, without: frozenset[str] = frozenset()) -> None:
        self._settings = settings
        self._watchers = Watchers(settings)
        self.recorder = Recorder(settings.scored)
        self._store: OnlineStore | None = open_store(settings.online) if settings.online else None
        self._sharer = Sharer(settings) if settings.sharing else None
        self._repository = Repository(settings.folders)
        try:
            opened = [self._open(folder) for folder in self._repository.folders()]
            models = ModelSet(model for model in opened if model.name not in without)
            self.recorder.put(models)
        except CumulantError:
            self.close()
            raise
        self._logbook: Logbook | None = None
        self.app = Application(models, body_limit=settings.body_limit, name=settings.name, token=settings.token)
        self.app.score.recorder = self.recorder
        self.app.score.watch = self._watchers.watch
        self._site = Site(self._watchers.over(self.app), Limits(body=settings.body_limit))
        self.staff = Staff(models, self._repository, self._open, put=self._put, told=self._series)

    def _open(self, folder: Path) -> Model:
        self._repository.check(folder)
        model, declared = self._load(folder), self._settings.fallback
        if declared.given:
            cheap = None if declared.servable is None else self._load(Path(declared.servable))
            model.fallback = Fallback(model, declared, cheap)
        if self._sharer is not None:
            self._sharer.join(model, folder)
        return model

    def _load(self, folder: Path) -> Model:
        settings = self._settings
        return open_model(folder, store=self._store, table=settings.table, scheduling=settings.scheduling)

    async def _put(self, models: ModelSet) -> None:
        prepared = await asyncio.to_thread(self.recorder.prepare, models)
        self._watchers.follow(models)
        if self._logbook is not None:
            self._logbook.describe(models)
        taken = self.recorder.take(prepared)
        self.app.models = models
        await asyncio.to_thread(self.recorder.settle, taken)

    def _open_log(self) -> LogClient | None:
        """From the event loop's thread, which is the one that writes to it."""
        if self._settings.log_socket is None:
            return None
        client = LogClient(self._settings.log_socket, worker="worker", region=self._settings.region)
        self._logbook = self.app.score.logbook = Logbook(client)
        self._logbook.describe(self.app.models)
        return client

    def _series(self) -> list[Series]:
        found = [*self.app.series(), *of_process(), Series("cumulant_connections", (), len(self._site.connections))]
        if self._sharer is not None:
            found += self._sharer.series()
        if self._logbook is not None:
            client = self._logbook.client
            found.append(Series("cumulant_log_records_total", ("written",), client.written))
            found.append(Series("cumulant_log_records_total", ("lost",), client.lost))
        return found

    async def run(
        self,
        listener: socket.socket,
        ended: asyncio.Event,
        started: Callable[[], None],
        fleet: Fleet | None = None,
    ) -> None:
        """Answer until `ended` is set; then finish what was accepted."""
        loop = asyncio.get_running_loop()
        self._watchers.follow(self.app.models)
        self.app.join(fleet := fleet or Alone(self.staff), Control(fleet, self._repository), self._settings.control)
        log = self._open_log()
        async with AsyncExitStack() as stack:
            stack.enter_context(short_turns())
            server = await loop.create_server(self._site, sock=listener, backlog=BACKLOG)
            stack.callback(server.close)
            self._site.start()
            if self._sharer is not None:
                await stack.enter_async_context(self._sharer.at_work())
            grpc = await self._start_grpc()
            started()
            await ended.wait()
            self.app.draining = True
            server.close()
            patience = self._settings.drain
            await asyncio.gather(self._site.drain(patience), *([grpc.stop(patience)] if grpc else []))
            if log is not None:
                await log.close()

    async def _start_grpc(self) -> Server | None:
        settings = self._settings
        if settings.grpc_port is None:
            return None
        # Not before it is wanted: its library costs memory and start-up time.
        from cumulant.serving.grpc import start

        watch = self._watchers.watch
        return await start(self.app, settings.grpc_host, settings.grpc_port, shared=several_possible(), watch=watch)

    def close(self) -> None:
        """Commit what the state was told, and let the store go."""
        self._watchers.close()
        self.recorder.close()
        if self._store is not None:
            self._store.close()
