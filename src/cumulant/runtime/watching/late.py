"""What arrived after its window was judged: counted and told, and judged no more. And labels that are late for some.

Each window is one bet of a sequential test, made on what was known before it. To bet on it again once its outcome is
known would be to choose among outcomes, and would void how often a sound model may be called worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from cumulant.core.units import micros, to_micros
from cumulant.monitoring.performance.selection import LACKING, is_selected
from cumulant.monitoring.tables import MOMENT

if TYPE_CHECKING:
    from cumulant.runtime.watching.standing import Passed


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


def selection_notes(parts: Sequence[pl.DataFrame]) -> list[str]:
    """What to say of windows whose labels are due, where rows without a label surely have other scores than those with
    one: as where those of one class are late, or rows of some kind are never labelled.
    """
    parts = [part for part in parts if part["value"].count() < (1 - LACKING) * part.height]
    if not parts:
        return []
    labelled, score = (pl.concat([part[name] for part in parts]) for name in ("value", "score"))
    known, scores = labelled.is_not_null().to_numpy(), score.to_numpy()
    window = np.repeat(np.arange(len(parts)), [part.height for part in parts])
    columns = scores.T if scores.ndim > 1 else scores[None]
    if not is_selected(list(columns), known, window):
        return []
    note = "rows without a label have other scores than those with one, so that losses are those of a selection"
    return [f"{note}: where labels of one class are late, set a longer monitoring.performance.label_delay"]
