"""The process of the release controllers: one round a second, one log line a change."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from cumulant.core.clock import SystemClock
from cumulant.core.errors import CumulantError, ObjectiveMissedError
from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
from cumulant.flows.deployment.deployment import deployment_of, is_shared
from cumulant.flows.ledger.lease import LeaseWatch
from cumulant.flows.release import store
from cumulant.flows.release.controller.controller import LAPSE, Controller
from cumulant.flows.release.controller.custom_metrics import CustomMetrics
from cumulant.flows.release.controller.effects import ReleaseEffects
from cumulant.flows.release.controller.evidence import LabelSource, LiveEvidence, ServerStatus
from cumulant.flows.release.controller.heartbeat import LONG_STEP, Heartbeat
from cumulant.flows.release.controller.label_evidence import LabelEvidence
from cumulant.flows.release.controller.rollback_outbox import RollbackOutbox, deliver_rollbacks
from cumulant.flows.release.controller.route_keeper import RouteKeeper
from cumulant.flows.release.slo_gate import SloGateReader
from cumulant.flows.release.start.start import start_release, start_waiting_release
from cumulant.flows.release.time_scale import read_time_scale
from cumulant.flows.release.views import sentence
from cumulant.flows.stack.desired_state import FOLDER
from cumulant.flows.traffic.clients import exchanges_of, traffic_of
from cumulant.release.state import Release
from cumulant.serving.access_token import read_token

if TYPE_CHECKING:
    from cumulant.core.clock import Clock
    from cumulant.project.project import Project

_ROUND, _LONGEST = 1.0, 30.0
ACTOR = Actor("service:release-controller")


class LogLines:
    """Log lines, without immediate repetitions."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write, self._said = write, ""

    def __call__(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._write(f"{text}\n")


def build_controller(
    project: Project,
    report: Callable[[str], None],
    *,
    model: str = "",
    clock: Clock | None = None,
    labels: LabelSource | None = None,
    steady: Callable[[], float] = time.monotonic,
    settle: float = 15.0,
) -> Controller:
    """The controller of a project's releases, with everything that it sees and does."""
    clock, traffic, journal = clock or SystemClock(), traffic_of(project), project.journal()
    watch = LeaseWatch(steady)
    evidence = LiveEvidence(
        traffic,
        exchanges=exchanges_of(project),
        stack=project.state / FOLDER,
        log=project.log(),
        own=CustomMetrics(project.root, report),
        clock=clock,
        report=report,
        labels=labels,
        settle=settle,
        steady=steady,
        servers=(lambda: reported_servers(project)) if is_shared(project) else None,
        token=read_token(None, os.environ, least=1),
    )
    return Controller(
        model or project.name,
        journal=journal,
        traffic=traffic,
        evidence=evidence,
        effects=ReleaseEffects(
            deployment_of(project),
            registry=project.registry,
            journal=journal,
            traffic=traffic,
            receivers=project.receivers(),
            clock=clock,
            actor=ACTOR,
            report=report,
        ),
        clock=clock,
        steady=steady,
        pace=lambda: read_time_scale(journal, watch),
        keeper=RouteKeeper(project, traffic) if is_shared(project) and model in ("", project.name) else None,
        slo=SloGateReader(project, clock=clock),
    )


def reported_servers(project: Project) -> dict[str, ServerStatus]:
    """The servers of all machines, by URL."""
    present = deployment_of(project).present(project.name)
    return {
        server.endpoint: ServerStatus(url=server.endpoint, ready=server.ready, restarts=server.restarts)
        for server in present
    }


class Controllers:
    """A controller a model: the project's own, and models of servers of others that a release compares."""

    def __init__(self, project: Project, report: Callable[[str], None], *, settle: float) -> None:
        self._project, self._report, self._settle = project, report, settle
        self._by_model: dict[str, Controller] = {}
        self.heartbeat = Heartbeat()

    def tick(self) -> list[Release]:
        """Run a round of each release; returns the releases after it. A failing model is reported and stops no other.

        Raises:
            CumulantError: the journal or the gateway cannot be reached, so that no release advances.
        """
        for name in self._models():
            if name not in self._by_model:
                self._by_model[name] = build_controller(
                    self._project, self._report, model=name, labels=LabelEvidence(self._project), settle=self._settle
                )
        releases, faults = [], dict[str, CumulantError]()
        for name, controller in self._by_model.items():
            self.heartbeat.beat()
            try:
                releases.append(controller.tick())
            except CumulantError as error:
                faults[name] = error
        if faults and not releases:
            raise next(iter(faults.values()))
        for name, fault in faults.items():
            self._report(f"{name} waits: {self._project.vault.redact(fault.message)}")
        return [release for release in releases if release is not None]

    def _models(self) -> list[str]:
        """The models with releases; where servers come and go also the project's own, whose routes follow them."""
        names = store.list_models(self._project.journal())
        return names if not is_shared(self._project) or self._project.name in names else [*names, self._project.name]


def run(
    project: Project,
    acting: Controllers,
    ended: Callable[[float], bool],
    report: Callable[[str], None],
) -> None:
    """Run rounds until `ended`, which waits so many seconds, returns true; a failure lengthens the wait to 30 s."""
    reported: dict[str, tuple[object, ...]] = {}
    owed, slo, pause = RollbackOutbox(project, report), SloGateReader(project), _ROUND
    acting.heartbeat.beat()
    while not ended(pause):
        acting.heartbeat.beat()
        try:
            owed.tick()
            releases = acting.tick()
            for release in releases:
                now = (release.id, release.status, release.at)
                if reported.get(release.model) != now:
                    reported[release.model] = now
                    report(f"release {release.id}: {sentence(release)}")
            _begin_waiting(
                project, releases, report, slo, progress=lambda _text, _share=None: acting.heartbeat.beat(LONG_STEP)
            )
            pause = min([_ROUND, *(release.policy.look for release in releases if not release.over)])
        except CumulantError as error:
            report(f"waits: {project.vault.redact(error.message)}")
            pause = min(_LONGEST, pause * 2)
        except Exception as error:  # noqa: BLE001 - the edge: requests are served on, so the controller runs on
            text = project.vault.redact(str(error))
            report(f"a fault of the controller, which tries again: {type(error).__name__}: {text}")
            pause = min(_LONGEST, pause * 2)


def run_once(
    project: Project, acting: Controllers, ended: Callable[[float], bool], report: Callable[[str], None]
) -> list[Release]:
    """One look of each release under way, pending effects of ended ones, and pending deliveries of rollbacks.

    Returns the releases after it.

    It takes as long as the longest `look`, and until another controller's lease expires.

    Raises:
        CumulantError: the journal or the gateway cannot be reached.
    """
    deliver_rollbacks(project, report)
    releases, rounds_left = acting.tick(), math.ceil(LAPSE) + 2
    if releases or not store.list_models(project.journal()):
        rounds_left = _rounds_until_look(releases)
    while rounds_left > 0 and not ended(_ROUND):
        before, releases = releases, acting.tick()
        rounds_left = _rounds_until_look(releases) if releases and not before else rounds_left - 1
    _begin_waiting(project, releases, report, SloGateReader(project))
    return releases


def _rounds_until_look(releases: Sequence[Release]) -> int:
    return max((math.ceil(release.policy.look) + 1 for release in releases if not release.over), default=0)


def describe_progress(release: Release) -> str:
    if release.over:
        return f"no release is under way; the last one: {sentence(release)}"
    if release.status == "pending":
        return sentence(release)
    return f"{release.step.label}: {sum(release.samples.values()):,} requests"


def _begin_waiting(
    project: Project,
    releases: Sequence[Release],
    report: Callable[[str], None],
    slo: SloGateReader,
    *,
    progress: Progress = silent,
) -> None:
    """Start a waiting release, if this process acts: the one before is among the `releases` of its round.

    One that cannot begin is reported and does not stop the others.
    """
    if not any(release.model == project.name for release in releases):
        return
    progress("begin the release that waits")
    try:
        begun = start_waiting_release(project, begin=partial(start_release, slo=slo, progress=progress))
    except ObjectiveMissedError:  # without its figures, which change each round
        report("the candidate that waits does not begin while an objective of the served model is missed")
        return
    except CumulantError as error:
        report(f"the candidate that waits does not begin: {project.vault.redact(error.message)}")
        return
    if begun is not None and begun.release is not None:
        report(f"release {begun.release.id}: version {begun.release.candidate.version} waited and begins")
