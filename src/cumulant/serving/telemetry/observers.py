"""Observers of a worker's requests by its settings: access log, traces, both or none."""

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
    """The configured observers; `watch` is None where there are none.

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
        """`handle` with observation, where any is configured."""
        return handle if self.watch is None else ObservedApp(handle, self.watch, behind_gateway=self._behind_gateway)

    def refused(self, refusal: HttpRefusal) -> None:
        """Log refusals of incomplete requests."""
        if self._log is not None:
            self._log.refused(refusal)

    def follow(self, models: ModelSet) -> None:
        """Observe the runs of `models`."""
        for model in models:
            model.runner.observer = self.watch

    def close(self) -> None:
        """Flush the log and the traces."""
        for observer in (self._tracing, self._log):
            if observer is not None:
                observer.close()
