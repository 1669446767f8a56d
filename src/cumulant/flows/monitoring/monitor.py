"""Monitoring: the rows of a table or of the prediction log, window by window, against a reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.data.parts.spill import spill_in
from cumulant.flows.monitoring.drift.drift_page import DriftPageSource, check_page, write_page
from cumulant.flows.monitoring.drift.sides import (
    MonitorRequest,
    Sides,
    add_segments,
    check_compared,
    compare_jointly,
    count_label_faults,
    is_key,
    missing_columns,
    open_sides,
    roles_of,
    shared_columns,
    targets_of,
    truth_of,
)
from cumulant.flows.monitoring.drift.table_estimates import TableEstimates, table_estimates
from cumulant.flows.monitoring.drift.table_loss import TableLoss, table_loss
from cumulant.flows.monitoring.drift.traffic_volume import misdated_rows, row_findings
from cumulant.flows.monitoring.drift.window_counts import TableWindows, Windows
from cumulant.monitoring.drift.profiles import DriftProfile, Role, Skipped
from cumulant.monitoring.drift.timing import mixed_zones, oddities
from cumulant.monitoring.policy import DriftPolicy, PerformancePolicy
from cumulant.monitoring.tables import require_columns

if TYPE_CHECKING:
    from cumulant.flows.monitoring.reference import ServedReference
    from cumulant.monitoring.drift.findings import DriftFinding, Findings
    from cumulant.monitoring.drift.joint import Joint
    from cumulant.monitoring.drift.volume import Volume
    from cumulant.monitoring.table_labels import Labels


#: findings whose segments are computed
_EXPLAINED = 10


class MonitorResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a comparison, and how the table was read.

    `unknown`: columns of the settings that neither side has. `unread`: columns that no feature of the served version
    reads. `odd`: unusual times and numbers of rows. `others`, `coming`: rows of the log by other versions and of the
    future, which are left out. `label_faults`: unused labels by reason. `volume`: alarms of numbers of rows and of
    their times.
    """

    predictions: str
    reference: str
    rows: int
    time: str | None
    answers: tuple[str, ...]
    label: str | None
    labelled: int
    label_key: tuple[str, ...]
    label_faults: dict[str, int] = {}
    only_here: tuple[str, ...]
    only_in_reference: tuple[str, ...]
    unknown: tuple[str, ...]
    unread: tuple[str, ...] = ()
    others: int = 0
    coming: int = 0
    drift: Findings
    odd: tuple[str, ...] = ()
    joint: Joint | None = None
    loss: TableLoss | None = None
    estimates: TableEstimates | None = None
    volume: tuple[DriftFinding, ...] = ()

    @property
    def findings(self) -> tuple[DriftFinding, ...]:
        """Those of columns, what matters most first, and then those of the numbers of rows."""
        return (*self.drift.findings, *self.volume)

    @property
    def alarming_windows(self) -> tuple[bool, ...]:
        """Of each window that has rows, whether anything is alarming there."""
        counted = {place for finding in self.volume for place in finding.alarmed}
        return tuple(alarming or place in counted for place, alarming in enumerate(self.drift.alarming))

    @property
    def alarming(self) -> bool:
        """Whether anything is: a change of the rows or of their number in any window, or harm."""
        harmed = self.loss is not None and self.loss.word == "worse"
        return bool(self.volume) or any(self.drift.alarming) or harmed


def monitor(
    request: MonitorRequest,
    policy: DriftPolicy,
    *,
    served: ServedReference | None = None,
    keep: Path | None = None,
    performance: PerformancePolicy | None = None,
    scratch: Path | None = None,
    inspect: Callable[[DriftPageSource], None] | None = None,
) -> MonitorResult:
    """Compare a table's rows with a reference's; with `served`, a log's of that version with its training's.

    `keep`: a folder for the profiles of a log's days. `performance`: what counts as harm where rows have labels.
    `scratch`: where many rows are stored (default: the system's temporary folder). `inspect` gets what a page is made
    of.

    Raises:
        DataError: a file or column is not there or cannot be read, there are no rows, or nothing in common.
        UsageError: the column of labels is ambiguous, no reference is named, or `request.out` is no page.
        StorageError: a file of the log is damaged, rows cannot be stored, or the page cannot be written.
    """
    if request.out is not None:
        check_page(request.out)
    with spill_in(scratch) as spill:
        sides = open_sides(request, policy.window, served, keep, spill)
        comparison = _compare(request, policy, sides, served)
        result = _evaluate(request, policy, comparison, served, performance or PerformancePolicy())
    if request.out is not None or inspect is not None:
        page = DriftPageSource(
            result.predictions,
            result.reference,
            result.drift,
            result.joint,
            comparison.sides.reference,
            comparison.current,
            notes(result),
            result.volume,
            result.estimates,
        )
        if inspect is not None:
            inspect(page)
        if request.out is not None:
            write_page(request.out, page, policy, now=datetime.now(UTC))
    return result


@dataclass(frozen=True)
class _Comparison:
    """Both sides with their counts and findings. `roles`: monitored columns of the rows; `absent`: those they lack."""

    sides: Sides
    labels: Labels | None
    label: str | None
    answers: tuple[str, ...]
    roles: Mapping[str, Role]
    absent: Mapping[str, Role]
    shared: Mapping[str, Role]
    current: DriftProfile
    drift: Findings


