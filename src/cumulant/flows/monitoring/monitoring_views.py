"""What monitoring has stored, for readers: labelled quality over time, drift over time, and retraining."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import not_found
from cumulant.flows.ledger.actions import verb
from cumulant.flows.monitoring.drift.drift_history import COMPARED, HISTORY, DriftHistory, read_history
from cumulant.flows.monitoring.state import WATCH, MonitoringState, RetrainRequest, WindowRecord, read_request
from cumulant.flows.registry.model_record import MODEL, ModelRecord
from cumulant.flows.release.store import list_releases
from cumulant.monitoring.events import RetrainingProgressed, RetrainingRequested
from cumulant.ports.journal import Row

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project

#: retrained versions of a view
_VERSIONS = 30


class MonitoredVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version that was evaluated while it served: since when, and until which moment."""

    version: str
    since: datetime
    until: datetime


class QualityView(msgspec.Struct, frozen=True, kw_only=True):
    """The windows of a version, oldest first. `mature`: of those, how many have had their time for labels; the others
    wait. `word`: of harm, with `sentence` and since when it is shown.
    """

    version: str
    versions: tuple[MonitoredVersion, ...]
    windows: tuple[WindowRecord, ...]
    mature: int
    reference_loss: float | None
    word: str
    sentence: str
    harm_since: datetime | None


class RetrainingStep(msgspec.Struct, frozen=True, kw_only=True):
    """One event of retraining: `requested`, or a stage that it reached."""

    at: datetime
    actor: str
    stage: str
    champion: str | None
    candidate: str | None
    release: str | None
    text: str


class RetrainedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version that retraining made: the gate's verdict on the test rows, and what became of its release.

    `difference`, with the ends of its interval: of the main metric, above 0 where the version is better than
    `against`. None where there is no record of the version, or no such figure.
    """

    version: str
    at: datetime
    passed: bool | None = None
    word: str = ""
    metric: str = ""
    against: str = ""
    value: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    release: str | None = None
    release_status: str = ""


class RetrainingView(msgspec.Struct, frozen=True, kw_only=True):
    """The newest request, None where there was none, all steps and the versions that they made, the newest first."""

    request: RetrainRequest | None
    steps: tuple[RetrainingStep, ...]
    versions: tuple[RetrainedVersion, ...] = ()


@verb("monitor.show")
def quality(project: Project, *, principal: Principal, version: str = "") -> QualityView | None:
    """The labelled quality of a version (default: the one that serves) over time; None where nothing was evaluated.

    Raises:
        NotFoundError: that version was not evaluated.
    """
    states = _states(project)
    if not states:
        return None
    state = states.get(version) if version else next(iter(states.values()))
    if state is None:
        raise not_found("evaluated version", version, states)
    harm = state.newest_harm
    shown = () if harm is None or harm.word != "worse" else harm.findings
    return QualityView(
        version=state.version,
        versions=tuple(
            MonitoredVersion(version=each.version, since=each.since, until=each.until) for each in states.values()
        ),
        windows=(*state.windows, *state.pending),
        mature=len(state.windows),
        reference_loss=state.reference_loss,
        word="cannot_tell" if harm is None else harm.word,
        sentence="" if harm is None else harm.sentence,
        harm_since=min((finding.since for finding in shown if finding.since is not None), default=None),
    )


@verb("monitor.show")
def drift(project: Project, *, principal: Principal) -> DriftHistory | None:
    """How far each column was from the reference over the windows; None where no comparison was stored."""
    return read_history(project.journal(), project.name)


@verb("monitor.show")
def compared_without_details(project: Project, *, principal: Principal) -> int:
    """The windows of the last comparison, where an earlier version of Cumulant stored no more of it; else 0."""
    journal = project.journal()
    row = journal.get(COMPARED, project.name)
    if row is None or journal.get(HISTORY, project.name) is not None:
        return 0
    return msgspec.convert(row.value["windows"], int)


@verb("monitor.show")
def retraining(project: Project, *, principal: Principal, limit: int = 50) -> RetrainingView:
    """Requested trainings and what became of them."""
    steps = [
        RetrainingStep(
            at=event.time,
            actor=event.actor,
            stage=str(event.data.get("stage", "requested")),
            champion=_text(event.data.get("champion")),
            candidate=_text(event.data.get("candidate")),
            release=_text(event.data.get("release")),
            text=str(event.data.get("reason", "")),
        )
        for event in project.journal().events(kinds=[RetrainingRequested.kind, RetrainingProgressed.kind])
    ]
    return RetrainingView(
        request=read_request(project.journal(), project.name)[0],
        steps=tuple(reversed(steps[-limit:])),
        versions=tuple(reversed(_retrained(project.journal(), project.name, steps)[-_VERSIONS:])),
    )


def _retrained(journal: Journal, model: str, steps: Sequence[RetrainingStep]) -> list[RetrainedVersion]:
    """The versions of the steps, each with its newest release."""
    at: dict[str, datetime] = {}
    released: dict[str, str] = {}
    for step in steps:
        if step.candidate is not None:
            at.setdefault(step.candidate, step.at)
            released |= {} if step.release is None else {step.candidate: step.release}
    statuses = {release.id: release.status for release in list_releases(journal, model)} if released else {}
    versions = []
    for version, moment in list(at.items())[-_VERSIONS:]:
        release = released.get(version)
        outcome = {"release": release, "release_status": statuses.get(release or "", "")}
        versions.append(msgspec.structs.replace(_gate_result(journal, version, moment), **outcome))
    return versions


def _gate_result(journal: Journal, version: str, at: datetime) -> RetrainedVersion:
    row = journal.get(MODEL, version)
    try:
        record = None if row is None else msgspec.convert(row.value, ModelRecord)
    except msgspec.ValidationError:  # another version of the program stored it
        record = None
    if record is None:
        return RetrainedVersion(version=version, at=at)
    verdict = record.judgement.verdict
    main = next((rule for rule in verdict.rules if rule.against == "champion"), next(iter(verdict.rules), None))
    if main is None:
        return RetrainedVersion(version=version, at=at, passed=verdict.passed, word=verdict.word)
    return RetrainedVersion(
        version=version,
        at=at,
        passed=verdict.passed,
        word=verdict.word,
        metric=main.metric,
        against=main.against,
        value=main.candidate.value,
        difference=main.difference.value,
        low=main.difference.low,
        high=main.difference.high,
    )


def _states(project: Project) -> dict[str, MonitoringState]:
    """By version, the one that serves first and then the newest."""
    journal = project.journal()
    earlier = sorted(map(_state, journal.rows(WATCH, f"{project.name}/")), key=lambda state: state.since, reverse=True)
    newest = journal.get(WATCH, project.name)
    states: dict[str, MonitoringState] = {}
    for state in earlier if newest is None else [_state(newest), *earlier]:
        states.setdefault(state.version, state)  # a version that serves again has an older row, too
    return states


def _state(row: Row) -> MonitoringState:
    return msgspec.convert(row.value, MonitoringState)


def _text(value: object) -> str | None:
    return None if value is None or value == "" else str(value)
