"""Counts how much of the predictions is labelled, by day, and what was said that cannot be used."""

from __future__ import annotations

from datetime import date, datetime

import polars as pl

from cumulant.outcomes.label_counts import Cohort, LabelCounts, Period, Report, report_of
from cumulant.outcomes.labelled_log import LabelledLog
from cumulant.outcomes.matching import by_key, usable

_COHORT = ["from", "model", "version", "arm"]


def report(
    outcomes: LabelledLog, now: datetime, *, by: Period = "day", since: date | None = None, until: date | None = None
) -> Report:
    """What is known by `now`; cohorts of the predictions of the days `since` to `until`.

    Labels are unmatched where no prediction of the whole log is named, whatever days are asked for.

    Raises:
        StorageError: a file cannot be read.
    """
    return report_of(count(outcomes, now)[0], by=by, since=since, until=until)


def count(outcomes: LabelledLog, now: datetime) -> tuple[LabelCounts, bool]:
    """What is known by `now`, and whether a label names its prediction by its key.

    Raises:
        StorageError: a file cannot be read.
    """
    said = outcomes.said()
    good = said.filter(pl.col("problem") == "")
    due = usable(good, now)
    counted: list[pl.DataFrame] = []
    used: list[pl.Series] = []
    for joined, refs in outcomes.counted(due):
        used.append(refs)
        counted.append(_counted(joined))
    problems = said.filter(pl.col("problem") != "").group_by("problem").len().sort("problem")
    counts = LabelCounts(
        rows=said.height,
        duplicates=_duplicates(good),
        waiting=good.height - due.height,
        unmatched=due["ref"].n_unique() - _distinct(used),
        problems=dict(problems.iter_rows()),
        days=_cohorts(counted),
        known_since=due["known_time"].max(),  # type: ignore[arg-type]  # a column of moments
        known_until=good.filter(pl.col("known_time") > now)["known_time"].min(),  # type: ignore[arg-type]
    )
    return counts, by_key(due)


def _duplicates(good: pl.DataFrame) -> int:
    again = good.select("ref", "model", "known_time", "label").filter(pl.col("ref").is_duplicated())
    return again.height - again.unique().height


def _distinct(used: list[pl.Series]) -> int:
    """How many references there are in all parts, each of which names one once."""
    return pl.concat(used).n_unique() if len(used) > 1 else sum(map(len, used))


def _counted(joined: pl.DataFrame) -> pl.DataFrame:
    start = pl.col("time").dt.date().alias("from")
    return joined.filter(~pl.col("shadow")).group_by(start, *_COHORT[1:]).agg(
        pl.len().alias("predictions"),
        pl.col("label").is_not_null().sum().alias("labelled"),
        (pl.col("label").is_not_null() & (pl.col("label_known_time") < pl.col("time"))).sum().alias("early"),
        *((pl.col("provenance") == state).sum().alias(state) for state in ("corrected", "contradicted")),
    )  # fmt: skip


def _cohorts(counted: list[pl.DataFrame]) -> tuple[Cohort, ...]:
    if not counted:
        return ()
    whole = pl.concat(counted).group_by(_COHORT).sum().sort(_COHORT)
    return tuple(
        Cohort(**{"start" if name == "from" else name: v for name, v in row.items()}) for row in whole.to_dicts()
    )
