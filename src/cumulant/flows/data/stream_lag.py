"""How far ingestion is behind: what each process reports of its partitions, from which metrics are published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, LeaseHeldError

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal
    from cumulant.ports.streams import Bounds

#: reports of the journal, of `SOURCE/MEMBER`
STREAM_REPORT = "stream_consumer"
#: the most observations of a partition's end that are kept; of more, every second one
_MOST = 500


class PartitionLag(msgspec.Struct, frozen=True):
    """The messages of a partition that are not committed, and since when the oldest of them has been there."""

    waiting: int
    since: datetime | None = None


class StreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a process reports of the partitions that it reads, as they were at `at`."""

    at: datetime
    partitions: dict[str, PartitionLag] = {}


class LagReporter:
    """Observes the ends of partitions, and reports how far the committed positions are behind them.

    Messages have no time here: one that waits came after the end of its partition was last seen at or before the
    committed position, or else it has been there since the first observation, or longer.
    """

    def __init__(self, journal: Journal, source: str) -> None:
        self._journal, self._source = journal, source
        self._member, self._version = "", 0
        self._ends: dict[int, list[tuple[datetime, int]]] = {}
        self._waiting: dict[int, int] = {}

    def report(
        self, member: str, bounds: Mapping[int, Bounds], committed: Mapping[int, int], waiting: Mapping[int, int]
    ) -> None:
        """Report the partitions whose committed positions are given, with the messages that wait there: where they were
        not counted, as many as before, and at least one. A journal that does not answer is no error.
        """
        now = datetime.now(UTC)
        self._waiting = {n: waiting[n] if n in waiting else max(self._waiting.get(n, 1), 1) for n in committed}
        self._ends = {number: self._ends.get(number, []) for number in committed}
        lags = {
            str(number): PartitionLag(self._waiting[number], since if self._waiting[number] else None)
            for number, position in committed.items()
            # where nothing waits, an end may still be later: positions of some drivers are times
            for since in [self._since(number, bounds[number].end, position, now)]
        }
        value = msgspec.to_builtins(StreamReport(at=now, partitions=lags))
        if member != self._member:
            self.remove()
            self._member = member
        with suppress(CumulantError):
            self._version = self._write(f"{self._source}/{member}", value)

    def remove(self) -> None:
        """Report nothing any more."""
        if self._member:
            remove_reports(self._journal, self._source, [self._member])
        self._member, self._version = "", 0

    def _write(self, key: str, value: dict[str, object]) -> int:
        """Write a report, and return its version."""
        try:
            return self._journal.report(STREAM_REPORT, key, value, expect=self._version).version
        except LeaseHeldError:  # an earlier one was written, and the answer lost: nobody else writes this row
            versions = {row.key: row.version for row in self._journal.reports(STREAM_REPORT)}
            return self._journal.report(STREAM_REPORT, key, value, expect=versions.get(key, 0)).version

    def _since(self, partition: int, end: int, committed: int, now: datetime) -> datetime | None:
        seen = self._ends[partition]
        seen.append((now, end))
        while len(seen) > 1 and seen[1][1] <= committed:
            del seen[0]
        if len(seen) > _MOST:
            del seen[1::2]
        return seen[0][0] if end > committed else None


def remove_reports(journal: Journal, source: str, members: Iterable[str]) -> None:
    """Remove what members reported that are gone. A journal that does not answer is no error."""
    gone = {f"{source}/{member}" for member in members}
    with suppress(CumulantError):
        for row in journal.reports(STREAM_REPORT) if gone else ():
            if row.key in gone:
                journal.remove_report(STREAM_REPORT, row.key, expect=row.version)


def source_reports(journal: Journal) -> dict[str, list[StreamReport]]:
    """What processes report, by source, the oldest first."""
    reports: dict[str, list[StreamReport]] = {}
    for row in journal.reports(STREAM_REPORT):
        reports.setdefault(row.key.rpartition("/")[0], []).append(msgspec.convert(row.value, StreamReport))
    return {source: sorted(some, key=lambda report: report.at) for source, some in reports.items()}


def newest_lags(reports: Iterable[StreamReport]) -> dict[str, PartitionLag]:
    """By partition, what the newest of a source's reports (the oldest first) says of it.

    That of a killed process stays until others take its partitions.
    """
    lags = dict[str, PartitionLag]()
    for report in reports:
        lags |= report.partitions
    return lags
