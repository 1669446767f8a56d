"""How much of the predictions is labelled, by cohort, and what was said that cannot be used."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

import msgspec
import polars as pl

from cumulant.outcomes.labelled_log import LabelledLog
from cumulant.outcomes.matching import usable

Period = Literal["day", "week"]
_COHORT = ["from", "model", "version", "arm"]


class Cohort(msgspec.Struct, frozen=True, kw_only=True):
    """Predictions of one day or week (UTC), model, version and arm; mirrored ones are not among them.

    Of `labelled`, `early` have a label that says it was known before the prediction was made.
    """

    start: date
    model: str
    version: str
    arm: str
    predictions: int
    labelled: int
    corrected: int
    contradicted: int
    early: int

    @property
    def share(self) -> float:
        return self.labelled / self.predictions


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`rows` were said. Of these `duplicates` say what another one says, `waiting` are known in the future only, and
    `problems` cannot be used. `unmatched` name a prediction that is not in the log.
    """

    rows: int
    duplicates: int
    waiting: int
    unmatched: int
    problems: dict[str, int]
    predictions: int
    labelled: int
    corrected: int
    contradicted: int
    early: int
    cohorts: tuple[Cohort, ...]


def report(
    outcomes: LabelledLog, now: datetime, *, by: Period = "day", since: date | None = None, until: date | None = None
) -> Report:
    """What is known by `now`; cohorts of the predictions of the days `since` to `until`.

    Labels are unmatched where no prediction of the whole log is named, whatever days are asked for.

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
        counted.append(_counted(joined, by, since, until))
    cohorts = _cohorts(counted)
    problems = said.filter(pl.col("problem") != "").group_by("problem").len().sort("problem")
    return Report(
        rows=said.height,
        duplicates=_duplicates(good),
        waiting=good.height - due.height,
        unmatched=due["ref"].n_unique() - _distinct(used),
        problems=dict(problems.iter_rows()),
        predictions=sum(one.predictions for one in cohorts),
        labelled=sum(one.labelled for one in cohorts),
        corrected=sum(one.corrected for one in cohorts),
        contradicted=sum(one.contradicted for one in cohorts),
        early=sum(one.early for one in cohorts),
        cohorts=cohorts,
    )


def _duplicates(good: pl.DataFrame) -> int:
    again = good.select("ref", "model", "known_time", "label").filter(pl.col("ref").is_duplicated())
    return again.height - again.unique().height


def _distinct(used: list[pl.Series]) -> int:
    """How many references there are in all parts, each of which names one once."""
    return pl.concat(used).n_unique() if len(used) > 1 else sum(map(len, used))


def _counted(joined: pl.DataFrame, by: Period, since: date | None, until: date | None) -> pl.DataFrame:
    day = pl.col("time").dt.date()
    wanted = ~pl.col("shadow")
    if since is not None:
        wanted &= day >= since
    if until is not None:
        wanted &= day <= until
    start = pl.col("time").dt.truncate("1d" if by == "day" else "1w").dt.date().alias("from")
    return joined.filter(wanted).group_by(start, *_COHORT[1:]).agg(
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