def _compare(
    request: MonitorRequest,
    policy: DriftPolicy,
    opened: tuple[Windows, TableWindows, Labels | None],
    served: ServedReference | None,
) -> _Comparison:
    from cumulant.monitoring.drift.comparing import compare

    now, before, labels = opened
    label = labels.name if labels is not None else request.label if request.label in now.columns else None
    answers = request.answers or now.answers
    require_columns(now.name, now.columns, [*request.columns, *answers])
    targets = targets_of(request, served) & {*now.columns} - {*request.columns, *answers, label}
    roles = roles_of(now, request.columns, answers, label, policy, targets=targets)
    hashed = (
        [] if before.is_log else [name for name in request.hashed if roles.pop(name, None) and name in before.columns]
    )
    absent = missing_columns(now, before, request, policy, served)
    shared = shared_columns(roles, absent, before)
    reference, current = now.against(before, shared)
    check_compared(reference, shared.keys() - absent.keys(), before.name)
    weights = None if served is None else served.weights
    drift = compare(reference, current, policy, looks=request.windows, weights=weights)
    sides = Sides(before, now, reference, max(policy.spans))
    drift = msgspec.structs.replace(
        drift,
        findings=(
            *(add_segments(finding, drift, sides) for finding in drift.findings[:_EXPLAINED]),
            *drift.findings[_EXPLAINED:],
        ),
        skipped=(
            *drift.skipped,
            *(Skipped(name, "the log holds hashes of it, and the reference values") for name in hashed),
            *(Skipped(name, "it is of the target, which requests need not carry") for name in sorted(targets)),
        ),
    )
    return _Comparison(sides, labels, label, answers, roles, absent, shared, current, drift)


def _evaluate(
    request: MonitorRequest,
    policy: DriftPolicy,
    comparison: _Comparison,
    served: ServedReference | None,
    performance: PerformancePolicy,
) -> MonitorResult:
    now, before = comparison.sides.now, comparison.sides.before
    drift, shared, labels, label = comparison.drift, comparison.shared, comparison.labels, comparison.label
    rows, weighed = sum(block.rows for block in drift.windows), {*policy.weights}
    unread = () if served is None else served.unread
    counted = row_findings(now, comparison.sides.reference, drift, request, policy, served=served is not None)
    loss, estimates = None, None
    if label is not None and isinstance(now, TableWindows):
        loss = table_loss(now, before, label, comparison.answers, performance)
    if request.estimate:
        estimates = table_estimates(now, before, truth_of(request, before, served, label), label, drift.windows)
    return MonitorResult(
        predictions=now.name,
        reference=before.name,
        rows=rows,
        time=now.time,
        answers=tuple(name for name in comparison.answers if name in shared),
        label=label,
        labelled=0 if labels is None else labels.known,
        label_key=() if labels is None else labels.key,
        label_faults={} if labels is None else count_label_faults(labels),
        only_here=tuple(name for name in comparison.roles if name not in shared and not is_key(now, name, labels)),
        only_in_reference=tuple(comparison.absent),
        unknown=tuple(sorted({*policy.ignore, *weighed} - {*now.columns, *before.columns})),
        unread=tuple(name for name in unread if name in shared and name not in weighed),
        others=now.others,
        coming=now.coming,
        odd=_oddities(now, drift, policy.window, counted),
        drift=drift,
        volume=(*counted.findings, *misdated_rows(now, rows)),
        joint=compare_jointly(comparison.sides, drift.newest) if request.joint else None,
        loss=loss,
        estimates=estimates,
    )


def notes(result: MonitorResult) -> tuple[str, ...]:
    """What a reader should know to trust the answer."""
    drift, absent = result.drift, result.only_in_reference
    lists = {
        "not in the reference": result.only_here,
        "only in the reference (--label NAME names its label, --ignore NAME what is no input)": absent,
        "compared by their new values only, as identifiers are": drift.identifiers,
        "the reference itself moves, so that these are compared with its newest windows": tuple(
            f"{record.feature} ({record.windows})" for record in drift.unsteady
        ),
        "no feature that the model uses reads them (the importance is 0), so they count little": result.unread,
        "no such column, though the settings name it": result.unknown,
    }
    facts = {
        "rows are taken as independent: the reference has no times from which dependence could be learned": (
            drift.assumed_independent
        ),
        f"{result.labelled:,} rows have a label ({result.label}), found by {', '.join(result.label_key)}": bool(
            result.label_key
        ),
        f"{drift.left_out:,} rows have no readable time and were left out": drift.left_out > 0,
        **{f"{count:,} {what}": True for what, count in result.label_faults.items()},
        f"{result.others:,} rows that other versions answered were left out": result.others > 0,
        f"{result.coming:,} rows are dated later than now and count from then on; a clock may be wrong": result.coming
        > 0,
    }
    return (
        *(text for text, holds in facts.items() if holds),
        *(f"{text}: {', '.join(names)}" for text, names in lists.items() if names),
        *result.odd,
        *(f"not watched: {record.name} ({record.reason})" for record in drift.skipped),
    )


def _oddities(now: Windows, findings: Findings, length: timedelta, counted: Volume) -> tuple[str, ...]:
    zones = None
    if isinstance(now, TableWindows) and now.time is not None and not now.is_log:
        zones = mixed_zones(now.table.series(now.time))
    texts = (text for text in (zones, counted.note) if text is not None)
    return (*texts, *oddities(findings.windows, length, judged=counted.judged))
