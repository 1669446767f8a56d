"""The overview of a project: what is wrong, since when, what was changed before it, and its figures."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import CumulantError
from cumulant.flows.alerting.store import read as read_alerts
from cumulant.flows.data.validate import NEWEST, REFUSED
from cumulant.flows.ledger.actions import verb
from cumulant.flows.monitoring.drift.drift_history import COMPARED
from cumulant.flows.monitoring.state import read_request, read_state
from cumulant.flows.observe.gateway_requests import GatewayRequests
from cumulant.flows.observe.slo import active_alerts, objective_states
from cumulant.flows.overview.changes import Change, last_before
from cumulant.flows.overview.data_problems import data_problems
from cumulant.flows.overview.figures import (
    DriftFigure,
    QualityFigure,
    RequestFigure,
    TrafficFigure,
    drift_figure,
    quality_figure,
    request_figure,
    traffic_figures,
)
from cumulant.flows.overview.objective_problems import (
    RESOLUTION,
    objective_problems,
    undeclared_problems,
    without_objectives,
)
from cumulant.flows.overview.problems import (
    LEVELS,
    Level,
    ModelProblem,
    NextStep,
    alert_problems,
    release_problems,
    retraining_problems,
    stack_problems,
    step_of_calm,
    with_rollback,
    worst_first,
    worst_level,
)
from cumulant.flows.overview.recent_events import RecentEvents
from cumulant.flows.overview.served_version import aliased_version, desired_champion, released_version
from cumulant.flows.release import store
from cumulant.flows.stack.lock import own_status
from cumulant.flows.stack.status import Status, without_ended_processes
from cumulant.monitoring.objectives import ObjectiveState, Severity
from cumulant.project.redaction import redaction_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cumulant.flows.features.online_read import FeatureReaders
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project
    from cumulant.release.state import Release


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """When each source was read last, and up to when predictions were evaluated."""

    sources: dict[str, datetime]
    refused: tuple[str, ...]
    evaluated_until: datetime | None


class ReleaseProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The newest release in short. `weight`: percent of the keys that the candidate gets."""

    id: str
    status: str
    candidate: str
    step: str
    weight: float


class ProjectOverview(msgspec.Struct, frozen=True, kw_only=True):
    """How a project's model does. `sentence` is of the worst of `problems`; `before`: the last change before that.
    `next`: what to do about it, or what comes next where nothing is wrong.

    `serving`: whether the stack's gateway answers; None: no stack runs on this machine.
    """

    project: str
    environment: str
    owner: str
    champion: str | None
    level: Level
    sentence: str
    since: datetime | None
    before: Change | None
    next: NextStep | None
    problems: tuple[ModelProblem, ...]
    quality: QualityFigure | None = None
    drift: DriftFigure | None = None
    traffic: dict[str, TrafficFigure] = {}
    #: None: the log of the gateways cannot be read
    requests: RequestFigure | None = None
    objectives: tuple[ObjectiveState, ...] = ()
    release: ReleaseProgress | None = None
    freshness: Freshness | None = None
    alerts: int = 0
    cases: int = 0
    serving: bool | None = None
    url: str | None = None
    at: datetime


class OverviewMemory:
    """What a server remembers of a project: for its overview, and for direct reads of stored features."""

    def __init__(self, model: str) -> None:
        self.events = RecentEvents(model)
        self.requests = GatewayRequests()

    @cached_property
    def features(self) -> FeatureReaders:
        from cumulant.flows.features.online_read import FeatureReaders  # loads what few callers need

        return FeatureReaders()


@verb("project.overview")
def project_overview(
    project: Project, *, principal: Principal, clock: Clock | None = None, memory: OverviewMemory | None = None
) -> ProjectOverview:
    """The overview of the project's own model, from few rows of the journal and new lines of the gateways' log.

    `memory`: what a server remembers of both.

    Raises:
        CumulantError: the journal does not answer.
    """
    return read_overview(project, clock=clock, memory=memory)


