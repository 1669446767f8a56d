"""The agent beside a gateway: it follows the routes in the journal, and reports what the gateway does.

The gateway keeps the routes on its machine, so that it serves and starts without the journal. Routes on the machine
that are later than those in the journal are of a rollback that could not reach it; the agent delivers them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import msgspec

from cumulant.core.errors import CumulantError, EngineUnavailableError, LeaseHeldError, StorageError, UsageError
from cumulant.core.traffic import CANDIDATE, CHAMPION, Routes
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.traffic.events import RoutesApplied
from cumulant.flows.traffic.rows import (
    ACTOR,
    BEAT,
    SILENT,
    GatewayReport,
    GatewayWatch,
    Refusal,
    StoredRoutes,
    list_routes,
    put_report,
    put_routes,
    remove_own_report,
)
from cumulant.ports.journal import Journal
from cumulant.ports.traffic import Gateway
from cumulant.project.host_name import host_name

ENDED = "the gateway's agent has ended"
#: seconds between two rounds, at least; and after a journal that did not answer
_PAUSE, _LATER = 0.02, 1.0


class GatewayAgent:
    """Call `run` in a thread or a process of its own; one agent a machine."""

    def __init__(
        self,
        gateway: Gateway,
        journal: Journal,
        *,
        host: str = "",
        report: Callable[[str], object] = lambda _: None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway, self._journal = gateway, journal
        self._host, self._process = host or host_name(), this_process()  # both stay where the machine is renamed
        self._say, self._steady = report, steady
        self._watch = GatewayWatch(journal, steady)
        self._refused: dict[str, Refusal] = {}
        self._reported: GatewayReport | None = None
        #: the report's version as it was written last, and by model the routes of the last event
        self._version, self._emitted = 0, dict[str, Routes]()
        self._reported_at = 0.0
        self._readiness, self._ended = threading.Lock(), False

    def run(self, ended: Callable[[float], bool]) -> None:
        """Run rounds until `ended`, which waits so many seconds, returns true; then report the gateway no more."""
        pause, after = 0.0, 0
        while not ended(pause):
            try:
                after = self.round()
                self._journal.wait(after, BEAT)
                pause = _PAUSE
            except CumulantError as error:
                self._say(f"waits: {error.message}")
                pause = _LATER
        self.end()
        try:
            remove_own_report(self._journal, self._host, self._process)
        except CumulantError as error:
            self._say(f"the report of this gateway stays until it lapses: {error.message}")

    def end(self) -> None:
        """Make the gateway unready. A round that still runs, in a thread that waits for the journal, leaves it so."""
        with self._readiness:
            self._ended = True
            self._gateway.keep_ready(0.0, ENDED)

    def _keep_ready(self, seconds: float, reason: str = "") -> None:
        with self._readiness:
            if not self._ended:
                self._gateway.keep_ready(seconds, reason)

    def round(self) -> int:
        """Follow the routes and report; the journal's last event before that.

        Raises:
            CumulantError: the journal does not answer.
        """
        self._finish_change()
        began = self._steady()
        after = self._journal.head().seq
        stored = list_routes(self._journal)
        self._share_rates(stored)
        for model, present in stored.items():
            self._follow(model, present)
        self._report(stored, began)
        return after

    def _finish_change(self) -> None:
        try:
            self._gateway.finish_change()
        except (EngineUnavailableError, StorageError) as error:
            self._say(f"the routes that are stored on this machine are not in force: {error.message}")

    def _share_rates(self, stored: Mapping[str, StoredRoutes]) -> None:
        """Share the rates of the routes with the other gateways that are ready. A lost one counts until it lapses."""
        if all(present.routes is None or present.routes.limits.rate is None for present in stored.values()):
            return
        others = {report.host for report in self._watch.present() if report.ready} - {self._host}
        try:
            self._gateway.share_rates(len(others) + 1)
        except (EngineUnavailableError, StorageError) as error:
            self._say(f"the rates are not shared by {len(others) + 1} gateways yet: {error.message}")

    def _follow(self, model: str, stored: StoredRoutes) -> None:
        """Make a model's routes those of the journal, or bring later ones of this machine there."""
        wanted = stored.routes
        try:
            local = self._gateway.in_force(model)
            if wanted is None or local == wanted:
                self._refused.pop(model, None)
            elif local is None or local.revision < wanted.revision:
                self._apply(wanted)
            else:
                self._deliver(local, wanted, stored.version)
        except LeaseHeldError:
            return  # changed on this machine, or in the journal, a moment ago: the next round reads both again
        except EngineUnavailableError as error:
            self._say(f"the gateway does not answer: {error.message}")

    def _apply(self, routes: Routes) -> None:
        try:
            self._gateway.apply(routes)
            self._refused.pop(routes.model, None)
        except (EngineUnavailableError, StorageError, UsageError) as error:
            self._refused[routes.model] = Refusal(routes.revision, error.message)
            self._say(f"revision {routes.revision} of the routes of {routes.model} is refused: {error.message}")

    def _deliver(self, local: Routes, stored: Routes, version: int) -> None:
        """Bring later routes of this machine to the journal, above the ones that others know."""
        if local.revision == stored.revision:
            local = msgspec.structs.replace(local, revision=stored.revision + 1)
            self._gateway.apply(local)
        with self._journal.transaction(actor=ACTOR) as transaction:
            put_routes(transaction, local, expect=version, host=self._host)
        self._say(f"revision {local.revision} of the routes of {local.model} comes from this machine")

    def _report(self, stored: Mapping[str, StoredRoutes], began: float) -> None:
        """Write the report where something of it changed that others wait for, and once a second.

        The gateway is ready for a time from `began`, when the round read the journal: what changed since is unknown to
        it, also where the process was stopped for long.
        """
        routes = self._routes(stored)
        url = self._url()
        behind = _why_behind(stored, routes, url, self._refused)
        ready = not behind
        last, now = self._reported, self._steady()
        changed = last is None or (last.routes, last.ready, last.refused) != (routes, ready, self._refused)
        if not changed and now - self._reported_at < BEAT:
            return
        unready = behind or ("" if routes else "the gateway has no routes yet")
        if unready:
            self._keep_ready(0.0, unready)
        report = GatewayReport(
            host=self._host,
            agent=self._process,
            url=url,
            ready=ready,
            routes=routes,
            health={model: tuple(self._gateway.health(model)) for model in routes} if url else {},
            active={model: self._active(model) for model in routes} if url else {},
            refused=dict(self._refused),
        )
        self._write(report)
        self._reported, self._reported_at = report, now
        remaining = began + SILENT - self._steady()
        if not unready and remaining > 0:
            self._keep_ready(remaining)
        self._emit_applied(report)

    def _routes(self, stored: Mapping[str, StoredRoutes]) -> dict[str, Routes]:
        by_model = {}
        for model in stored:
            try:
                routes = self._gateway.in_force(model)
            except EngineUnavailableError:
                continue
            if routes is not None:
                by_model[model] = routes
        return by_model

    def _url(self) -> str | None:
        address = self._gateway.address()
        return None if address is None else address.url

    def _active(self, model: str) -> dict[str, int]:
        return {arm: self._gateway.active(model, arm) for arm in (CHAMPION, CANDIDATE)}

    def _write(self, report: GatewayReport) -> None:
        try:
            self._version = put_report(self._journal, report, version=self._version)
        except LeaseHeldError as error:
            self._keep_ready(0.0, error.message)
            self._watch.present()  # removes the other report once it lapses
            raise

    def _emit_applied(self, report: GatewayReport) -> None:
        """Report as events which routes came into force. Those who wait for them read the report, which is written, and
        the gateway is ready already: an event waits for other writers of the journal.
        """
        changed = [routes for model, routes in report.routes.items() if self._emitted.get(model) != routes]
        if not changed:
            return
        with self._journal.transaction(actor=ACTOR) as transaction:
            for routes in changed:
                transaction.emit(RoutesApplied(model=routes.model, revision=routes.revision, host=report.host))
        self._emitted = report.routes


def _why_behind(
    stored: Mapping[str, StoredRoutes], applied: Mapping[str, Routes], url: str | None, refused: Mapping[str, Refusal]
) -> str:
    """Why a gateway does not work by the routes of the journal; empty where it does, or where there are none."""
    if url is None:
        return "the gateway does not run"
    for model, present in stored.items():
        if present.routes is None or (model in applied and applied[model].revision >= present.routes.revision):
            continue
        if model in refused:
            return f"revision {refused[model].revision} of the routes of {model} is refused: {refused[model].reason}"
        return f"revision {present.routes.revision} of the routes of {model} is not in force yet"
    return ""
