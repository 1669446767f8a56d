"""How a source is read, checked and kept: its declaration, with shares, spans and moments as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from cumulant.core.plan import KnownAt
    from cumulant.data.rules.verdict_spec import Range
    from cumulant.data.spec import SourceSpec


class RowShare(msgspec.Struct, frozen=True):
    """A limit on the rows of a batch: a share of the median of earlier batches, and how it was written."""

    share: float
    text: str


class QuantileRule(msgspec.Struct, frozen=True):
    """What a quantile of a batch may be, and how the quantile was written."""

    share: float
    text: str
    bounds: Range


class DistributionRule(msgspec.Struct, frozen=True):
    """What the values of a column may be in each new batch. `shares` are of its values, `drift` is a distance."""

    mean: Range | None = None
    quantiles: tuple[QuantileRule, ...] = ()
    shares: Mapping[str, Range] = {}
    drift: float | None = None


class SourcePolicy(msgspec.Struct, frozen=True):
    """A source's declaration with the rules of its contract file. Shares are fractions from 0 to 1.

    Attributes:
        spec: formats, columns and rules on single values.
        notes: requirements of the contract file that are not checked.
        quarantine, missing_files: the largest shares of rows that may be refused, and lost with files.
        required: columns whose rules allow no null; a row with one is refused.
        nulls: column to the largest share of nulls, where some are allowed.
        fresh: the largest age of the newest event.
        keep: how long old snapshots are kept.
        lateness: how much older than the newest row of its partition a row of a stream may be; None: any age.
        idle: after how long without a row a partition no longer holds back the watermark of a stream.
        freshness: the largest age of the newest stored event.
        ttl: the largest age of an entity's newest stored event where it is read directly.
        keep_refused: how long refused messages of a stream are kept.
        min_rows, max_rows: limits on the rows of a new batch.
        distributions: column to its rules on distributions.
        known: column to when it becomes known.
    """

    spec: SourceSpec
    notes: tuple[str, ...] = ()
    quarantine: float = 0.01
    missing_files: float = 0.01
    required: frozenset[str] = frozenset()
    nulls: Mapping[str, float] = {}
    fresh: timedelta | None = None
    keep: timedelta | None = None
    lateness: timedelta | None = None
    idle: timedelta = timedelta(minutes=1)
    freshness: timedelta | None = None
    ttl: timedelta | None = None
    keep_refused: timedelta | None = None
    min_rows: int | RowShare | None = None
    max_rows: int | RowShare | None = None
    distributions: Mapping[str, DistributionRule] = {}
    known: Mapping[str, KnownAt] = {}
