"""What monitoring has stored, for readers: labelled quality over time, drift over time, and retraining."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import not_found
from cumulant.flows.ledger.actions import verb
from cumulant.flows.monitoring.drift.drift_history import COMPARED, HISTORY, DriftHistory, read_history
from cumulant.flows.monitoring.state import WATCH, MonitoringState, RetrainRequest, WindowRecord, read_request
from cumulant.monitoring.events import RetrainingProgressed, RetrainingRequested
from cumulant.ports.journal import Row

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project


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


class RetrainingView(msgspec.Struct, frozen=True, kw_only=True):
    """The newest request, None where there was none, and all steps, the newest first."""

    request: RetrainRequest | None
    steps: tuple[RetrainingStep, ...]


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
        request=read_request(project.journal(), project.name)[0], steps=tuple(reversed(steps[-limit:]))
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
