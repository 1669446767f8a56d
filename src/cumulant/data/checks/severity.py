"""What a broken rule does: refuse the snapshot, or warn. Rows that break a rule go to quarantine either way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from cumulant.data.spec import Severity, SourceSpec

#: the rule that a row breaks whose key an accepted row has
KEY_REPEAT = "key:repeat"
_WHERE = "where:"


def severity_of(spec: SourceSpec, rule: str, column: str | None) -> Severity:
    """The severity of a rule as checks name it: `amount:min`, `table:fresh`, `where:a < b`.

    A column's own severity goes before that of the source.
    """
    declared = spec.severities
    if column is not None:
        return _own(spec, column) or declared.columns
    if rule.startswith(_WHERE):
        return declared.where
    by_name: Mapping[str, Severity] = {
        "table:min_rows": declared.min_rows,
        "table:max_rows": declared.max_rows,
        "table:fresh": declared.fresh,
        "table:unreadable_files": declared.unreadable_files,
    }
    return by_name.get(rule, "fail")


def batch_severity(spec: SourceSpec, severity: Severity) -> Severity:
    """A rule that only warns of the source does so of a batch too."""
    return "warn" if spec.batch.severity == "warn" else severity


def select_failing(refused: Counter[str], columns: Mapping[str, str | None], spec: SourceSpec) -> Counter[str]:
    """Of the refused rows, by the rule that refused each, those that may refuse the snapshot by exceeding the limit.

    `columns`: the column of each rule.
    """
    return Counter({rule: rows for rule, rows in refused.items() if _may_fail(rule, columns.get(rule), spec)})


def _may_fail(rule: str, column: str | None, spec: SourceSpec) -> bool:
    if rule == KEY_REPEAT and spec.on_repeat == "first":
        return False
    own = None if column is None else _own(spec, column)
    if own is not None:
        return own == "fail"
    return spec.severities.quarantine == "fail" and severity_of(spec, rule, column) == "fail"


def _own(spec: SourceSpec, column: str) -> Severity | None:
    return spec.rules[column].severity if column in spec.rules else None
