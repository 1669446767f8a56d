"""Who watches the requests of a worker, by its settings: the access log, traces, both or nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.serving.http.refusals import HttpRefusal
from cumulant.serving.http.site import Handler
from cumulant.serving.models.model import ModelSet
from cumulant.serving.settings import Settings
from cumulant.serving.telemetry.access_log import AccessLog
from cumulant.serving.telemetry.observation import RequestObservation
from cumulant.serving.telemetry.observed_app import ObservedApp

if TYPE_CHECKING:
    from cumulant.serving.telemetry.tracing import Tracing


class RequestObservers:
    """Where nobody watches, `watch` is None and requests take the way they take without it.

    Raises:
        UsageError: as `Tracing`.
    """

    def __init__(self, settings: Settings) -> None:
        # The tracer first: what it adds to a note at the end stands in the log's line.
        self._tracing: Tracing | None = None
        if settings.traces is not None:
            # Not before it is wanted: its packages are an extra.
            from cumulant.serving.telemetry.tracing import Tracing

            self._tracing = Tracing(settings.traces or None, service=settings.name)
        self._behind_gateway = settings.gateway_key is not None
        self._log = AccessLog() if settings.access_log else None
        observers = tuple(observer for observer in (self._tracing, self._log) if observer is not None)
        self.watch = RequestObservation(observers) if observers else None

    def wrap(self, handle: Handler) -> Handler:
        """`handle`, watched."""
        return handle if self.watch is None else ObservedApp(handle, self.watch, behind_gateway=self._behind_gateway)

    def refused(self, refusal: HttpRefusal) -> None:
        """A connection refused requests before they were whole."""
        if self._log is not None:
            self._log.refused(refusal)

    def follow(self, models: ModelSet) -> None:
        """Hear of the runs of `models` too."""
        for model in models:
            model.runner.observer = self.watch

    def close(self) -> None:
        """Write and send what waits."""
        for observer in (self._tracing, self._log):
            if observer is not None:
                observer.close()
