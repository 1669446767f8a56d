"""One worker process: its models, connections and commands."""

from __future__ import annotations

import asyncio
import math
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.network.hosts import Hosts, is_loopback
from cumulant.core.prometheus import Series
from cumulant.core.scope import Scope
from cumulant.serving.access.callers import Callers
from cumulant.serving.access.control import AccessControl
from cumulant.serving.access.refusal_log import RefusalLog
from cumulant.serving.app import ServingApplication
from cumulant.serving.content_pins import Pin, pin, refuse_duplicates
from cumulant.serving.gateway_headers import Marks, Trust, counted_arm, marks_of, new_name
from cumulant.serving.http.limits import HttpLimits
from cumulant.serving.http.messages import Request
from cumulant.serving.http.refusals import Refusals
from cumulant.serving.http.site import HttpSite
from cumulant.serving.http.site_state import Admitted
from cumulant.serving.logged_answers import PredictionLogger
from cumulant.serving.models.control import Control, Fleet, SingleWorker, WorkerDuties, open_pinned
from cumulant.serving.models.model import ModelSet
from cumulant.serving.models.stores import open_access, open_log, parse_scope
from cumulant.serving.options import OPEN_ACCESS
from cumulant.serving.posted.label_inbox import LabelInbox
from cumulant.serving.posted.label_masking import label_fields
from cumulant.serving.posted.state_updates import StateRecorder
from cumulant.serving.prediction_log.client import LogClient
from cumulant.serving.prediction_log.confirmed_client import ConfirmedClient
from cumulant.serving.protocol.probes import OPEN
from cumulant.serving.settings import Settings
from cumulant.serving.sockets import can_share_port, own_urls
from cumulant.serving.telemetry.metrics import counter_series, process_series
from cumulant.serving.telemetry.observers import RequestObservers
from cumulant.serving.workers.cache_client import SharedCacheClient
from cumulant.serving.workers.event_loops import loaded_objects_frozen, shorten_thread_turns
from cumulant.serving.workers.listeners import Listeners
from cumulant.serving.workers.load_check import LoadCheck
from cumulant.serving.workers.opening import ModelOpener

if TYPE_CHECKING:
    from cumulant.core.plan import Field
    from cumulant.serving.grpc.server import GrpcServer

#: seconds, at least, for the log process to take pending records at the end: it may still be starting
_LOG_PATIENCE = 2.0
#: whether a target is answered whatever waits: probes, also those of a model, and by what an overload is seen
is_urgent: Callable[[bytes], object] = re.compile(
    rb"(?:%b|/metrics)|/v2/models(?=/)[^?]*/ready(?:\?|\Z)" % b"|".join(OPEN)
).match


