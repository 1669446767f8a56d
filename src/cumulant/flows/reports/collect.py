"""The content of a report, collected from the journal and the stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cumulant.core.events import Event
from cumulant.core.servable import Servable
from cumulant.core.structs import struct_from
from cumulant.core.version import __version__
from cumulant.flows.reports.content import (
    CheckReport,
    EventReport,
    FeatureReport,
    FileReport,
    Interval,
    ParityReport,
    ReportData,
    ServingReport,
    SourceReport,
    StepReport,
)
from cumulant.flows.reports.feature_texts import definition, kind
from cumulant.flows.reports.request_example import curl, fields
from cumulant.flows.reports.wording import value
from cumulant.ports.registry import ModelVersion

if TYPE_CHECKING:
    from cumulant.data.snapshot import SchemaChange, Shift, Snapshot
    from cumulant.flows.ledger.ledger_records import RunRecord
    from cumulant.project.project import Project

#: types of an event's values that the page shows
_SAID = (str, int, float, bool)
_HASH = 64
#: changes of columns by which nothing is lost; the others are warnings
_TOLD_ONLY = ("added", "widened")


def base(project: Project, *, subject: str, run: str | None) -> ReportData:
    """The part of a report that is about the project."""
    model = project.policies.model
    return ReportData(
        name=model.name,
        subject=subject,
        generated=datetime.now(UTC),
        cumulant=__version__,
        run=run,
        owner=model.owner,
        purpose=model.purpose,
        risk=model.risk,
    )


def sources(project: Project, snapshots: Iterable[Snapshot]) -> tuple[SourceReport, ...]:
    """Accepted snapshots. Names of columns are shown, values of theirs never; files by their place in the project."""
    return tuple(source(snapshot, f"{project.root}/") for snapshot in snapshots)


def source(snapshot: Snapshot, root: str) -> SourceReport:
    from cumulant.data.checks.verdict import warnings_of

    return struct_from(
        SourceReport,
        snapshot,
        name=snapshot.source,
        snapshot=snapshot.id,
        files=tuple(
            FileReport(file.url.removeprefix(root), file.sha256, file.bytes, file.rows) for file in snapshot.files
        ),
        checks=tuple(
            CheckReport(check.column, check.text, check.failed, check.share, check.passed, check.kind == "row")
            for check in snapshot.checks
        ),
        changes=tuple(_change(change) for change in snapshot.changes if change.kind in _TOLD_ONLY),
        shifts=shift_texts(snapshot),
        warnings=tuple(warnings_of(snapshot)),
    )


def features(servable: Servable) -> tuple[FeatureReport, ...]:
    return tuple(
        FeatureReport(
            name=feature.name,
            dtype=feature.dtype,
            kind=kind(feature),
            definition=definition(feature),
            description=feature.description,
            owner=feature.owner,
            tags=feature.tags,
        )
        for feature in servable.plan.features
    )


def serving(servable: Servable, threshold_text: str = "") -> ServingReport:
    parity = servable.parity
    return ServingReport(
        threshold=servable.threshold,
        threshold_text=threshold_text,
        classes=servable.classes,
        parity=None
        if parity is None
        else ParityReport(parity.rows, parity.max_difference, parity.flips, parity.tolerance),
        request=tuple(fields(servable)),
        curl=curl(servable),
    )


def events(recorded: Iterable[Event]) -> tuple[EventReport, ...]:
    """The story of a run. Steps that only began are left out: each ends with an event of its own."""
    return tuple(
        struct_from(EventReport, event, text=event_text(event.data))
        for event in recorded
        if event.kind not in ("step.started", "training.fold_finished", "training.trial_finished")
    )


def times(run: RunRecord) -> dict[str, Any]:
    """How long the run and its steps took, as fields of a report."""
    steps = (StepReport(name=use.name, seconds=use.seconds, reused=use.reused) for use in run.steps)
    return {"steps": tuple(steps), "seconds": run.seconds if run.finished else None}


def event_text(data: Mapping[str, Any]) -> str:
    """An event's figures on one line; hashes shortened, whole lists left to the journal."""
    parts = []
    for key, content in data.items():
        if not isinstance(content, _SAID) or content in ("", "–"):
            continue
        text = content[:12] if isinstance(content, str) and len(content) == _HASH else value(content)
        parts.append(f"{key.replace('_', ' ')} {text}")
    return ", ".join(parts)


def figures(logged: Mapping[str, float]) -> dict[str, Interval]:
    """A version's figures on its test rows with their intervals, from the registry's plain numbers."""
    return {
        name: Interval(value, logged.get(f"{name}_low"), logged.get(f"{name}_high"))
        for name, value in logged.items()
        if not name.startswith(("naive_", "cv_")) and not name.endswith(("_low", "_high"))
    }


def version_facts(version: ModelVersion) -> dict[str, Any]:
    """The registry's facts of the version, as fields of a report."""
    return {
        "name": version.name,
        "version": version.version,
        "uri": version.uri,
        "aliases": version.aliases,
        "created": version.created,
    }


def _change(change: SchemaChange) -> str:
    words = {
        "added": f"column {change.column} was added",
        "widened": f"column {change.column} was widened from {change.before} to {change.to}",
    }
    return words[change.kind] + (" (refused)" if change.refused else "")


def shift_texts(snapshot: Snapshot) -> tuple[str, ...]:
    """The columns that moved against the last accepted snapshot, or that none did; nothing for a first snapshot."""
    from cumulant.data.shift import notable_shifts

    shifts = notable_shifts(snapshot.shifts)
    return tuple(map(_shift, shifts)) or (("no column moved",) if snapshot.shifts else ())


def _shift(shift: Shift) -> str:
    sizes = f"Jensen-Shannon distance {value(shift.distance)}, population stability {value(shift.psi)}"
    text = f"{shift.column} moved: {sizes}"
    if shift.nulls != shift.nulls_before:
        text += f", missing {shift.nulls_before:.1%} before and {shift.nulls:.1%} now"
    return text
