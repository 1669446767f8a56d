"""Rows and labels that arrived after their window was evaluated, which are counted only; and partly late labels.

Each window is one bet of a sequential test. To repeat it after its outcome would void the bound on false alarms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from cumulant.core.units import micros, to_micros
from cumulant.monitoring.performance.selection import LACKING, Ranks, are_selected, rank_labelled
from cumulant.monitoring.tables import MOMENT

if TYPE_CHECKING:
    from cumulant.flows.monitoring.state import WindowRecord


class LateRows(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that were missing when their window was evaluated, or passed over, and labels of any of its rows."""

    rows: int = 0
    labels: int = 0

    @property
    def sentence(self) -> str:
        """In a sentence; empty where nothing was late."""
        counts = [
            f"{number:,} {name}{'' if number == 1 else 's'}"
            for number, name in ((self.rows, "row"), (self.labels, "label"))
            if number
        ]
        if not counts:
            return ""
        return (
            f"{' and '.join(counts)} came after their windows were evaluated, and are not evaluated: a longer "
            "monitoring.performance.label_delay waits for them"
        )


def count_late(
    parts: Iterable[pl.DataFrame],
    judged: Sequence[WindowRecord],
    window: timedelta,
    *,
    since: datetime,
    until: datetime,
) -> LateRows:
    """Rows of `parts` (of `served_log`) with a moment in [since, until) that their windows lacked when evaluated."""
    length = micros(window)
    start = (pl.col(MOMENT).dt.epoch("us") // length * length).alias("start")
    then = {to_micros(record.start): (record.rows, record.labelled) for record in judged}
    differences: list[tuple[int, int]] = []
    for rows in parts:
        there = rows.filter(pl.col(MOMENT).is_between(since, until, closed="left")).group_by(start)
        counted = there.agg(pl.len().alias("rows"), pl.col("value").count().alias("labels"))
        differences += [
            (count - then.get(at, (0, 0))[0], labels - then.get(at, (0, 0))[1])
            for at, count, labels in counted.iter_rows()
        ]
    return LateRows(
        rows=sum(max(0, more_rows) for more_rows, _ in differences),
        labels=sum(max(0, more_labels) for _, more_labels in differences),
    )


def counted_from(judged: Sequence[WindowRecord], most: int, read: datetime) -> datetime:
    """From when on late rows are recognized: what was `read`, and the oldest of `most` windows."""
    return max(read, judged[0].start) if len(judged) >= most else read


class LabelledWindows:
    """Windows whose labels are due, by how the scores of rows with a label rank among those of all."""

    def __init__(self) -> None:
        #: of each column of scores what is known of each window
        self._ranks: list[list[Ranks]] = []

    def add(self, part: pl.DataFrame) -> None:
        """Add a window, by its rows."""
        if part["value"].count() >= (1 - LACKING) * part.height:
            return
        known, scores = part["value"].is_not_null().to_numpy(), part["score"].to_numpy()
        columns = scores.T if scores.ndim > 1 else scores[None]
        self._ranks = self._ranks or [[] for _ in columns]
        for column, ranks in zip(columns, self._ranks, strict=True):
            ranks.append(rank_labelled(column, known))

    def notes(self) -> list[str]:
        """A note where rows without a label surely have other scores than those with one."""
        if not are_selected(self._ranks):
            return []
        note = "rows without a label have other scores than those with one, so that losses are those of a selection"
        return [f"{note}: where labels of one class are late, set a longer monitoring.performance.label_delay"]
