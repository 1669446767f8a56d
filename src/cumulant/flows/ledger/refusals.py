"""Events of refused requests: of servers of this project at once and then counted, and of prediction servers from the
log that they write.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, LeaseHeldError
from cumulant.core.events import Actor
from cumulant.core.occurrences import OccurrenceCounter, Occurrences
from cumulant.flows.ledger.decisions import AccessRefused, RefusalKey, emit_refusal
from cumulant.flows.maintenance.rounds import repeat_in_background
from cumulant.ports.journal import Freezing
from cumulant.serving.access.refusal_log import MERGED, MOST, WINDOW, RefusalRecord, read_records

if TYPE_CHECKING:
    from cumulant.ports.log import Log, PartInfo
    from cumulant.project.project import Project

#: the row that names the parts of which there are events
_KIND, _KEY = "refusals", "parts"
#: seconds between two looks, and at the end to write what is counted
_ROUND, _WRITE = 10.0, 3.0


def ingest_refusals(project: Project) -> int:
    """Events of what prediction servers refused and no event reports yet; how many requests that are.

    Each part becomes events in one transaction with the row that names it, whose version is the fence of processes
    that do this at once. Where the journal cannot be written nothing is done.

    Raises:
        CumulantError: the log or the journal does not answer.
    """
    journal, log = project.journal(), project.log("refusals")
    listed = [part for day in log.days() for part in log.parts(day)]
    if not listed or (isinstance(journal, Freezing) and journal.frozen):
        return 0
    row = journal.get(_KIND, _KEY)
    keys = {part.key for part in listed}
    done = keys & set(msgspec.convert({} if row is None else row.value, _Parts).parts)
    version, count = 0 if row is None else row.version, 0
    for part in listed:
        try:
            records = None if part.key in done else _read(log, part)
        except (msgspec.DecodeError, UnicodeDecodeError):
            log.set_aside(part)  # not deleted: the stored one may be whole, and only the copy here damaged
            continue
        if records:
            done.add(part.key)
            try:
                version = _emit(project, records, sorted(done), version)
            except LeaseHeldError:  # another process does it
                return count
            count += sum(record.count for record in records)
        log.delete([part])
        done.discard(part.key)
    return count


def ingest_if_possible(project: Project) -> None:
    """As `ingest_refusals`, before events are shown: what cannot be read now is an event later."""
    with suppress(CumulantError):
        ingest_refusals(project)


class _Parts(msgspec.Struct):
    parts: list[str] = []


def _read(log: Log, part: PartInfo) -> list[RefusalRecord] | None:
    """Raises msgspec.DecodeError, UnicodeDecodeError: what was read is damaged."""
    try:
        with log.open(part) as stream:
            return read_records(stream.read())
    except FileNotFoundError:  # another process has done it
        return None


def _emit(project: Project, records: list[RefusalRecord], done: list[str], version: int) -> int:
    with project.journal().transaction(actor=Actor(records[0].refusal.principal)) as transaction:
        row = transaction.put(_KIND, _KEY, {"parts": done}, expect=version)
        for record in records:
            transaction.emit(_fact(record))
    return row.version


def _fact(record: RefusalRecord) -> AccessRefused:
    refusal = record.refusal
    return AccessRefused(
        action=refusal.action,
        resource=refusal.resource,
        policies=refusal.policies,
        via="http",
        reason=refusal.reason,
        server=record.server,
        count=record.count,
        first=record.first,
        last=record.last,
    )


@contextmanager
def record_refusals(
    project: Project, report: Callable[[str], object], *, servers: bool = False, window: timedelta = WINDOW
) -> Iterator[None]:
    """While the block lasts, equal refusals of this process are one event at once and then one a window; with `servers`
    those of prediction servers become events too. At its end all that is counted is written, where the journal takes
    it within seconds.
    """
    counter: OccurrenceCounter[RefusalKey] = OccurrenceCounter(window, MOST, _merged)
    project.refusals = counter

    def work() -> None:
        _report(project, counter, report)
        if servers:
            ingest_refusals(project)

    try:
        with repeat_in_background(project, work, report, failure="refused requests of servers wait", pause=_ROUND):
            try:
                yield
            finally:
                project.refusals = None
    finally:
        last = threading.Thread(target=_report, args=(project, counter, report), kwargs={"every": True}, daemon=True)
        last.start()
        last.join(_WRITE)


def _merged(key: RefusalKey) -> RefusalKey:
    return key._replace(principal=MERGED, resource=MERGED, policies=(), source="", token="")


def _report(
    project: Project, counter: OccurrenceCounter[RefusalKey], report: Callable[[str], object], *, every: bool = False
) -> None:
    """Write events of what is due; of `every` one up to the first failure, since each may take a minute."""
    waiting: list[tuple[RefusalKey, Occurrences]] = counter.due(datetime.now(UTC), every=every)
    while waiting:
        key, occurrences = waiting.pop(0)
        try:
            emit_refusal(project, key, occurrences)
        except (CumulantError, OSError, sqlite3.Error) as error:
            unwritten = [(key, occurrences), *(waiting if every else ())]
            for refusal, counted in unwritten:
                counter.put_back(refusal, counted)
            count = sum(counted.count for _, counted in unwritten)
            report(f"{count} refused requests wait for the journal: {project.vault.redact(str(error))}")
            if every:
                return
