"""Whether what becomes of predictions has lately been another mix than in the weeks before, whoever predicted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from cumulant.core.units import duration
from cumulant.monitoring import drift
from cumulant.monitoring.tables import MOMENT

if TYPE_CHECKING:
    from cumulant.monitoring.drift import Finding
    from cumulant.monitoring.spec import DriftSpec

#: the newest weeks against those before them; both end before labels are due
RECENT, BEFORE = timedelta(days=28), timedelta(days=60)
#: fewer windows before do not show how windows differ by themselves
_LEAST_WINDOWS = 14
LABEL = "label"


def outcome_shift(
    rows: pl.DataFrame, spec: DriftSpec, *, until: datetime, names: Sequence[str] = ("0", "1")
) -> tuple[Finding, ...]:
    """A change of labels between the windows of RECENT before `until` and those of BEFORE, as `drift.compare` has it.

    A served model's training is no measure of it: that was when outcomes were as they were then. So the windows before
    are, and a change that lasts is told once, until it has become what was before.

    Args:
        rows: of `served.scored`, of all versions; labels are classes.
        spec: the project's; its `answers` says which change matters.
        until: windows that end later are left out.
        names: what the classes are called, by their place.
    """
    length = duration(spec.window)
    border, places = until - RECENT, [float(place) for place in range(len(names))]
    labelled = rows.filter(pl.col("value").is_not_null() & (pl.col(MOMENT) < until)).select(
        MOMENT, pl.col("value").replace_strict(places, list(names), return_dtype=pl.String).alias(LABEL)
    )
    before = labelled.filter(pl.col(MOMENT).is_between(border - BEFORE, border, closed="left"))
    recent = labelled.filter(pl.col(MOMENT) >= border)
    if not recent.height or not before.height:
        return ()
    old = drift.by_time(before[MOMENT], length)
    if len(old.blocks) < _LEAST_WINDOWS:
        return ()
    reference = drift.profile(before.lazy(), {LABEL: "label"}, cut=old)
    current = drift.profile(recent.lazy(), {LABEL: "label"}, cut=drift.by_time(recent[MOMENT], length), like=reference)
    return drift.compare(reference, current, spec).findings
