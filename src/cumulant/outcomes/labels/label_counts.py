"""Reports on labelled predictions, made of stored counts by day. Needs no Polars."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Literal

import msgspec

Period = Literal["day", "week"]
_COUNTS = ("predictions", "labelled", "corrected", "contradicted", "early")


class Cohort(msgspec.Struct, frozen=True, kw_only=True):
    """Predictions of one day or week (UTC), model, version and arm; mirrored ones are not among them.

    Of `labelled`, `early` have a label with a known time before the prediction was made.
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
    """`rows` are label facts. Of these `duplicates` repeat another one, `waiting` are known in the future only, and
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


class LabelCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of which reports are made; `days` are the cohorts of all days.

    It holds for moments from `known_since` on and before `known_until`: no label becomes known between the two.
    """

    rows: int
    duplicates: int
    waiting: int
    unmatched: int
    problems: dict[str, int]
    days: tuple[Cohort, ...]
    known_since: datetime | None
    known_until: datetime | None

    def holds(self, at: datetime) -> bool:
        since, until = self.known_since, self.known_until
        return (since is None or since <= at) and (until is None or at < until)


def report_of(counts: LabelCounts, *, by: Period, since: date | None, until: date | None) -> Report:
    """The report whose cohorts are of the predictions of the days `since` to `until`."""
    days = [
        cohort
        for cohort in counts.days
        if (since is None or cohort.start >= since) and (until is None or cohort.start <= until)
    ]
    cohorts = tuple(days) if by == "day" else tuple(_weeks(days))
    return Report(
        rows=counts.rows,
        duplicates=counts.duplicates,
        waiting=counts.waiting,
        unmatched=counts.unmatched,
        problems=counts.problems,
        predictions=sum(cohort.predictions for cohort in cohorts),
        labelled=sum(cohort.labelled for cohort in cohorts),
        corrected=sum(cohort.corrected for cohort in cohorts),
        contradicted=sum(cohort.contradicted for cohort in cohorts),
        early=sum(cohort.early for cohort in cohorts),
        cohorts=cohorts,
    )


def _weeks(days: list[Cohort]) -> Iterator[Cohort]:
    """Cohorts of weeks, which begin on Monday, in the order of cohorts of days."""
    of_week: dict[tuple[date, str, str, str], list[Cohort]] = defaultdict(list)
    for cohort in days:
        of_week[cohort.start - timedelta(days=cohort.start.weekday()), cohort.model, cohort.version, cohort.arm].append(
            cohort
        )
    for (start, model, version, arm), those in sorted(of_week.items(), key=lambda item: item[0]):
        counts = {name: sum(getattr(cohort, name) for cohort in those) for name in _COUNTS}
        yield Cohort(start=start, model=model, version=version, arm=arm, **counts)
