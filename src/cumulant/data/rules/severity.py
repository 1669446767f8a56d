"""What a broken rule does: refuse the snapshot, or warn. Rows that break a rule go to quarantine either way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from cumulant.data.policy import SourcePolicy
from cumulant.data.rules.verdict_spec import Severity

#: the rule that a row breaks whose key an accepted row has
KEY_REPEAT = "key:repeat"
_WHERE = "where:"


def severity_of(policy: SourcePolicy, rule: str, column: str | None) -> Severity:
    """The severity of a rule as checks name it (`amount:min`, `table:fresh`, `where:a < b`), the column's own first."""
    declared = policy.spec.severities
    if column is not None:
        return _own(policy, column) or declared.columns
    if rule.startswith(_WHERE):
        return declared.where
    by_name: Mapping[str, Severity] = {
        "table:min_rows": declared.min_rows,
        "table:max_rows": declared.max_rows,
        "table:fresh": declared.fresh,
        "table:unreadable_files": declared.unreadable_files,
    }
    return by_name.get(rule, "fail")


def batch_severity(policy: SourcePolicy, severity: Severity) -> Severity:
    """A rule that only warns of the source does so of a batch too."""
    return "warn" if policy.spec.batch.severity == "warn" else severity


def select_failing(refused: Counter[str], columns: Mapping[str, str | None], policy: SourcePolicy) -> Counter[str]:
    """The refused rows by rule that count towards the limit; `columns`: the column of each rule."""
    return Counter({rule: rows for rule, rows in refused.items() if _may_fail(rule, columns.get(rule), policy)})


def _may_fail(rule: str, column: str | None, policy: SourcePolicy) -> bool:
    if rule == KEY_REPEAT and policy.spec.on_repeat == "first":
        return False
    own = None if column is None else _own(policy, column)
    if own is not None:
        return own == "fail"
    return policy.spec.severities.quarantine == "fail" and severity_of(policy, rule, column) == "fail"


def _own(policy: SourcePolicy, column: str) -> Severity | None:
    rule = policy.spec.rules.get(column)
    return None if rule is None else rule.severity
