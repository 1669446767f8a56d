"""Which rows carry a change: the values of other columns among whose rows most of it happens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from cumulant.monitoring.drift import categories, numbers
from cumulant.monitoring.drift.findings import Segment, What
from cumulant.monitoring.drift.profiles import ColumnCells, ColumnCounts
from cumulant.statistics.drift.bins import groups
from cumulant.statistics.drift.effects import excess as drift_excess
from cumulant.statistics.drift.effects import sum_groups
from cumulant.statistics.drift.intervals import squared_distances
from cumulant.statistics.rows import Codes, Floats

#: most values of a column that are evaluated, and fewest rows of each
_MOST, _FEWEST = 20, 50
#: a segment is reported where it has at least half of the change, and twice its share of rows
_CARRIES, _MORE = 0.5, 2.0


def segments(
    before: pl.DataFrame, now: pl.DataFrame, column: ColumnCounts, what: What, by: Sequence[str]
) -> tuple[Segment, ...]:
    """The segments with most of the change `what` of a column, at most one for each column of `by`.

    Their part of a fault: rows beyond the reference's share; of a shift: their share of rows times their squared
    Jensen-Shannon distance, less expected sampling noise.
    """
    if what in ("absent", "tails"):
        return ()
    segments = []
    for name in by:
        values = _values(before[name], now[name])
        if len(values) < 2:
            continue
        split = [_counted(frame, column, name, values) for frame in (before, now)]
        rows = np.array(
            [
                int(counts.counts[place].sum() + counts.missing[place] + counts.unreadable[place])
                for counts in split
                for place in range(len(values))
            ]
        ).reshape(2, -1)
        parts = _shifts(column.cells, *split) if what in ("shift", "constant") else _faults(what, rows, *split)
        parts = np.where(rows.min(axis=0) >= _FEWEST, np.maximum(parts, 0.0), 0.0)
        if parts.sum() <= 0:
            continue
        place, share = int(np.argmax(parts)), rows[1] / max(int(rows[1].sum()), 1)
        carries = float(parts[place] / parts.sum())
        if carries >= max(_CARRIES, _MORE * float(share[place])):
            segments.append(Segment(column=name, value=values[place], rows=float(share[place]), carries=carries))
    return tuple(sorted(segments, key=lambda segment: -segment.carries))


def _values(before: pl.Series, now: pl.Series) -> list[str]:
    """The values that both have, the most frequent first."""
    common = categories.text(now).drop_nulls().value_counts(sort=True)
    known = set(categories.text(before).drop_nulls().unique().to_list())
    return [value for value in common["value"].to_list() if value in known][:_MOST]


def _counted(frame: pl.DataFrame, column: ColumnCounts, by: str, values: Sequence[str]) -> numbers.CellCounts:
    """Counts of the column's cells by segment."""
    codes = categories.text(frame[by]).replace_strict(values, range(len(values)), default=None, return_dtype=pl.Int64)
    known = codes.is_not_null()
    count = numbers.counted if column.cells.kind == "number" else categories.counted
    part = (frame[column.name].filter(known), codes.filter(known).to_numpy())
    return count(iter([part]), column.cells, len(values))


def _faults(what: What, rows: Codes, before: numbers.CellCounts, now: numbers.CellCounts) -> Floats:
    """Rows of each segment with the fault, above what its share in the reference would give."""

    def faulty(cell_counts: numbers.CellCounts) -> Codes:
        if what == "missing":
            return cell_counts.missing
        if what == "unreadable":
            return cell_counts.unreadable
        far: Codes = cell_counts.counts[:, -1] if what == "unseen" else cell_counts.counts[:, [0, -1]].sum(axis=1)
        return far

    expected = faulty(before) / np.maximum(rows[0], 1) * rows[1]
    excess: Floats = faulty(now) - expected
    return excess


def _shifts(cells: ColumnCells, before: numbers.CellCounts, now: numbers.CellCounts) -> Floats:
    inner = slice(1, -1) if cells.kind == "number" else slice(0, -1)
    reference, current = before.counts[:, inner].astype(np.float64), now.counts[:, inner].astype(np.float64)
    pooled = reference.sum(axis=0) + current.sum(axis=0)
    smaller = float(min(reference.sum(), current.sum()))
    group = groups(pooled, smaller, ordered=cells.kind == "number")
    reference, current = sum_groups(reference, group), sum_groups(current, group)
    apart = squared_distances(reference, current)
    parts = np.zeros(len(apart))
    for place, (ours, theirs) in enumerate(zip(reference.sum(axis=1), current.sum(axis=1), strict=True)):
        if min(ours, theirs) > 0:
            rows = float(ours * theirs / (ours + theirs))
            kinds = int(((reference[place] + current[place]) > 0).sum())
            parts[place] = theirs * drift_excess(float(apart[place]), cells=kinds, rows=rows)
    return parts if math.isfinite(float(parts.sum())) else np.zeros(len(parts))
