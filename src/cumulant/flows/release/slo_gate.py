"""The objectives of the served model as a gate of its releases, by the gateways' log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.core.clock import SystemClock
from cumulant.core.errors import CumulantError, ObjectiveMissedError
from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.flows.observe.gateway_requests import GatewayRequests
from cumulant.flows.observe.slo import objective_states
from cumulant.flows.traffic.clients import exchanges_of
from cumulant.monitoring.request_counts import RequestMinutes
from cumulant.monitoring.slo_gate import find_hold

if TYPE_CHECKING:
    from datetime import datetime

    from cumulant.core.clock import Clock
    from cumulant.monitoring.objectives import ObjectiveState
    from cumulant.project.project import Project
    from cumulant.release.policy import ReleasePolicy
    from cumulant.release.state import Release

#: exchanges that are read at once
_PAGE = 50_000
_UNKNOWN = "whether the served model meets its objectives is not known: the gateways' log cannot be read"


class SloGateReader:
    """The state of a project's objectives for its releases; each exchange is read once.

    Objectives are those of the project's model: releases of other models are never held.
    """

    def __init__(self, project: Project, *, clock: Clock | None = None) -> None:
        self._project, self._clock = project, clock or SystemClock()
        self._objectives = project.policies.objectives
        self._requests = GatewayRequests()
        self._release, self._cursor = "", ""
        self._arms: dict[str, RequestMinutes] = {}

    def hold_start(self, policy: ReleasePolicy) -> str:
        """What stops a release that would begin now, as a clause; empty: nothing.

        Raises:
            StorageError, EngineUnavailableError: the gateways' log cannot be read.
        """
        if policy.slo == "none" or not self._objectives:
            return ""
        return find_hold(self._states(self._clock.now()), policy.slo)

    def hold(self, release: Release) -> str:
        """What stops a release under way, as a clause; empty: nothing.

        A log that cannot be read stops it and raises nothing: the look goes on, which rolls a harmful candidate back.
        """
        if release.policy.slo == "none" or not self._objectives or release.model != self._project.name:
            return ""
        now, earlier = self._clock.now(), release.slo_hold
        try:
            self._read_arms(release, now)
            states = self._states(now)
        except CumulantError:
            return earlier or _UNKNOWN
        arms = {name: minutes.within(now - release.begun, now) for name, minutes in self._arms.items()}
        return find_hold(states, release.policy.slo, earlier="" if earlier == _UNKNOWN else earlier, arms=arms)

    def _states(self, now: datetime) -> list[ObjectiveState]:
        with self._requests.counted(self._project, now) as minutes:
            return objective_states(self._objectives, minutes, now)

    def _read_arms(self, release: Release, now: datetime) -> None:
        """Count the requests since the release began, from where the log ended then: each once, also by a process that
        is started during the release.
        """
        if release.id != self._release:
            within = next((each.within for each in self._objectives if each.within is not None), None)
            self._arms = {arm: RequestMinutes(self._project.name, within=within) for arm in (CHAMPION, CANDIDATE)}
            self._release, self._cursor = release.id, release.start_cursor
        source = exchanges_of(self._project)
        while True:
            page, self._cursor = source.exchanges(self._cursor, limit=_PAGE)
            for arm, minutes in self._arms.items():
                minutes.add((exchange for exchange in page if exchange.assigned == arm), now)
                minutes.forget(release.begun)
            if len(page) < _PAGE:
                return


def check_objectives(project: Project, policy: ReleasePolicy, reader: SloGateReader) -> None:
    """Check that no objective stops a release that would begin now.

    Raises:
        ObjectiveMissedError: one does.
        StorageError, EngineUnavailableError: the gateways' log cannot be read.
    """
    if hold := reader.hold_start(policy):
        raise ObjectiveMissedError(
            f"no release of {project.name} begins now: {hold}",
            subject="release.slo",
            hint="`cumulant slo show` follows it; where the candidate is the fix, --override-slo REASON begins all the"
            " same; `cumulant rollback` is never held",
        )
