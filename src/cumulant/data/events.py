"""Events of the package `data`: figures and references, never rows."""

from __future__ import annotations

from typing import ClassVar

from cumulant.core.events import Fact
from cumulant.data.checks.verdict import warned_rules
from cumulant.data.snapshot import Snapshot


class SnapshotAccepted(Fact, frozen=True, kw_only=True):
    """A snapshot of a source was accepted."""

    kind: ClassVar[str] = "data.snapshot_accepted"

    source: str
    snapshot: str
    rows_in: int
    rows_passed: int
    rows_quarantined: int
    rows_dropped: int
    bytes: int
    csv_bytes: int
    files: int
    processed: int
    #: rules that are broken and only warn
    warnings: tuple[str, ...] = ()


class SnapshotRefused(Fact, frozen=True, kw_only=True):
    """A source broke its contract; the last accepted snapshot stays in force."""

    kind: ClassVar[str] = "data.snapshot_refused"

    source: str
    snapshot: str
    rows_in: int
    rows_passed: int
    rows_quarantined: int
    rows_dropped: int
    breaches: tuple[str, ...]


class RowsQuarantined(Fact, frozen=True, kw_only=True):
    """Rows were refused by a rule."""

    kind: ClassVar[str] = "data.rows_quarantined"

    source: str
    snapshot: str
    rule: str
    rows: int


class SchemaChanged(Fact, frozen=True, kw_only=True):
    """A column differs from the last accepted snapshot."""

    kind: ClassVar[str] = "data.schema_changed"

    source: str
    snapshot: str
    change: str
    column: str
    before: str | None
    to: str | None
    refused: bool


def facts_of(snapshot: Snapshot) -> tuple[Fact, ...]:
    facts: list[Fact] = [
        SchemaChanged(
            source=snapshot.source,
            snapshot=snapshot.id,
            change=change.kind,
            column=change.column,
            before=change.before,
            to=change.to,
            refused=change.refused,
        )
        for change in snapshot.changes
    ]
    facts += [
        RowsQuarantined(source=snapshot.source, snapshot=snapshot.id, rule=check.rule, rows=check.failed)
        for check in snapshot.checks
        if check.kind == "row" and check.failed
    ]
    return (*facts, _verdict(snapshot))


def _verdict(snapshot: Snapshot) -> Fact:
    if snapshot.breaches:
        return SnapshotRefused(
            source=snapshot.source,
            snapshot=snapshot.id,
            rows_in=snapshot.rows_in,
            rows_passed=snapshot.rows_passed,
            rows_quarantined=snapshot.rows_quarantined,
            rows_dropped=snapshot.rows_dropped,
            breaches=snapshot.breaches,
        )
    return SnapshotAccepted(
        source=snapshot.source,
        snapshot=snapshot.id,
        rows_in=snapshot.rows_in,
        rows_passed=snapshot.rows_passed,
        rows_quarantined=snapshot.rows_quarantined,
        rows_dropped=snapshot.rows_dropped,
        bytes=snapshot.bytes,
        csv_bytes=snapshot.csv_bytes,
        files=len(snapshot.files),
        processed=len(snapshot.processed),
        warnings=warned_rules(snapshot),
    )
