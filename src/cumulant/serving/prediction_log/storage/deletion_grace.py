"""Retention of the log's days: a clock that is wrong for some hours must not delete a single row.

A day that is older than what is kept enters a list. It is deleted once the log has run for another day with the day on
the list all the while; where the clock goes back before, the day leaves the list. Running time is measured by the
steady clock: no reading of the wall's clock alone deletes anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from pathlib import Path

import msgspec

from cumulant.serving.prediction_log.storage.log_folder import write_json

#: seconds of running time that a day waits on the list
GRACE = 86_400.0


class DaysDue(msgspec.Struct, frozen=True, kw_only=True):
    """Days due for deletion, each with the seconds of running time on the list; `at`: seconds since 1970."""

    at: float = 0.0
    days: dict[str, float] = {}

    def advance(self, due: Iterable[date], *, now: datetime, steady: float) -> DaysDue:
        """The list after `steady` seconds of one process, with the days that are `due` now.

        Processes that share the folder take turns, so that what passed since the last turn is the least that any
        clock says.
        """
        passed = max(0.0, min(steady, now.timestamp() - self.at))
        names = [day.isoformat() for day in due]
        return DaysDue(
            at=now.timestamp(),
            days={name: self.days[name] + passed if name in self.days else 0.0 for name in names},
        )

    def expired(self, grace: float = GRACE) -> list[date]:
        """The days that have waited long enough."""
        return [date.fromisoformat(name) for name, waited in self.days.items() if waited >= grace]


def read(folder: Path, keep: timedelta) -> DaysDue:
    """The list of a log's folder; an empty one where there is none, or none that can be read: days then wait anew.

    Servers that keep rows for different times may share a folder; each of these times has a list.
    """
    try:
        return msgspec.json.decode(_path(folder, keep).read_bytes(), type=DaysDue)
    except (OSError, msgspec.MsgspecError):
        return DaysDue()


def write(folder: Path, keep: timedelta, waiting: DaysDue) -> None:
    """Keep the list.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    write_json(_path(folder, keep), waiting)


def _path(folder: Path, keep: timedelta) -> Path:
    return folder / f".retention-{keep.total_seconds():.0f}.json"


def describe_listing(before: DaysDue, after: DaysDue, keep: timedelta) -> str | None:
    """Notice for several days that became due at once, as after a clock's jump; None for at most one."""
    fresh = [date.fromisoformat(name) for name in after.days.keys() - before.days.keys()]
    if len(fresh) < 2:
        return None
    return (
        f"{describe_days(fresh)} of the prediction log are older than the {keep.days} days that are kept, and will be"
        " deleted after a day of running; if the clock is wrong, set it"
    )


def describe_days(days: Iterable[date]) -> str:
    """`2026-08-01`, or `3 days from 2026-08-01 to 2026-08-05`."""
    ordered = sorted(days)
    return str(ordered[0]) if len(ordered) == 1 else f"{len(ordered)} days from {ordered[0]} to {ordered[-1]}"