def read_overview(
    project: Project, *, clock: Clock | None = None, memory: OverviewMemory | None = None
) -> ProjectOverview:
    """As `project_overview`, for whoever shows it to principals that may see it. Raises as that."""
    now = (clock or SystemClock()).now()
    journal, name = project.journal(), project.name
    memory = memory or OverviewMemory(name)
    events = memory.events
    events.update(journal)
    alerts, _ = read_alerts(journal)
    requests, objectives, errors = _requests(project, memory, now, active_alerts(name, alerts))
    state, request = read_state(journal, name)[0], read_request(journal, name)[0]
    stored = store.read(journal, name)
    release = None if stored is None else stored[0]
    status, fault = _stack(project)
    desired, damage = _desired(project)
    problems = worst_first(
        [
            *stack_problems(status),
            *fault,
            *damage,
            *alert_problems(alerts if requests is None else without_objectives(alerts), now),
            *data_problems(project, now),
            *objective_problems(objectives, alerts, now),
            *errors,
            *release_problems(release, now),
            *retraining_problems(request),
        ]
    )
    freshness = _freshness(journal, None if state is None else state.until)
    champion = desired or (None if release is None else released_version(project, release))
    changes = events.changes if problems or champion is None else []
    champion = champion or aliased_version(changes) or (None if state is None else state.version)
    worst, before = problems[0] if problems else None, None
    if worst is not None:
        before = last_before(changes, *_moments(worst))
        worst = with_rollback(worst, promoted=before is not None and before.promotion, model=name)
        problems[0] = worst
    drift = journal.get(COMPARED, name)
    evaluated = state is not None or any(each.requests for each in objectives)
    return ProjectOverview(
        project=name,
        environment=project.environment,
        owner=project.policies.model.owner or "",
        champion=champion,
        level=worst_level(problems, evaluated=evaluated),
        sentence=worst.sentence if worst else _calm_sentence(evaluated=evaluated),
        since=None if worst is None else worst.since,
        before=before,
        next=step_of_calm(champion, events.candidate) if worst is None else worst.next,
        problems=tuple(problems),
        quality=quality_figure(state),
        drift=drift_figure(None if drift is None else drift.value),
        traffic=traffic_figures(release),
        requests=requests,
        objectives=tuple(objectives),
        release=None if release is None else _progress(release),
        freshness=freshness,
        alerts=len(alerts.firing),
        cases=events.open_cases,
        serving=None if status is None else status.running and status.url is not None,
        url=None if status is None else status.url,
        at=now,
    )


def unavailable_overview(project: Project, error: CumulantError, at: datetime) -> ProjectOverview:
    """The overview of a project whose journal does not answer."""
    error = error.reworded(redaction_of(project))
    problem = ModelProblem(
        level="critical",
        what="journal",
        subject=project.name,
        sentence=error.message,
        noticed=at,
        next=NextStep(label=error.hint or "check its stores", target="stack", command="cumulant doctor"),
    )
    return ProjectOverview(
        project=project.name,
        environment=project.environment,
        owner=project.policies.model.owner or "",
        champion=None,
        level="critical",
        sentence=problem.sentence,
        since=None,
        before=None,
        next=problem.next,
        problems=(problem,),
        at=at,
    )


def worst_project_first(overviews: Iterable[ProjectOverview]) -> list[ProjectOverview]:
    """By level, then by the number of alerts, then by name."""
    return sorted(overviews, key=lambda each: (LEVELS.index(each.level), -each.alerts, each.project))


def _moments(problem: ModelProblem) -> tuple[datetime | None, datetime | None]:
    """When a problem may have begun at the latest, by the clock of the data and by that of the machine."""
    if problem.what in ("objective", "errors") and problem.since is not None:
        return problem.since + RESOLUTION, None
    return problem.since, problem.noticed


def _requests(
    project: Project, memory: OverviewMemory, now: datetime, active: Mapping[str, Severity]
) -> tuple[RequestFigure | None, list[ObjectiveState], list[ModelProblem]]:
    """Requests at the gateways; nothing where their log cannot be read, which the stack's processes report."""
    try:
        with memory.requests.counted(project, now) as minutes:
            declared = project.policies.objectives
            states = objective_states(declared, minutes, now, active)
            errors = undeclared_problems(declared, minutes, now)
            return request_figure(minutes, now), states, errors
    except CumulantError:
        return None, [], []


def _stack(project: Project) -> tuple[Status | None, list[ModelProblem]]:
    """The processes on this machine; a damaged status is a problem, and hides nothing else."""
    try:
        status = own_status(project.state)
    except CumulantError as error:
        return None, [_damaged("status", error.reworded(redaction_of(project)))]
    return (None if status is None else without_ended_processes(status)), []


def _desired(project: Project) -> tuple[str | None, list[ModelProblem]]:
    try:
        return desired_champion(project), []
    except CumulantError as error:
        return None, [_damaged("desired state", error.reworded(redaction_of(project)))]


def _damaged(subject: str, error: CumulantError) -> ModelProblem:
    step = NextStep(label=error.hint or "see the processes", target="stack", command="cumulant up --repair")
    return ModelProblem(level="warning", what="stack", subject=subject, sentence=error.message, next=step)


def _freshness(journal: Journal, until: datetime | None) -> Freshness:
    return Freshness(
        sources={row.key: row.updated for row in journal.row_versions(NEWEST)},
        refused=tuple(row.key for row in journal.row_versions(REFUSED)),
        evaluated_until=until,
    )


def _progress(release: Release) -> ReleaseProgress:
    return ReleaseProgress(
        id=release.id,
        status=release.status,
        candidate=release.candidate.version,
        step=release.step.label,
        weight=release.weight,
    )


def _calm_sentence(*, evaluated: bool) -> str:
    return "no problem is known" if evaluated else "nothing was evaluated yet"
