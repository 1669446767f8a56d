"""When tokens and sessions were last used, to within minutes: reports beside the state, of all processes together."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.ports.journal import Journal, Row

_MOST_REMEMBERED = 10_000


class LastUse:
    """Records uses at most once an `interval` for each key, so that requests write nothing as a rule.

    A use that cannot be recorded fails no request: what is unused for long then expires the earlier.
    """

    def __init__(self, kind: str, interval: timedelta) -> None:
        self._kind, self._interval = kind, interval
        self._seen: dict[str, datetime] = {}

    def last(self, journal: Journal, key: str, now: datetime) -> datetime | None:
        """The last recorded use by any process."""
        seen = self._seen.get(key)
        if seen is not None and now - seen < self._interval:
            return seen
        moments = [moment for moment in (seen, _moment(_report(journal, self._kind, key))) if moment is not None]
        return max(moments, default=None)

    def is_recorded(self, key: str, now: datetime) -> bool:
        """Whether this process has recorded a use lately, so that `record` has nothing to do."""
        seen = self._seen.get(key)
        return seen is not None and now - seen < self._interval

    def record(self, journal: Journal, key: str, now: datetime) -> None:
        if self.is_recorded(key, now):
            return
        if len(self._seen) >= _MOST_REMEMBERED:
            self._seen.clear()
        self._seen[key] = now
        report = _report(journal, self._kind, key)
        recorded = _moment(report)
        if recorded is None or now - recorded >= self._interval:
            with suppress(CumulantError):  # another process recorded it, or the journal takes nothing
                expect = 0 if report is None else report.version
                journal.report(self._kind, key, {"used": msgspec.to_builtins(now)}, expect=expect)


def last_uses(journal: Journal, kind: str) -> dict[str, datetime]:
    """The recorded uses of a kind, by key."""
    return {row.key: moment for row in journal.reports(kind) if (moment := _moment(row)) is not None}


def forget_uses(journal: Journal, kind: str, keys: Collection[str]) -> None:
    """Remove the reports of what no longer exists."""
    for row in journal.reports(kind):
        if row.key in keys:
            journal.remove_report(kind, row.key, expect=row.version)


def _report(journal: Journal, kind: str, key: str) -> Row | None:
    return next((row for row in journal.reports(kind) if row.key == key), None)


def _moment(report: Row | None) -> datetime | None:
    return None if report is None else msgspec.convert(report.value["used"], datetime)
