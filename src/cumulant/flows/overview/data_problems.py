"""What is wrong with a project's data: newer data that were refused, and sources whose newest event is too old."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.units import from_micros, show_duration
from cumulant.data.profile import Profile
from cumulant.flows.data.validate import NEWEST, REFUSED
from cumulant.flows.overview.problems import ModelProblem, NextStep

if TYPE_CHECKING:
    from cumulant.ports.journal import Row
    from cumulant.project.project import Project

#: most characters of why data were refused
_REASON = 200


class _SnapshotFacts(msgspec.Struct, frozen=True):
    """Of a stored snapshot, what is needed here."""

    event_time: str | None = None
    profile: Profile = Profile(0)
    breaches: tuple[str, ...] = ()

    @property
    def newest(self) -> datetime | None:
        """The newest event; None where no column has its time."""
        moments = (column.max for column in self.profile.columns if column.name == self.event_time)
        newest = next(moments, None)
        return None if newest is None else from_micros(int(newest))


def data_problems(project: Project, now: datetime) -> list[ModelProblem]:
    """Reads the newest snapshot of those sources that declare `fresh`, and those that were refused since.

    Raises:
        CumulantError: the journal does not answer.
    """
    journal = project.journal()
    refused = journal.rows(REFUSED)
    problems = [refused_data(row.key, _facts(row).breaches, row.updated) for row in refused]
    known = {row.key for row in refused}
    for name, policy in project.policies.sources.items():
        newest = None if policy.fresh is None or name in known else journal.get(NEWEST, name)
        if newest is None or policy.fresh is None:
            continue
        facts = _facts(newest)
        if facts.newest is not None:
            problems += stale_data(name, facts.event_time or "", facts.newest, policy.fresh, now)
    return problems


def _facts(row: Row) -> _SnapshotFacts:
    """What another version of the program stored and this one cannot read is not known; the page shows the rest."""
    try:
        return msgspec.convert(row.value, _SnapshotFacts)
    except msgspec.ValidationError:
        return _SnapshotFacts()


def refused_data(source: str, breaches: Iterable[str], at: datetime) -> ModelProblem:
    """Newer data of a source that are not used, since they break its contract."""
    reason = "; ".join(breaches)[:_REASON]
    return ModelProblem(
        level="warning",
        what="data",
        subject=source,
        sentence=f"newer data of {source} were refused{f': {reason}' if reason else ''}".rstrip("."),
        since=at,
        noticed=at,
        cause="data_fault",
        next=NextStep(label="see the data", target="data", command=f"cumulant data quarantine {source}"),
    )


def stale_data(source: str, column: str, newest: datetime, fresh: timedelta, now: datetime) -> list[ModelProblem]:
    """A source whose newest event is older than it declares; of events after now nothing is known."""
    age = now - newest
    if age <= fresh:
        return []
    shown = show_duration(timedelta(seconds=age // timedelta(seconds=1)))
    declared = show_duration(fresh)
    begun = newest + fresh
    text = f"data of {source} are stale: the newest {column} is {shown} old, more than the {declared} of `fresh`"
    return [
        ModelProblem(
            level="warning",
            what="data",
            subject=source,
            sentence=text,
            since=begun,
            noticed=begun,
            cause="stale_data",
            next=NextStep(label="see the data", target="data", command="cumulant data validate"),
        )
    ]
