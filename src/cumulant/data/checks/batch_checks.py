"""Shares of refused rows and nulls in new batches, against their declared limits.

A small batch breaks a limit only where an exact binomial test at that limit excludes chance. All tests of a run share a
level (Bonferroni).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cumulant.data.checks.batch_rows import FEWEST, Sizes
from cumulant.data.checks.batches import Batch
from cumulant.data.checks.verdict import describe_worst_rules
from cumulant.data.policy import SourcePolicy
from cumulant.data.rules.severity import batch_severity, select_failing, severity_of
from cumulant.data.rules.verdict_spec import Severity
from cumulant.data.snapshot import BatchCheck, BatchSize
from cumulant.statistics.exact import binomial_at_least, overdispersion

#: the chance that a run refuses any of its batches, though each limit is kept by whatever makes the rows
LEVEL = 0.001
#: the most that the variation of batches may weaken the test: a batch that broke whole, and was accepted with a
#: warning, would else let all later ones pass
_MOST = 10.0
#: batches of a run from which the variation is learned where none were accepted before
_COMPARED = 200


@dataclass(frozen=True)
class _Share:
    """`count` of `rows` against a limit: `what` is counted, `key` sets the limit."""

    batch: Batch
    rule: str
    column: str | None
    severity: Severity
    count: int
    rows: int
    limit: float
    what: str
    key: str


def check_shares(
    batches: Sequence[Batch], policy: SourcePolicy, columns: Mapping[str, str | None], earlier: Sizes
) -> tuple[BatchCheck, ...]:
    """Shares of refused rows and of nulls that are too large in a batch.

    `columns`: the column of each rule; `earlier`: the batches that were accepted before.
    """
    shares = [
        item for batch in batches for item in (*_refused_shares(batch, policy, columns), *_null_shares(batch, policy))
    ]
    level = LEVEL / max(len(shares), 1)
    compared = _sample_shares(shares)
    broken = [
        item
        for item in shares
        if _p_value(item, 1.0) < level and _p_value(item, _design_effect(item, earlier, compared)) < level
    ]
    fails = {(item.batch.name, item.rule) for item in broken if item.severity == "fail"}
    return tuple(
        _check(item) for item in broken if item.severity == "fail" or (item.batch.name, item.rule) not in fails
    )


def _p_value(item: _Share, design: float) -> float:
    return binomial_at_least(item.count / design, item.rows / design, item.limit)


def _sample_shares(shares: Sequence[_Share]) -> list[_Share]:
    """Of many shares of one rule and kind of batch some, evenly spaced: to compare each with all takes their square."""
    groups: dict[tuple[str, Severity, str], list[_Share]] = {}
    for item in shares:
        groups.setdefault((item.rule, item.severity, item.batch.kind), []).append(item)
    return [item for group in groups.values() for item in group[:: -(-len(group) // _COMPARED)]]


def _design_effect(item: _Share, earlier: Sizes, shares: Sequence[_Share]) -> float:
    """Variance of the share between batches over that of independent rows; of the run's own without earlier batches."""
    series = [_share_counts(item, sizes) for sizes in earlier.values() if len(sizes) >= FEWEST] or _other_share_counts(
        item, shares
    )
    designs = (overdispersion(*zip(*counts, strict=True)) for counts in series if len(counts) >= FEWEST)
    return min(max(designs, default=1.0), _MOST)


def _share_counts(item: _Share, sizes: Sequence[BatchSize]) -> list[tuple[int, int]]:
    """Of each batch the rows that the share counts, and those it is taken of."""
    if item.column is None:
        return [(size.refused, size.rows) for size in sizes]
    return [(size.nulls.get(item.column, 0), size.rows - size.refused) for size in sizes]


def _other_share_counts(item: _Share, shares: Sequence[_Share]) -> list[list[tuple[int, int]]]:
    """As `_share_counts`, of the other batches of the run, by kind."""
    counts_by_kind: dict[str, list[tuple[int, int]]] = {}
    for other in shares:
        if other.batch is not item.batch and (other.rule, other.severity) == (item.rule, item.severity):
            counts_by_kind.setdefault(other.batch.kind, []).append((other.count, other.rows))
    return list(counts_by_kind.values())


def _refused_shares(batch: Batch, policy: SourcePolicy, columns: Mapping[str, str | None]) -> list[_Share]:
    """All refused rows; where some of them only warn, those that do not as well."""
    refused, failed = batch.counts.refused, select_failing(batch.counts.refused, columns, policy)
    result = [_quarantine_share(batch, policy, "fail", failed)] if failed else []
    return result if failed == refused else [*result, _quarantine_share(batch, policy, "warn", refused)]


def _quarantine_share(batch: Batch, policy: SourcePolicy, severity: Severity, refused: Counter[str]) -> _Share:
    return _Share(
        batch,
        rule="quarantine",
        column=None,
        severity=batch_severity(policy, severity),
        count=refused.total(),
        rows=batch.counts.checked,
        limit=policy.quarantine,
        what="rows are refused",
        key=f"`quarantine` allows; by {describe_worst_rules(refused)}",
    )


def _null_shares(batch: Batch, policy: SourcePolicy) -> list[_Share]:
    result = []
    for column, limit in policy.nulls.items():
        rule, key, what = f"{column}:nulls", "its `nulls` allows", f"values of {column} are null"
        severity = batch_severity(policy, severity_of(policy, rule, column))
        nulls = batch.counts.nulls[column]
        result.append(_Share(batch, rule, column, severity, nulls, batch.counts.passed, limit, what, key))
    return result


def _check(item: _Share) -> BatchCheck:
    return BatchCheck(
        batch=item.batch.name,
        rule=item.rule,
        column=item.column,
        severity=item.severity,
        failed=item.count,
        rows=item.rows,
        limit=item.limit,
        text=f"{item.batch.name}: {item.count:,} of {item.rows:,} {item.what} ({item.count / item.rows:.2%}), more "
        f"than the {item.limit:.4g} that {item.key}",
    )