class Worker:
    """Worker that loads the models of `pins`, or else of its folders, when it is created.

    Raises:
        NotFoundError, IntegrityError, UsageError, EngineUnavailableError: as `open_model`.
    """

    def __init__(self, settings: Settings, *, pins: Sequence[Pin] | None = None) -> None:
        self._settings = settings
        self._observers = RequestObservers(settings)
        self.recorder = StateRecorder(settings.scored, clock_skew=settings.clock_skew)
        self._shared_cache = SharedCacheClient(settings) if settings.sharing else None
        self._opening = ModelOpener(settings, self._shared_cache)
        self._load_check = LoadCheck(settings)
        self._refusals: RefusalLog | None = None
        try:
            wanted = [pin(folder) for folder in self._opening.repository.folders()] if pins is None else pins
            self._load_check.remember_names(wanted)
            refuse_duplicates(wanted)
            models = ModelSet([open_pinned(folder, self._opening) for folder in wanted])
            self.recorder.put(models)
        except CumulantError:
            self.close()
            raise
        if settings.refusals is not None:
            self._refusals = RefusalLog(open_log(settings.refusals, secrets=settings.secrets), settings.name)
        self._prediction_logger: PredictionLogger | None = None
        self.app = ServingApplication(
            models,
            body_limit=settings.body_limit,
            name=settings.name,
            access=self._access_control(),
            hosts=Hosts(settings.hosts, local=is_loopback(settings.host)),
        )
        self.app.score.recorder = self.recorder
        if settings.labels is not None:
            inbox = open_log(settings.labels, secrets=settings.secrets)
            self.app.inbox = LabelInbox(
                inbox, settings.labels_size, personal=self._personal_of_labels, salt=settings.salt
            )
        self.app.score.watch = self._observers.watch
        handle = self._observers.wrap(self.app)
        admitted: Admitted = self.app.requests.admitted
        self._trust: Trust | None = None
        if settings.gateway_key is not None:
            self.app.score.marks, self.app.score.arm = _marks, _arm
            self._trust = Trust(settings.gateway_key, own_urls(settings.host, settings.port, settings.hosts))
            handle, admitted = self._trust.wrap(handle), self._trust.admit(self.app.requests.admitted)
        refusals = Refusals(self._observers.log_refusal)
        self.app.refused_by_head = lambda: refusals.counts["busy"]
        # A declared fallback answers what would be refused, so that nothing is refused by its head.
        queue = math.inf if settings.fallback.is_declared else settings.scheduling.queue
        limits = HttpLimits.of_body(settings.body_limit, queue=queue)
        # Without tokens and with a driver that allows everything nothing is refused by its head.
        restricted = settings.tokens or settings.access != OPEN_ACCESS
        self._site = HttpSite(handle, limits, admitted if restricted else None, refusals, urgent=is_urgent)
        self.staff = WorkerDuties(models, self._opening.repository, self._opening, put=self._put, series=self._series)

    def _access_control(self) -> AccessControl:
        """Raises UsageError, MissingPartError: as `open_access`."""
        settings = self._settings
        scope = Scope() if settings.scope is None else parse_scope(settings.scope)
        if settings.region:
            scope = msgspec.structs.replace(scope, region=settings.region)
        restricted = settings.access != OPEN_ACCESS  # else no driver is looked for, which takes time at the start
        return AccessControl(
            Callers(settings.tokens, tenant=scope.tenant),
            open_access(settings.access, scope=scope, secrets=settings.secrets, bindings=settings.bindings)
            if restricted
            else None,
            scope=scope,
            server=settings.name,
            refused=(lambda _: None) if self._refusals is None else self._refusals.add,
        )

    def _personal_of_labels(self) -> dict[str, Field]:
        return label_fields(model.servable for model in self.app.models)

    async def _put(self, models: ModelSet) -> None:
        prepared = await asyncio.to_thread(self.recorder.prepare, models)
        self._observers.follow(models)
        if self._prediction_logger is not None:
            self._prediction_logger.describe(models)
        taken = self.recorder.take(prepared)
        self.app.models = models
        await asyncio.to_thread(self.recorder.settle, taken)

    def _open_log(self) -> LogClient | None:
        """From the event loop's thread, which is the one that writes to it."""
        if self._settings.log_socket is None:
            return None
        kind = ConfirmedClient if self._settings.log_write == "durable" else LogClient
        client = kind(self._settings.log_socket, worker="worker", region=self._settings.region)
        self._prediction_logger = self.app.score.prediction_logger = PredictionLogger(
            client, features=self._settings.log_features
        )
        self._prediction_logger.describe(self.app.models)
        return client

    async def _series(self) -> list[Series]:
        series = [*self.app.series(), *process_series()]
        series += counter_series("cumulant_http_refused_total", (), self._site.refusals.counts)
        series.append(Series("cumulant_connections", (), len(self._site.connections)))
        if self.app.inbox is not None:
            series += await self.app.inbox.series()
        if self._shared_cache is not None:
            series += self._shared_cache.series()
        if self._prediction_logger is not None:
            client = self._prediction_logger.client
            counts = {"written": client.written, "lost": client.lost, "refused": client.refused}
            series += counter_series("cumulant_log_records_total", (), counts)
        for (action, reason), count in self.app.access.refused.items():
            series.append(Series("cumulant_access_refused_total", (action, reason), count))
        if self._trust is not None:
            series.append(Series("cumulant_gateway_tokens_rejected_total", (), self._trust.rejected))
        return series

    async def run(
        self,
        listeners: Listeners,
        ended: asyncio.Event,
        started: Callable[[], None],
        fleet: Fleet | None = None,
    ) -> None:
        """Serve until `ended` is set, then drain."""
        self._observers.follow(self.app.models)
        fleet = fleet or SingleWorker(self.staff)
        control = Control(fleet, self._opening.repository, self._load_check.versions, self._settings.left_out)
        self.app.join(fleet, control, self._settings.control)
        log = self._open_log()
        async with AsyncExitStack() as stack:
            stack.enter_context(shorten_thread_turns())
            stack.callback(listeners.close)
            await listeners.open(self._site)
            self._site.start()
            if self._shared_cache is not None:
                await stack.enter_async_context(self._shared_cache.running())
            grpc = await self._start_grpc()
            stack.enter_context(loaded_objects_frozen())
            started()
            await ended.wait()
            self.app.draining = True
            self._load_check.stop()  # it may take minutes, and this process ends with its threads
            listeners.close()
            patience, clock = self._settings.drain, asyncio.get_running_loop().time
            began = clock()
            await asyncio.gather(self._site.drain(patience), *([grpc.stop(patience)] if grpc else []))
            if log is not None:
                await log.close(max(_LOG_PATIENCE, began + patience - clock()))
                if log.lost:
                    sys.stderr.write(f"the prediction log lost {log.lost} records that its process did not take\n")

    async def _start_grpc(self) -> GrpcServer | None:
        settings = self._settings
        if settings.grpc_port is None:
            return None
        # Not before it is wanted: its library costs memory and start-up time.
        from cumulant.serving.grpc.server import start

        watch = self._observers.watch
        return await start(self.app, settings.grpc_host, settings.grpc_port, shared=can_share_port(), watch=watch)

    def close(self) -> None:
        """Commit pending state updates, write counted refusals, and close the stores."""
        if self._refusals is not None:
            self._refusals.close()
        self._observers.close()
        self.recorder.close()
        self._opening.close()


def _marks(request: object) -> Marks:
    """Marks of a request. Gateways use HTTP only, so a gRPC call has an own id and no arm."""
    if isinstance(request, Request):
        return marks_of(request.headers)
    return Marks(request=getattr(request, "name", "") or new_name())


def _arm(request: object) -> str:
    return counted_arm(request.headers) if isinstance(request, Request) else ""
