"""What arrived after its window was judged: counted and told, and judged no more. And labels that are late for some.

Each window is one bet of a sequential test, made on what was known before it. To bet on it again once its outcome is
known would be to choose among outcomes, and would void how often a sound model may be called worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from cumulant.core.units import micros, to_micros
from cumulant.monitoring.performance.selection import chance_of_selection
from cumulant.monitoring.tables import MOMENT

if TYPE_CHECKING:
    from cumulant.runtime.watching.standing import Passed

#: the chance at which labels of rows that were labelled alike are taken as a selection: such a window waits
_CHANCE = 0.05


class Late(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that were not there when their window was judged, or passed over, and labels of any of its rows."""

    rows: int = 0
    labels: int = 0

    @property
    def said(self) -> str:
        """In a sentence; empty where nothing was late."""
        told = [
            f"{number:,} {name}{'' if number == 1 else 's'}"
            for number, name in ((self.rows, "row"), (self.labels, "label"))
            if number
        ]
        if not told:
            return ""
        return (
            f"{' and '.join(told)} came after their windows were judged, and are not judged: a longer "
            "monitoring.performance.label_delay waits for them"
        )


def late(rows: pl.DataFrame, judged: Sequence[Passed], window: timedelta, *, since: datetime, until: datetime) -> Late:
    """What of `rows` (of `served.scored`, one version's) with a moment in [since, until) the windows did not hold when
    they were judged. What is gone from the log since counts for nothing.
    """
    length = micros(window)
    start = (pl.col(MOMENT).dt.epoch("us") // length * length).alias("start")
    there = rows.filter(pl.col(MOMENT).is_between(since, until, closed="left")).group_by(start)
    counted = there.agg(pl.len().alias("rows"), pl.col("value").count().alias("labels"))
    then = {to_micros(one.start): (one.rows, one.labelled) for one in judged}
    found = [
        (count - then.get(at, (0, 0))[0], labels - then.get(at, (0, 0))[1]) for at, count, labels in counted.iter_rows()
    ]
    return Late(rows=sum(max(0, one) for one, _ in found), labels=sum(max(0, one) for _, one in found))


def counted_from(judged: Sequence[Passed], most: int, read: datetime) -> datetime:
    """From when on late rows can be told: what was `read`, and of `most` windows that are kept the oldest."""
    return max(read, judged[0].start) if len(judged) >= most else read


def is_selected(part: pl.DataFrame) -> bool:
    """Whether rows of a window with a label surely have other scores than those without, as of a class that is late."""
    labelled, score = part["value"].is_not_null().to_numpy(), part["score"].to_numpy()
    if labelled.all() or not labelled.any():
        return False
    columns = score.T if score.ndim > 1 else score[None]
    window = np.zeros(len(score), dtype=np.int64)
    return min(chance_of_selection(one, labelled, window) for one in columns) * len(columns) < _CHANCE


def selection_notes(parts: Iterable[pl.DataFrame]) -> list[str]:
    """What to say of windows whose labels are due, and came to some answers only."""
    count = sum(is_selected(part) for part in parts)
    said = f"windows that are not judged, as rows without a label have other scores than those with one: {count}"
    return [f"{said}. A class may be labelled late, or never: give `label_delay`"] if count else []
