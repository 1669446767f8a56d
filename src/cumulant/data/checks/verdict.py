"""The verdict on a source: the results of its rules over all parts, and whether the snapshot is accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import ContractBreachError, DataError
from cumulant.core.units import show_duration
from cumulant.data.files.unreadable_files import shorten_list
from cumulant.data.policy import SourcePolicy
from cumulant.data.profile import Profile
from cumulant.data.rules.severity import severity_of
from cumulant.data.rules.verdict_spec import Severity
from cumulant.data.snapshot import WIDER, BatchCheck, CheckResult, SchemaChange, Snapshot

if TYPE_CHECKING:
    from cumulant.data.parts.part import PartFacts
    from cumulant.data.rules.row_checks import AbsentColumnError

#: the rule on rows that are lost with files that are gone
MISSING_FILES = "table:missing_files"
#: the rule on files that cannot be read
UNREADABLE_FILES = "table:unreadable_files"
#: of an example's value
_SHOWN = 40
#: of the rules that refuse rows, those that are named
_WORST = 3


def evaluate_row_rules(parts: Sequence[PartFacts], policy: SourcePolicy) -> tuple[CheckResult, ...]:
    """Every row rule with its failures over all parts. None of them decides by itself: the share does."""
    results: dict[str, CheckResult] = {}
    checked = sum(part.rows_in - part.rows_dropped for part in parts)
    for part in parts:
        for check in part.checks:
            failed = check.failed + (results[check.rule].failed if check.rule in results else 0)
            results[check.rule] = CheckResult(
                rule=check.rule,
                column=check.column,
                kind="row",
                failed=failed,
                share=failed / checked if checked else 0.0,
                text=check.text,
                passed=failed == 0,
                severity=severity_of(policy, check.rule, check.column),
            )
    return tuple(results.values())


def evaluate_table_rules(
    policy: SourcePolicy, profile: Profile, now: datetime, *, rows: int, newest: datetime | None = None
) -> tuple[CheckResult, ...]:
    """Results of the rules on the accepted rows as a whole: shares of nulls, row counts, freshness.

    `rows`: those in force; `newest`: the last event up to `now`, None without one.
    """
    results = [
        _null_share(column, policy, limit, profile) for column, limit in policy.nulls.items() if column in profile
    ]
    results += _row_count(policy, rows)
    if policy.fresh is not None and policy.spec.time is not None:
        results.append(_freshness(policy.spec.time.column, policy, policy.fresh, newest, now))
    return tuple(results)


def _null_share(column: str, policy: SourcePolicy, limit: float, profile: Profile) -> CheckResult:
    nulls = profile[column].null_share
    return CheckResult(
        rule=f"{column}:nulls",
        column=column,
        kind="table",
        failed=profile[column].nulls,
        share=nulls,
        text=f"at most {limit:.4g} of {column} is null ({nulls:.4g} is)",
        passed=nulls <= limit,
        severity=severity_of(policy, f"{column}:nulls", column),
    )


def _row_count(policy: SourcePolicy, rows: int) -> list[CheckResult]:
    low, high = policy.spec.table.min_rows, policy.spec.table.max_rows
    results = []
    if low is not None:
        text = f"at least {low:,} rows ({rows:,} are)"
        results.append(_table_check("table:min_rows", policy, text, passed=rows >= low, failed=max(low - rows, 0)))
    if high is not None:
        text = f"at most {high:,} rows ({rows:,} are)"
        results.append(_table_check("table:max_rows", policy, text, passed=rows <= high, failed=max(rows - high, 0)))
    return results


def _freshness(
    column: str, policy: SourcePolicy, limit: timedelta, newest: datetime | None, now: datetime
) -> CheckResult:
    if newest is None:
        text = f"a {column} is in the past, so that its age is known"
        return _table_check("table:fresh", policy, text, passed=False, failed=0)
    age = now - newest
    shown = show_duration(timedelta(seconds=round(age.total_seconds())))
    text = f"the newest {column} up to now is at most {show_duration(limit)} old (it is {shown} old)"
    return _table_check("table:fresh", policy, text, passed=age <= limit, failed=0)


def _table_check(rule: str, policy: SourcePolicy, text: str, *, passed: bool, failed: int) -> CheckResult:
    return CheckResult(
        rule=rule,
        column=None,
        kind="table",
        failed=failed,
        share=0.0,
        text=text,
        passed=passed,
        severity=severity_of(policy, rule, None),
    )


def find_breaches(
    policy: SourcePolicy,
    checks: Sequence[CheckResult],
    changes: Sequence[SchemaChange],
    batches: Sequence[BatchCheck],
    *,
    checked: int,
    refused: int,
    failing: int,
) -> tuple[tuple[Severity, str], ...]:
    """Broken rules with their severity, the most important first; a `fail` refuses the snapshot.

    `failing`: how many of the refused rows count towards the limit.
    """
    breaches: list[tuple[Severity, str]] = []
    limit = policy.quarantine
    if checked and refused / checked > limit:
        most = describe_worst_rules(
            {check.rule: check.failed for check in checks if check.kind == "row" and check.failed}
        )
        text = (
            f"{refused:,} of {checked:,} rows are refused ({refused / checked:.2%}), more than the {limit:.4g} that "
            f"`quarantine` allows; by {most}"
        )
        breaches.append(("fail" if failing / checked > limit else "warn", text))
    broken = (check for check in checks if check.kind == "table" and not check.passed)
    breaches += [(check.severity, f"not so: {check.text}") for check in broken]
    breaches += [("fail", describe_change(change)) for change in changes if change.refused]
    breaches += [(check.severity, check.text) for check in batches if check.severity == "fail"]
    return tuple(breaches)


def describe_worst_rules(refused: Mapping[str, int]) -> str:
    """The rules that refuse most rows, with their numbers."""
    worst = sorted(refused.items(), key=lambda pair: (-pair[1], pair[0]))[:_WORST]
    return ", ".join(f"{rule} ({rows:,})" for rule, rows in worst)


def describe_change(change: SchemaChange) -> str:
    """A schema change in words, with what uses the column."""
    used = f"; it is used by {change.used_by}" if change.used_by else ""
    return _change_text(change) + (used or ("; nothing uses it" if change.unused else "")) + _type_hint(change)


def _type_hint(change: SchemaChange) -> str:
    """How to declare numbers that a text, leading zeros or quotes turned into text."""
    if change.kind != "narrowed" or change.before not in ("int", "float") or change.to != "str":
        return ""
    return f"; to read numbers as before: rules: {{{change.column}: {{type: {change.before}}}}}"


def _change_text(change: SchemaChange) -> str:
    where = f" in {change.file}" if change.file else ""
    where += f" and {change.others:,} other {'file' if change.others == 1 else 'files'}" if change.others else ""
    if change.kind == "added":
        return f'column "{change.column}" ({change.to}) is new{where}'
    if change.kind == "removed":
        return f'column "{change.column}" is gone{where}'
    if change.kind == "renamed":
        return f'column "{change.column}" is gone and the like "{change.to}" is new{where}: renamed?'
    # the kind `narrowed` holds every type that is not wider, of which few are narrower: float to int is, int to str not
    narrower = (change.to, change.before) in WIDER
    how = "changed" if change.kind == "narrowed" and not narrower else change.kind
    return f'column "{change.column}" {how} from {change.before} to {change.to}{where}'


def warnings_of(snapshot: Snapshot) -> tuple[str, ...]:
    """Warnings of an accepted snapshot: lost columns, doubts about files, broken `warn` rules, unchecked clauses."""
    lost = [describe_change(change) for change in snapshot.changes if change.kind not in ("added", "widened")]
    unchecked = (f"the contract requires more than is checked: {note}" for note in snapshot.unchecked)
    return (*lost, *snapshot.warnings, *warned_rules(snapshot), *unchecked)


def warned_rules(snapshot: Snapshot) -> tuple[str, ...]:
    """Rules with severity `warn` that the source or its new rows break."""
    of_batches = [check.text for check in snapshot.batch_checks if check.severity == "warn"]
    return (*snapshot.warned, *shorten_list(of_batches))


def hint_for(snapshot: Snapshot, example: Callable[[CheckResult], object] = lambda _: None) -> str:
    """Hint for the breaches, one for each kind. `example` gives a value that a check refused, None for none."""
    hints = _hints(snapshot, example)
    if len(hints) == 1:
        return next(iter(hints.values()))
    return " ".join(f"({number}) {kind}: {hint}" for number, (kind, hint) in enumerate(hints.items(), start=1))


def _hints(snapshot: Snapshot, example: Callable[[CheckResult], object]) -> dict[str, str]:
    """Kind of breach to what to do about it."""
    changes = [change for change in snapshot.changes if change.refused]
    whole = {check.rule for check in snapshot.checks if _refuses_snapshot(check)}
    batches = [check.rule for check in snapshot.batch_checks if check.severity == "fail"]
    # One breach is of all refused rows together; the others are counted above.
    rows = len(snapshot.breaches) > len(changes) + len(whole) + len(batches)
    hints = {}
    if changes:
        hints["columns"] = (
            "fix the source, or accept it: on_schema_change: accept (or one kind, such as {removed: accept})"
        )
    if UNREADABLE_FILES in whole:
        hints["unreadable files"] = (
            "write the files again, or remove them; to go on without them, named in a warning: "
            "severity: {unreadable_files: warn}"
        )
    if MISSING_FILES in whole:
        hints["lost rows"] = (
            "put the files or their rows back, or accept that they are gone: missing_files: 100% (or a share between)"
        )
    if rows:
        hints["refused rows"] = _hint_for_rows(snapshot, example)
    if batches if not rows else set(batches) - {"quarantine"}:  # where all rows break it, so do the new ones
        hints["new rows"] = _hint_for_batch(snapshot)
    if whole - {UNREADABLE_FILES, MISSING_FILES}:
        hints["rules of the whole source"] = "fix the source, or change its rule in the project file"
    return hints


def _refuses_snapshot(check: CheckResult) -> bool:
    return check.kind == "table" and not check.passed and check.severity == "fail"


def _hint_for_rows(snapshot: Snapshot, example: Callable[[CheckResult], object]) -> str:
    look = f"`cumulant data quarantine {snapshot.source}` shows the rows"
    if (check := _mostly_of_another_type(snapshot)) is not None:
        return (
            f"most values of {check.column}{_example_text(check, example)} cannot be read as declared: change `type`, "
            f"`number_format` or `date_format` under `rules: {{{check.column}: ...}}`, or the values in `prepare`; "
            f"{look}"
        )
    merging = (check.column for check in snapshot.checks if check.failed and check.rule == f"{check.column}:zeros")
    if (column := next(merging, None)) is not None:
        return f"values of {column} that differ in leading zeros are one number: set rules: {{{column}: {{type: str}}}}"
    worst = max(
        (check for check in snapshot.checks if check.kind == "row"), key=lambda result: result.failed, default=None
    )
    if worst is not None and worst.rule == f"{worst.column}:in":
        return (
            f"values of {worst.column}{_example_text(worst, example)} are not among those of `rules: {{{worst.column}: "
            f"{{in: ...}}}}`: add them there if they are right, else fix the rows; {look}"
        )
    return f"inspect the rows: cumulant data quarantine {snapshot.source}; fix them, or raise `quarantine`"


def _example_text(check: CheckResult, example: Callable[[CheckResult], object]) -> str:
    value = example(check)
    return "" if value is None else f', such as "{str(value)[:_SHOWN]}"'


def _hint_for_batch(snapshot: Snapshot) -> str:
    """What to do where only new rows break rules."""
    refused = any(check.rule == "quarantine" for check in snapshot.batch_checks)
    look = f"inspect the rows: cumulant data quarantine {snapshot.source}; " if refused else ""
    return (
        f"{look}fix the new rows and validate again; if they are right as they are, accept them with a warning by "
        "`batch: {severity: warn}`, validate, and remove it: rows that were accepted are evaluated again only when the "
        "declaration changes"
    )


def _mostly_of_another_type(snapshot: Snapshot) -> CheckResult | None:
    """The check of a column whose declared type most rows do not have."""
    rows = snapshot.rows_in - snapshot.rows_dropped
    types = (check for check in snapshot.checks if check.kind == "row" and check.rule == f"{check.column}:type")
    return next((check for check in types if 2 * check.failed > rows), None)


class SourceBreachError(ContractBreachError):
    """A refused snapshot: `snapshot.breaches` are the reasons, `snapshot.quarantine` holds the refused rows."""

    def __init__(self, message: str, *, snapshot: Snapshot, hint: str) -> None:
        super().__init__(message, subject=snapshot.source, hint=hint)
        self.snapshot = snapshot

    def as_dict(self) -> dict[str, object]:
        checks = [msgspec.to_builtins(check) for check in self.snapshot.batch_checks]
        return super().as_dict() | {
            "breaches": list(self.snapshot.breaches),
            "batch_checks": checks,
            "unreadable": [{"url": file.url, "reason": file.reason} for file in self.snapshot.unreadable],
        }


def as_contract_breach(error: AbsentColumnError, previous: Snapshot | None) -> DataError | ContractBreachError:
    """`error` as a breach where the last accepted snapshot had the column: the data changed, not the declaration."""
    if previous is None or error.subject not in {field.name for field in previous.fields}:
        return error
    hint = f"fix the source, or declare another column; {error.hint}"
    return ContractBreachError(
        f"{error.message}; snapshot {previous.id[:12]} had it", subject=previous.source, hint=hint
    )
