"""Freshness objectives of stored features: how old the newest event of each source may be, and their alerts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.alerting.alert_state import Finding
from cumulant.core.clock import Clock, SystemClock
from cumulant.core.units import show_duration
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.alerting.store import read
from cumulant.flows.features.store_status import StoredSource, StoredTable, judge_source, read_status
from cumulant.flows.ledger.actions import verb
from cumulant.flows.maintenance.rounds import repeat_in_background

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: the rule of the alerts on freshness
FRESHNESS = "freshness"
#: seconds between two evaluations
_ROUND = 30.0


class FreshnessReport(msgspec.Struct, frozen=True, kw_only=True):
    """The freshness of each source that stored features read or that has an objective, over the tables that are served;
    while none is, over the table that was filled last. `served`: whether one is; `lost`: tables that are served and
    that the online store does not have, or that cannot be read; `unknown`: sources whose newest event some table that
    is served does not tell.
    """

    model: str
    at: datetime
    served: bool
    sources: tuple[StoredSource, ...]
    lost: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def missed(self) -> list[StoredSource]:
        return [source for source in self.sources if source.stale]


@verb("features.status")
def show_freshness(project: Project, *, principal: Principal, clock: Clock | None = None) -> FreshnessReport:
    """The freshness of the stored features by source, the stale ones first.

    Raises:
        CumulantError: as `feature_status`.
    """
    return read_freshness(project, (clock or SystemClock()).now())


def read_freshness(project: Project, now: datetime) -> FreshnessReport:
    """As `show_freshness`, for flows that were allowed."""
    tables = read_status(project, now).tables
    served = [table for table in tables if table.served]
    sources = _oldest(served or _last_filled(tables))
    owner = project.policies.model.owner
    for name, policy in project.policies.sources.items():
        if policy.freshness is not None and name not in sources:
            sources[name] = judge_source(name, None, policy, now, owner=owner)
    ordered = sorted(sources.values(), key=lambda source: (not source.stale, source.objective is None, source.source))
    lost = [table for table in served if table.lost]
    unknown = {source.source for table in served for source in table.sources if source.newest is None}
    if any(not table.sources for table in lost):  # of which sources is not known either
        unknown |= sources.keys()
    return FreshnessReport(
        model=project.name,
        at=now,
        served=bool(served),
        sources=tuple(ordered),
        lost=tuple(table.table for table in lost),
        unknown=tuple(sorted(unknown)),
    )


def _last_filled(tables: Sequence[StoredTable]) -> list[StoredTable]:
    return sorted((table for table in tables if table.filled), key=lambda table: str(table.filled))[-1:]


def _oldest(tables: Sequence[StoredTable]) -> dict[str, StoredSource]:
    """Each source as in the table where its newest event is oldest."""
    sources: dict[str, StoredSource] = {}
    for source in (source for table in tables for source in table.sources):
        known = sources.get(source.source)
        if known is None or (source.staleness or 0.0) > (known.staleness or 0.0):
            sources[source.source] = source
    return sources


def freshness_sentence(source: StoredSource) -> str:
    """What is known of a source's freshness, in words."""
    if source.staleness is None:
        return f"it is not known how old the newest stored event of {source.source} is"
    age = show_duration(timedelta(seconds=round(source.staleness)))
    limit = "" if source.objective is None else f"; the objective is {show_duration(_seconds(source.objective))}"
    return f"the newest stored event of {source.source} is {age} old{limit}"


def _seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def _findings(report: FreshnessReport) -> Iterator[Finding]:
    for source in report.missed:
        assert source.newest is not None, "an age that is not known misses no objective"
        yield Finding(
            model=report.model,
            rule=FRESHNESS,
            subject=source.source,
            kind="feed",
            moved=freshness_sentence(source),
            since=source.newest + _seconds(source.objective or 0.0),
            next=freshness_advice(source),
        )


def freshness_advice(source: StoredSource) -> str:
    """What to do about a source that is stale."""
    owner = f"ask {source.owner}, who owns it, or " if source.owner else ""
    return f"{owner}look where its rows stop: `cumulant features status`, `cumulant data show {source.source}`"


def evaluate_freshness(project: Project, *, principal: Principal, clock: Clock | None = None) -> str:
    """Evaluate the alerts by the freshness objectives as they are now; the result in a sentence.

    It writes nothing while no alert fires, begins or ends, and reads nothing where the project declares no objective.
    An alert does not end because a table is lost: it stays while the age is not known.

    Raises:
        EngineUnavailableError: the online store or the journal does not answer.
    """
    declared = {name for name, policy in project.policies.sources.items() if policy.freshness is not None}
    active = [alert for alert in read(project.journal())[0].alerts.values() if alert.finding.rule == FRESHNESS]
    findings, remarks = list[Finding](), list[str]()
    if declared:
        report = read_freshness(project, (clock or SystemClock()).now())
        findings = list(_findings(report)) if report.served else []
        remarks = [f"the online store does not have the table {table}, which is served" for table in report.lost]
        unknown = declared.intersection(report.unknown) - {finding.subject for finding in findings}
        for alert in active:
            if alert.status == "firing" and alert.finding.subject in unknown:
                findings.append(alert.finding)
                remarks.append(f"the alert on {alert.finding.subject} stays while its age is not known")
    if findings or active:
        observe(project, findings, principal=principal, examined=[(project.name, FRESHNESS)], clock=clock)
    if not declared:
        return "the project declares no freshness objectives"
    sentences = [*(finding.moved for finding in findings), *remarks]
    return "; ".join(sentences) or "stored features are as fresh as their objectives"


def watch_freshness(
    project: Project, report: Callable[[str], object], *, pause: float = _ROUND
) -> AbstractContextManager[None]:
    """Evaluate the alerts by freshness each `pause` seconds while the block lasts. Errors go to `report`."""

    def evaluate() -> None:
        evaluate_freshness(project, principal=project.principal())

    return repeat_in_background(project, evaluate, report, failure="freshness is not evaluated", pause=pause)
