"""How many rows a new batch has, against a declared number or against the earlier batches of its source."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cumulant.data.checks.batches import Batch
from cumulant.data.policy import RowShare, SourcePolicy
from cumulant.data.rules.severity import batch_severity, severity_of
from cumulant.data.snapshot import BatchCheck, BatchSize
from cumulant.statistics.exact import poisson_at_least, poisson_at_most

#: fewest batches from which anything of others is learned, and how many of the latest are kept
FEWEST, LATEST = 3, 30
_LEVEL = 0.001

Sizes = Mapping[str, tuple[BatchSize, ...]]


@dataclass(frozen=True)
class _Limit:
    """A number of rows; `share` of the median of `earlier` batches, where it is declared as a share."""

    rows: float
    text: str
    share: float | None = None


def add_sizes(earlier: Sizes, delivered: Sequence[Batch]) -> dict[str, tuple[BatchSize, ...]]:
    """The latest batches by kind, those of this run last."""
    sizes = dict(earlier)
    for batch in delivered:
        counts = batch.counts
        size = BatchSize(rows=counts.checked, refused=counts.refused.total(), nulls=dict(counts.nulls))
        sizes[batch.kind] = (*sizes.get(batch.kind, ()), size)[-LATEST:]
    return sizes


def check_row_counts(delivered: Sequence[Batch], policy: SourcePolicy, earlier: Sizes) -> tuple[BatchCheck, ...]:
    """Batches with fewer or more rows than `batch.min_rows` and `batch.max_rows` allow.

    A limit that is a share of earlier batches is broken only where chance (Poisson) does not explain the difference.
    """
    result: list[BatchCheck] = []
    level = _LEVEL / max(2 * len(delivered), 1)
    for batch in delivered:
        rows, sizes = batch.counts.checked, [size.rows for size in earlier.get(batch.kind, ())]
        low, high = (_limit(declared, sizes) for declared in (policy.min_rows, policy.max_rows))
        if low is not None and rows < low.rows and (low.share is None or poisson_at_most(rows, low.rows) < level):
            result.append(_check(batch, "min_rows", low, f"{rows:,} rows, fewer than {low.text}", policy))
        if high is not None and rows > high.rows and (high.share is None or poisson_at_least(rows, high.rows) < level):
            result.append(_check(batch, "max_rows", high, f"{rows:,} rows, more than {high.text}", policy))
    return tuple(result)


def _limit(declared: int | RowShare | None, sizes: Sequence[int]) -> _Limit | None:
    """None where nothing is declared, or too few earlier batches are there."""
    if declared is None:
        return None
    if isinstance(declared, int):
        return _Limit(declared, f"the {declared:,} that `batch` allows")
    if len(sizes) < FEWEST:
        return None
    median = statistics.median(sizes)
    text = f"{declared.text} of {median:,.6g}, the median of the {len(sizes)} batches before it"
    return _Limit(declared.share * median, text, declared.share)


def _check(batch: Batch, name: str, limit: _Limit, text: str, policy: SourcePolicy) -> BatchCheck:
    rows = batch.counts.checked
    return BatchCheck(
        batch=batch.name,
        rule=f"batch:{name}",
        column=None,
        severity=batch_severity(policy, severity_of(policy, f"table:{name}", None)),
        failed=0,
        rows=rows,
        limit=limit.rows,
        text=f"{batch.name}: {text}",
    )
