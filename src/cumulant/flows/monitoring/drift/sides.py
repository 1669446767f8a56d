"""The two sides of a comparison: the rows, the reference, and their shared columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from cumulant.core.errors import DataError, UsageError
from cumulant.core.ids import digest
from cumulant.core.version import __version__
from cumulant.flows.monitoring.drift.log_days import LogSource, answer_columns, content_of, load_log_windows
from cumulant.flows.monitoring.drift.window_counts import TableWindows, Windows, as_flags, flags, served_table
from cumulant.flows.monitoring.result_cache import ResultCache
from cumulant.monitoring.drift.blocks import RowBlocks, by_rows, by_time, whole
from cumulant.monitoring.performance.labelled import LEAST_SHARE
from cumulant.monitoring.policy import DriftPolicy
from cumulant.monitoring.table_labels import Labels, labelled
from cumulant.monitoring.tables import ANSWER, MOMENT, TOLD, PredictionTable, log_at, none_is_past, open_table
from cumulant.ports.log import Log

if TYPE_CHECKING:
    from cumulant.data.parts.spill import Spill
    from cumulant.flows.monitoring.reference import ServedReference
    from cumulant.monitoring.drift.findings import DriftFinding, Findings
    from cumulant.monitoring.drift.joint import Joint
    from cumulant.monitoring.drift.profiles import DriftProfile, Role

#: what labels are commonly called: a reference has them, rows that were just scored do not
_LABELS = ("label", "target", "truth", "ground_truth", "y", "y_true", "outcome")


@dataclass(frozen=True, kw_only=True)
class MonitorRequest:
    """A comparison. `windows` equal parts, or windows of the policy's length.

    `label`: the column of labels; `targets`: columns that become known later; `key`: joins labels. `hashed`: columns
    that a log holds as keyed hashes; compared with a file's values they are not watched. `before`: later rows of the
    log are left out. `skew`: how far rows may be dated after their answers; None: any. `now`: None: the present. `out`:
    the file of a page. `estimate`: whether metrics of several classes are estimated from probabilities.
    """

    predictions: Path | Log
    reference: Path | None
    labels: Path | None = None
    label: str | None = None
    targets: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    time: str | None = None
    windows: int | None = None
    columns: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None
    before: datetime | None = None
    skew: timedelta | None = None
    now: datetime | None = None
    joint: bool = False
    estimate: bool = False
    hashed: tuple[str, ...] = ()
    out: Path | None = None

    @property
    def narrowed(self) -> bool:
        """Whether it compares less than the newest rows with all their columns."""
        return bool(self.columns or self.answers or self.windows or self.until is not None)


def open_sides(
    request: MonitorRequest, length: timedelta, served: ServedReference | None, keep: Path | None, spill: Spill
) -> tuple[Windows, TableWindows, Labels | None]:
    """Rows and reference, and what is known of the rows' labels. Many rows of a log are set aside in `spill`."""
    of = None if served is None else (served.version.name, served.version.version)
    if keep is not None and request.labels is None and request.windows is None and request.time is None:
        log = log_at(request.predictions)
        before, key = _before(request, served, answer_columns(log), spill)
        reference = _windows(before, None, length, served)
        skew = None if request.skew is None else request.skew.total_seconds()
        cache = ResultCache(keep, digest([key, of, length.total_seconds(), skew, __version__]))
        source = LogSource(
            log=log,
            length=length,
            since=request.since,
            until=request.until,
            of=of,
            before=request.before,
            skew=request.skew,
            now=request.now,
            spill=spill,
        )
        return load_log_windows(source, reference, cache), reference, None
    table = open_table(
        request.predictions,
        since=request.since,
        until=request.until,
        of=of,
        skew=request.skew,
        spill=spill,
        name="predictions",
    )
    table = _past(table, request, of, spill).timed(request.time)
    before, _ = _before(request, served, frozenset(table.columns), spill)
    labels = None
    if request.labels is not None:
        labels = labelled(table, request.labels, request.label, request.key)
        # What a served version was trained on has one truth, whatever the file calls it.
        labels = labels if served is None else labels.called(served.truth)
        table = labels.table
    size = -(-table.count() // request.windows) if request.windows else None
    rows = _windows(table, size, length, None)
    if labels is not None:
        labels = labels.compared(rows.cut)
        rows = replace(rows, table=labels.table)
    rows = rows if served is None else replace(rows, table=as_flags(rows.table, flags(before)))
    return rows, _windows(before, size, length, served), labels


def _past(table: PredictionTable, request: MonitorRequest, of: tuple[str, str] | None, spill: Spill) -> PredictionTable:
    """A log without the rows whose time is to come. Raises CumulantError where no other is left."""
    if not table.is_log:
        return table
    past_rows = table.rows.filter(pl.col(MOMENT).is_null() | (pl.col(MOMENT) <= (request.now or datetime.now(UTC))))
    past = replace(table, rows=past_rows)
    coming = table.count() - past.count()
    if not coming:
        return table
    if coming == table.count():
        raise none_is_past(log_at(request.predictions), of, misdated=sum(table.misdated.values()), coming=coming)
    spill.write_arrow("past", past_rows)  # a part of a filtered table is found by reading it from its beginning
    return replace(past, rows=spill.scan_arrow("past"), coming=coming)


def count_label_faults(labels: Labels) -> dict[str, int]:
    """How many labels, or windows of them, are not compared, by why."""
    few = (
        f"windows have labels of less than {LEAST_SHARE:.0%} of their rows, or contradictory ones, and are not "
        "compared by them: which rows are labelled may depend on what was predicted"
    )
    selected = (
        "windows are not compared by their labels: rows without one have other answers than those with one, as where "
        "labels of one class come late: run again when these have come, or, where these rows are never labelled, leave "
        "them out of the predictions"
    )
    counts = {
        "labels are of no row": labels.unmatched,
        "rows have contradictory labels, and count as not labelled": _count(labels.contradicted),
        "labels are known later than now": labels.waiting,
        selected if labels.selected else few: labels.refused,
    }
    return {what: count for what, count in counts.items() if count}


def _count(rows: pl.Series | None) -> int:
    return 0 if rows is None else int(rows.sum())


def _before(
    request: MonitorRequest, served: ServedReference | None, columns: frozenset[str], spill: Spill
) -> tuple[PredictionTable, object]:
    """The reference, and a name of its content. `columns`: of the rows that are compared with it."""
    if served is not None:
        return served_table(served.path, f"the training and test rows of {served.version.uri}"), served.key
    if request.reference is None:
        raise UsageError("there is no reference to compare the rows with", hint="name it with --reference FILE")
    before = _named_alike(open_table(request.reference, spill=spill, name="reference"), columns)
    if request.time is not None and request.time in before.columns:
        before = before.timed(request.time)
    return before, [str(request.reference.absolute()), before.columns, content_of(request.reference)]


def _windows(
    table: PredictionTable, size: int | None, length: timedelta, served: ServedReference | None
) -> TableWindows:
    if not table.count():
        raise DataError(f"{table.name} has no rows", subject=table.name, hint="check the file, --since and --until")
    tested = () if served is None else (*table.answers, *(name for name in [served.truth] if name in table.columns))
    return TableWindows(table, _cut(table, size, length), tested, length if size is None else None)


def _named_alike(before: PredictionTable, columns: frozenset[str]) -> PredictionTable:
    """A log names the fields of answers `answer.FIELD`, files plainly: the reference's are named as in `columns`."""
    plain = {name: name.removeprefix(ANSWER) if before.is_log else ANSWER + name for name in before.answers}
    plain = {name: other for name, other in plain.items() if other in columns and name not in columns}
    plain = {name: other for name, other in plain.items() if other not in before.columns}
    named = tuple(plain.get(name, name) for name in before.columns)
    answers = tuple(plain.get(name, name) for name in before.answers)
    return replace(before, rows=before.rows.rename(plain), columns=named, answers=answers)


def _cut(table: PredictionTable, size: int | None, length: timedelta) -> RowBlocks:
    """Equal windows of `size` rows where set, else windows of time, else all rows as one."""
    if size is not None:
        return by_rows(table.count(), size, None if table.time is None else table.series(table.time))
    return whole(table.count()) if table.time is None else by_time(table.parts(table.time), length)


def roles_of(
    table: Windows,
    columns: tuple[str, ...],
    answers: tuple[str, ...],
    label: str | None,
    policy: DriftPolicy,
    *,
    targets: Collection[str] = (),
) -> dict[str, Role]:
    """The monitored columns, in the order of the table; not those in `targets`, which requests need not carry."""
    left_out = {*policy.ignore, *targets, table.time, *(TOLD if table.is_log else ())}
    wanted = columns or tuple(name for name in table.columns if name not in left_out)
    roles: dict[str, Role] = dict.fromkeys(wanted, "feature")
    roles |= {name: "prediction" for name in answers if name not in left_out}
    return roles | ({} if label is None else {label: "label"})


def targets_of(request: MonitorRequest, served: ServedReference | None) -> set[str]:
    """The columns of the target that the model does not read; without a served version, a target that is a column."""
    if served is None:
        return {*request.targets[:1]}
    return {*request.targets, served.truth} - {*served.weights}


def truth_of(
    request: MonitorRequest, before: TableWindows, served: ServedReference | None, label: str | None
) -> str | None:
    """The reference's column of labels: as it is named, that of the target, or what labels are commonly called."""
    named = [label, request.label, None if served is None else served.truth, *request.targets[:1], *_LABELS]
    return next((name for name in named if name is not None and name in before.columns), None)


def missing_columns(
    now: Windows, before: TableWindows, request: MonitorRequest, policy: DriftPolicy, served: ServedReference | None
) -> dict[str, Role]:
    """Columns of the reference that the predictions lack, with their roles, without those of labels."""
    if request.columns:
        return {}
    labels = {*_LABELS, *request.targets, *([] if request.label is None else [request.label])}
    labels |= set() if served is None else {served.truth}
    known = {*now.columns, *policy.ignore, *TOLD, before.time, *labels}
    known |= set() if before.is_log else {*request.hashed}
    names = (name for name in before.columns if name not in known)
    return {name: "prediction" if name in before.answers else "feature" for name in names}


def shared_columns(roles: Mapping[str, Role], absent: Mapping[str, Role], before: TableWindows) -> dict[str, Role]:
    """The compared columns: those of both sides, and those that the rows lack.

    Raises:
        DataError: there is none that both have.
    """
    shared: dict[str, Role] = {name: role for name, role in roles.items() if name in before.columns}
    if not shared:
        raise DataError(
            "predictions and reference have no column in common",
            subject=before.name,
            hint=f"predictions have {', '.join(list(roles)[:8])}; the reference has {', '.join(before.columns[:8])}",
        )
    return {**shared, **absent}


def check_compared(reference: DriftProfile, shared: Collection[str], name: str) -> None:
    """Raises DataError where no column that both sides have is monitored."""
    if not any(column.name in shared for column in reference.columns):
        why = "; ".join(f"{skipped.name}: {skipped.reason}" for skipped in reference.skipped[:5])
        raise DataError(
            f"{name} and the rows have no column in common that can be compared",
            subject=name,
            hint=f"not watched: {why}" if why else "check the names of the columns",
        )


def is_key(now: Windows, name: str, labels: Labels | None) -> bool:
    """Whether a column that the reference lacks only names the rows: then it is not missing there."""
    if labels is not None and name in labels.key:
        return True
    return isinstance(now, TableWindows) and not now.is_log and now.table.tells_apart(name)


#: the most values of a column whose values are segments
_FEW_VALUES = 50


@dataclass(frozen=True)
class Sides:
    before: TableWindows
    now: Windows
    reference: DriftProfile
    #: most windows that are evaluated together
    span: int


def compare_jointly(sides: Sides, last: int) -> Joint | None:
    """The windows up to the newest with enough rows against the reference, by all features together."""
    from cumulant.monitoring.drift.joint import jointly

    names = [column.name for column in sides.reference.columns if column.role == "feature"]
    now, codes = sides.now.rows(
        [name for name in names if name in sides.now.columns], max(last + 1 - sides.span, 0), last
    )
    before, own = sides.before.all(names), sides.before.cut.codes
    if codes is None or own is None:
        return jointly(before, now, sides.reference)
    return jointly(before, now, sides.reference, blocks=(own, codes))


def _segments(reference: DriftProfile) -> list[str]:
    """The columns whose values may be segments: features with few categories."""
    return [
        column.name
        for column in reference.columns
        if column.role == "feature"
        and column.cells.kind == "category"
        and len(column.cells.values) + len(column.cells.known) <= _FEW_VALUES
    ]


def add_segments(finding: DriftFinding, findings: Findings, sides: Sides) -> DriftFinding:
    """The finding with the segments that carry it, in its newest windows: a long one costs no more."""
    by = [name for name in _segments(sides.reference) if name != finding.feature and name in sides.now.columns]
    if not by or finding.what == "absent":
        return finding
    column = next(column for column in sides.reference.columns if column.name == finding.feature)
    first, last = findings.windows.index(finding.since), findings.windows.index(finding.until)
    now, _ = sides.now.rows([finding.feature, *by], max(first, last + 1 - sides.span), last)
    then = sides.before.all([finding.feature, *by])
    from cumulant.monitoring.drift.segmenting import segments

    return msgspec.structs.replace(finding, segments=segments(then, now, column, finding.what, by))
