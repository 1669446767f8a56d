"""A change of the mix of outcomes between the newest weeks and those before, over all versions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from cumulant.data.parts.collected_frames import CollectedFrames
from cumulant.monitoring.tables import MOMENT

if TYPE_CHECKING:
    from cumulant.data.parts.spill import Spill
    from cumulant.monitoring.drift.blocks import RowBlocks
    from cumulant.monitoring.drift.findings import DriftFinding
    from cumulant.monitoring.policy import DriftPolicy

#: the newest weeks against those before them; both end before labels are due
RECENT, BEFORE = timedelta(days=28), timedelta(days=60)
#: fewer windows before do not show how windows differ by themselves
_LEAST_WINDOWS = 14
LABEL = "label"
#: moments that are read at once
_PART = 262_144


def outcome_shift(
    parts: Iterable[pl.DataFrame],
    policy: DriftPolicy,
    spill: Spill,
    *,
    until: datetime,
    names: Sequence[str] = ("0", "1"),
) -> tuple[DriftFinding, ...]:
    """A change of labels between the windows of RECENT before `until` and those of BEFORE, by `comparing.compare`.

    The reference is earlier windows, not the training, so that a lasting change is reported once.

    Args:
        parts: of rows of `served_log`, of all versions, in this order; labels are classes.
        policy: the project's; its `answers` says which change matters.
        spill: where many labels are stored.
        until: windows that end later are left out.
        names: of the classes, by their place.
    """
    length = policy.window
    border, places = until - RECENT, [float(place) for place in range(len(names))]
    before, recent = CollectedFrames(spill, "labels.before"), CollectedFrames(spill, "labels.recent")
    for rows in parts:
        labelled = rows.filter(pl.col("value").is_not_null() & (pl.col(MOMENT) < until)).select(
            MOMENT, pl.col("value").replace_strict(places, list(names), return_dtype=pl.String).alias(LABEL)
        )
        before.add(labelled.filter(pl.col(MOMENT).is_between(border - BEFORE, border, closed="left")))
        recent.add(labelled.filter(pl.col(MOMENT) >= border))
    if recent.is_empty or before.is_empty:
        return ()
    old = before.rows()
    cut = _cut(old, length)
    if len(cut.blocks) < _LEAST_WINDOWS:
        return ()
    from cumulant.monitoring.drift.profiling import profile

    reference = profile(old, {LABEL: "label"}, cut=cut)
    new = recent.rows()
    current = profile(new, {LABEL: "label"}, cut=_cut(new, length), like=reference)
    from cumulant.monitoring.drift.comparing import compare

    return compare(reference, current, policy).findings


def _cut(rows: pl.LazyFrame, length: timedelta) -> RowBlocks:
    from cumulant.monitoring.drift.blocks import by_time

    count = int(rows.select(pl.len()).collect().item())
    return by_time((rows.select(MOMENT).slice(at, _PART).collect()[MOMENT] for at in range(0, count, _PART)), length)
