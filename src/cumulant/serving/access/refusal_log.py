"""Refused requests as counted records in a log, of which the project makes events.

A server has no access to the journal: whoever can write there can run code with the rights of workers.
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import chain
from queue import SimpleQueue

import msgspec

from cumulant.core.errors import CumulantError, StorageError
from cumulant.core.occurrences import OccurrenceCounter, Occurrences
from cumulant.ports.log import UNDATED, Log, PartInfo
from cumulant.serving.access.control import RefusedRequest

#: equal refusals are reported once in that time, after the first one
WINDOW = timedelta(minutes=1)
#: refusals that are told apart in a window: callers choose the names of models
MOST = 256
#: stands for the resources of refusals beyond that
MERGED = "(several)"
#: parts of a log to which no more are added, where nobody reads them; seconds between two counts of them
MOST_PARTS, _COUNT = 10_000, 60.0
#: seconds between two looks at what is due, and after a failure; and for which the end waits
_ROUND, _AFTER_FAILURE, _LAST = 1.0, 5.0, 4.0


class RefusalRecord(msgspec.Struct, frozen=True):
    """Equal refusals of one server: how many, first and last."""

    refusal: RefusedRequest
    server: str
    count: int
    first: datetime
    last: datetime


def merged(refusal: RefusedRequest) -> RefusedRequest:
    """The refusal that stands for it where there are too many of other resources."""
    return msgspec.structs.replace(refusal, resource=MERGED, policies=())


def read_records(content: bytes) -> list[RefusalRecord]:
    """The records of a part. Raises msgspec.DecodeError: it holds others."""
    return [_decode(line) for line in content.splitlines()]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(RefusalRecord).decode


def _now() -> datetime:
    return datetime.now(UTC)


class RefusalLog:
    """Counts refusals and writes them, from a thread of its own: at once, then once a window. One part holds the
    records of one principal, so that its events are written in one transaction.

    What the log does not take is kept and tried again, so that a number may be too high where an answer was lost; at
    the end what remains goes to standard error. A log of `MOST_PARTS` parts that nobody reads is given no more; servers
    that write to it at once may exceed that by what they write in a minute.
    """

    def __init__(
        self, log: Log, server: str, *, window: timedelta = WINDOW, clock: Callable[[], datetime] = _now
    ) -> None:
        self._log, self._server, self._clock = log, server, clock
        self._counter: OccurrenceCounter[RefusedRequest] = OccurrenceCounter(window, MOST, merged)
        self._queue: SimpleQueue[tuple[RefusedRequest, Occurrences]] = SimpleQueue()
        self._life, self._number, self._failing = secrets.token_hex(8), 0, False
        #: what is not written yet of what was due, by principal
        self._writing: Sequence[Sequence[tuple[RefusedRequest, Occurrences]]] = ()
        self._full, self._next_count = False, time.monotonic()
        self._wake, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="refusals", daemon=True)
        self._thread.start()

    def add(self, refusal: RefusedRequest) -> None:
        """Count a refusal; it takes microseconds and never waits for the log."""
        report = self._counter.add(refusal, self._clock())
        if report is not None:
            self._queue.put(report)
        self._wake.set()

    def close(self) -> None:
        """Write all that is counted, for some seconds at most."""
        self._ending.set()
        self._wake.set()
        self._thread.join(_LAST)
        for report in (*chain.from_iterable(self._writing), *self._due(every=True)):
            sys.stderr.write(f"the log of refused requests did not take {_encode(self._record(*report)).decode()}\n")

    def _work(self) -> None:
        while not self._ending.is_set():
            self._wake.wait()
            self._wake.clear()
            written = self._write(self._due())
            if not self._queue.empty() or len(self._counter):
                self._wake.set()
            self._ending.wait(_ROUND if written else _AFTER_FAILURE)
        self._write(self._due(every=True))

    def _due(self, *, every: bool = False) -> list[tuple[RefusedRequest, Occurrences]]:
        reports = []
        while not self._queue.empty():
            reports.append(self._queue.get())
        return reports + self._counter.due(self._clock(), every=every)

    def _write(self, reports: Sequence[tuple[RefusedRequest, Occurrences]]) -> bool:
        """Whether the log took them; what it did not take is counted again."""
        by_principal = defaultdict(list)
        for report in reports:
            by_principal[report[0].principal].append(report)
        self._writing, written = tuple(by_principal.values()), True
        while self._writing:
            written = self._append(self._writing[0]) and written
            self._writing = self._writing[1:]
        return written

    def _append(self, reports: Sequence[tuple[RefusedRequest, Occurrences]]) -> bool:
        self._number += 1
        try:
            self._check_room()
            content = b"".join(_encode(self._record(*report)) + b"\n" for report in reports)
            with self._log.append(PartInfo(UNDATED, self._life, self._number, self._number, "jsonl")) as stream:
                stream.write(content)
        except Exception as error:  # noqa: BLE001 - the edge: whatever a driver raises must not end the thread
            for report in reports:
                self._counter.put_back(*report)
            if not self._failing:
                sys.stderr.write(f"refused requests are kept until their log takes them: {error}\n")
            self._failing = True
            return False
        self._failing = False
        return True

    def _check_room(self) -> None:
        """Raises StorageError: the log is full."""
        if time.monotonic() >= self._next_count:
            self._full = False
            with suppress(CumulantError, OSError):  # who may write there may be unable to list
                self._full = len(self._log.parts(UNDATED)) >= MOST_PARTS
            self._next_count = time.monotonic() + _COUNT
        if self._full:
            raise StorageError(f"{self._log.location} holds {MOST_PARTS:,} parts that nobody has read")

    def _record(self, refusal: RefusedRequest, occurrences: Occurrences) -> RefusalRecord:
        return RefusalRecord(refusal, self._server, occurrences.count, occurrences.first, occurrences.last)
