"""The verdict on a source: what its rules found over all parts, and whether the snapshot is accepted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cumulant.core.units import duration, from_micros, share, show_duration
from cumulant.data.profile import Profile
from cumulant.data.snapshot import CheckResult, SchemaChange, Snapshot
from cumulant.data.spec import SourceSpec

if TYPE_CHECKING:
    from cumulant.data.parts import PartFacts

#: the rule on rows that are lost with files that are gone
MISSING_FILES = "table:missing_files"
#: of an example's value
_SHOWN = 40


def row_checks(parts: Sequence[PartFacts]) -> tuple[CheckResult, ...]:
    """Every row rule with its failures over all parts. None of them decides by itself: the share does."""
    found: dict[str, CheckResult] = {}
    checked = sum(part.rows_in - part.rows_dropped for part in parts)
    for part in parts:
        for check in part.checks:
            failed = check.failed + (found[check.rule].failed if check.rule in found else 0)
            found[check.rule] = CheckResult(
                rule=check.rule,
                column=check.column,
                kind="row",
                failed=failed,
                share=failed / checked if checked else 0.0,
                text=check.text,
                passed=failed == 0,
            )
    return tuple(found.values())


def table_checks(
    spec: SourceSpec, profile: Profile, now: datetime, *, newest: float | None = None
) -> tuple[CheckResult, ...]:
    """Rules on the accepted rows as a whole: shares of nulls, row counts, freshness.

    `newest` is the last event that is not after `now`, in microseconds since 1970; None where there is none.
    """
    from cumulant.data.rules import is_row_rule

    found = []
    for column, rule in spec.rules.items():
        if rule.nulls is not None and not is_row_rule(rule.nulls) and column in profile:
            found.append(_null_share(column, share(rule.nulls), profile))
    found += _row_count(spec, profile.rows)
    if spec.table.fresh is not None and spec.time is not None:
        found.append(_freshness(spec.time.column, duration(spec.table.fresh), newest, now))
    return tuple(found)


def _null_share(column: str, limit: float, profile: Profile) -> CheckResult:
    nulls = profile[column].null_share
    return CheckResult(
        rule=f"{column}:nulls",
        column=column,
        kind="table",
        failed=profile[column].nulls,
        share=nulls,
        text=f"at most {limit:.4g} of {column} is null ({nulls:.4g} is)",
        passed=nulls <= limit,
    )


def _row_count(spec: SourceSpec, rows: int) -> list[CheckResult]:
    low, high = spec.table.min_rows, spec.table.max_rows
    found = []
    if low is not None:
        text = f"at least {low:,} rows ({rows:,} are)"
        found.append(_whole("table:min_rows", text, passed=rows >= low, failed=max(low - rows, 0)))
    if high is not None:
        text = f"at most {high:,} rows ({rows:,} are)"
        found.append(_whole("table:max_rows", text, passed=rows <= high, failed=max(rows - high, 0)))
    return found


def _freshness(column: str, limit: timedelta, newest: float | None, now: datetime) -> CheckResult:
    if newest is None:
        return _whole("table:fresh", f"a {column} is in the past, so that its age is known", passed=False, failed=0)
    age = now - from_micros(int(newest))
    shown = show_duration(timedelta(seconds=round(age.total_seconds())))
    text = f"the newest {column} up to now is at most {show_duration(limit)} old (it is {shown} old)"
    return _whole("table:fresh", text, passed=age <= limit, failed=0)


def _whole(rule: str, text: str, *, passed: bool, failed: int) -> CheckResult:
    return CheckResult(rule=rule, column=None, kind="table", failed=failed, share=0.0, text=text, passed=passed)


def breaches(
    spec: SourceSpec, checks: Sequence[CheckResult], changes: Sequence[SchemaChange], *, checked: int, refused: int
) -> tuple[str, ...]:
    """Why a snapshot is not accepted, most telling first; empty where it is."""
    found = []
    limit = share(spec.quarantine)
    if checked and refused / checked > limit:
        worst = sorted((check for check in checks if check.kind == "row" and check.failed), key=_most_failed)
        most = ", ".join(f"{check.rule} ({check.failed:,})" for check in worst[:3])
        found.append(
            f"{refused:,} of {checked:,} rows are refused ({refused / checked:.2%}), more than the {limit:.4g} that "
            f"`quarantine` allows; by {most}"
        )
    found += [f"not so: {check.text}" for check in checks if check.kind == "table" and not check.passed]
    found += [told(change) for change in changes if change.refused]
    return tuple(found)


def _most_failed(check: CheckResult) -> tuple[int, str]:
    return -check.failed, check.rule


def told(change: SchemaChange) -> str:
    """A schema change in words, and what it means for what is made of the column."""
    used = f"; it is used by {change.used_by}" if change.used_by else ""
    return _change(change) + (used or ("; nothing uses it" if change.unused else ""))


def _change(change: SchemaChange) -> str:
    where = f" in {change.file}" if change.file else ""
    if change.kind == "added":
        return f'column "{change.column}" ({change.to}) is new{where}'
    if change.kind == "removed":
        return f'column "{change.column}" is gone{where}'
    if change.kind == "renamed":
        return f'column "{change.column}" is gone and the like "{change.to}" is new{where}: renamed?'
    return f'column "{change.column}" {change.kind} from {change.before} to {change.to}{where}'


def warnings_of(snapshot: Snapshot) -> tuple[str, ...]:
    """What a person should know of an accepted snapshot: columns lost that nothing uses, or that the policy let go,
    what of its files may not be as meant, and what its contract asks that nothing checks.
    """
    lost = [told(change) for change in snapshot.changes if change.kind not in ("added", "widened")]
    return (
        *lost,
        *snapshot.warnings,
        *(f"the contract asks more than is checked: {note}" for note in snapshot.unchecked),
    )


def hint_for(snapshot: Snapshot, example: Callable[[CheckResult], object] = lambda _: None) -> str:
    """What to do about the first breach; `example` gives a value that a check refused, None where none may be shown."""
    if any(change.refused for change in snapshot.changes):
        return "mend the source, or accept it: on_schema_change: accept (or one kind, such as {removed: accept})"
    if any(check.rule == MISSING_FILES and not check.passed for check in snapshot.checks):
        return "put the files back, or accept that they are gone: missing_files: 100% (or a share between)"
    if (check := _mostly_of_another_type(snapshot)) is not None:
        value = example(check)
        such = "" if value is None else f', such as "{str(value)[:_SHOWN]}"'
        return (
            f"most values of {check.column}{such} cannot be read as declared: change `type`, `number_format` or "
            f"`date_format` under `rules: {{{check.column}: ...}}`, or the values in `prepare`; "
            f"`cumulant data quarantine {snapshot.source}` shows the rows"
        )
    merging = (check.column for check in snapshot.checks if check.failed and check.rule == f"{check.column}:zeros")
    if (column := next(merging, None)) is not None:
        return f"values of {column} that differ in leading zeros are one number: set rules: {{{column}: {{type: str}}}}"
    if snapshot.rows_quarantined:
        return f"look at the rows: cumulant data quarantine {snapshot.source}; mend them, or raise `quarantine`"
    return "mend the source, or change its rule in the project file"


def _mostly_of_another_type(snapshot: Snapshot) -> CheckResult | None:
    """The check of a column whose declared type most rows do not have."""
    rows = snapshot.rows_in - snapshot.rows_dropped
    types = (check for check in snapshot.checks if check.kind == "row" and check.rule == f"{check.column}:type")
    return next((check for check in types if 2 * check.failed > rows), None)
