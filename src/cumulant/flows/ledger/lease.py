"""Leases: what must happen once, wherever it is done.

A lease is a row of the journal. Its holder raises the row's version again and again; whoever waits takes it over when
the version has stood still for the lease's length on the waiter's own monotonic clock, so that clocks of machines are
never compared. A process of the same machine that is gone is noticed at once. Each holder has a fence, a number above
that of every holder before it; a holder that slept through its lease can neither renew it nor write under it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Self

import msgspec

from cumulant.core.errors import CumulantError, LeaseHeldError
from cumulant.core.events import Actor
from cumulant.flows.ledger.processes import Process, is_gone, this_process
from cumulant.ports.journal import Journal, Row, Transaction

LEASE = "lease"
BEATS = 6
"""How often a holder renews in one length of the lease."""
_POLL_FIRST, _POLL_LAST, _POLL_GROWTH = 0.02, 0.25, 1.5


class LeaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A `lease` row. `ttl` is in seconds; `life` names one holder's time, also among holders of one process."""

    holder: Process
    life: str
    ttl: float
    data: dict[str, object] = {}


class LeaseWatch:
    """Judges for one waiter, by its own monotonic clock, whether holders still renew; threads may not share it.

    Time in which the waiter could not read the journal counts for no holder: none could renew in it.
    """

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        #: the version of each row, when it was first seen, without the time in which it was not read, and last read
        self._seen: dict[str, tuple[int, float, float]] = {}
        self._renewed: set[str] = set()

    def has_lapsed(self, name: str, version: int, *, ttl: float, holder: Process) -> bool:
        """Whether the row `name` has had this version for `ttl` seconds since this waiter first saw it, or its holder
        is known to be gone. Call it several times in `ttl` seconds: of more than half of it without a call, the time
        of one renewal counts.
        """
        now = self._steady()
        seen, since = self._seen.get(name), now
        if seen is not None and seen[0] == version:
            gap = now - seen[2]
            since = seen[1] + (gap - ttl / BEATS if gap > ttl / 2 else 0.0)
        elif seen is not None:
            self._renewed.add(name)
        self._seen[name] = (version, since, now)
        return now - since > ttl or is_gone(holder)

    def saw_renewal(self, name: str) -> bool:
        """Whether the version changed while this waiter watched it."""
        return name in self._renewed


class LeaseRenewal:
    """Calls `beat` from a thread while the block runs.

    `beat` raises LeaseHeldError once the lease is lost, and then the thread ends. Other errors (a busy journal, a full
    disk) may pass before the lease ends.
    """

    def __init__(self, beat: Callable[[], object], *, every: float) -> None:
        self._beat = beat
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cumulant-lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A beat under way is waited for: nothing renews after the block.
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self._beat()
            except LeaseHeldError:
                return
            except CumulantError:
                continue


class LeaseHandle:
    """A lease that this process holds. `fence` is above that of every holder before."""

    def __init__(self, journal: Journal, name: str, record: LeaseRecord, *, fence: int, actor: Actor) -> None:
        self.name = name
        self.fence = fence
        self._journal = journal
        self._record = record
        self._actor = actor

    def confirm(self, source: Journal | Transaction) -> None:
        """Check that this holder has the lease. A transaction becomes its own: it is undone where another one has it.

        Raises:
            LeaseHeldError: the lease is lost.
        """
        row = source.get(LEASE, self.name)
        record = None if row is None else read_lease(row)
        if record is None or record.life != self._record.life:
            text = "nobody holds it any more" if record is None else f"{record.holder} has taken it over"
            raise LeaseHeldError(
                f"the lease {self.name} is lost: {text}", subject=self.name, hint="read again and decide anew"
            )

    def beat(self) -> None:
        """Renew it.

        Raises:
            LeaseHeldError: the lease is lost.
        """
        with self._journal.transaction(actor=self._actor) as transaction:
            self.confirm(transaction)
            transaction.put(LEASE, self.name, msgspec.to_builtins(self._record))

    def release(self) -> None:
        """Give it back, if it is not lost: the next waiter has it at once."""
        with suppress(LeaseHeldError), self._journal.transaction(actor=self._actor) as transaction:
            self.confirm(transaction)
            transaction.delete(LEASE, self.name)

    @contextmanager
    def renewed(self) -> Iterator[Self]:
        """Renew it from a thread while the block runs, and release it afterwards."""
        try:
            with LeaseRenewal(self.beat, every=self._record.ttl / BEATS):
                yield self
        finally:
            with suppress(CumulantError):  # it ends by itself
                self.release()


def read_lease(row: Row) -> LeaseRecord:
    return msgspec.convert(row.value, LeaseRecord)


def take_lease(
    journal: Journal,
    name: str,
    *,
    ttl: float,
    actor: Actor,
    watch: LeaseWatch,
    holder: Process | None = None,
    data: Mapping[str, object] | None = None,
) -> LeaseHandle | None:
    """The lease, if nobody holds it or its holder has lapsed as `watch` saw it; None where another one holds it.

    Call it again with the same `watch` until it is taken. `ttl` is in seconds.

    Raises:
        CumulantError: the journal does not answer.
    """
    row = journal.get(LEASE, name)
    if row is not None:
        present = read_lease(row)
        if not watch.has_lapsed(name, row.version, ttl=present.ttl, holder=present.holder):
            return None
    record = LeaseRecord(holder=holder or this_process(), life=uuid.uuid4().hex, ttl=ttl, data=dict(data or {}))
    try:
        with journal.transaction(actor=actor) as transaction:
            fence = transaction.put(LEASE, name, msgspec.to_builtins(record), expect=row.version if row else 0).version
    except LeaseHeldError:  # another waiter was faster
        return None
    return LeaseHandle(journal, name, record, fence=fence, actor=actor)


def await_lease(
    journal: Journal,
    name: str,
    *,
    ttl: float,
    actor: Actor,
    data: Mapping[str, object] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> LeaseHandle | None:
    """The lease, for a process that runs once: it watches until the holder renews, which gives None, or lapses.

    So it takes as long as the holder's `ttl` at most, and a sixth of it where the holder is alive.
    """
    watch, pause = LeaseWatch(), _POLL_FIRST
    while (lease := take_lease(journal, name, ttl=ttl, actor=actor, watch=watch, data=data)) is None:
        if watch.saw_renewal(name):
            return None
        sleep(pause)
        pause = min(pause * _POLL_GROWTH, _POLL_LAST)
    return lease


def holder_of(journal: Journal, name: str) -> Process | None:
    """Who holds a lease, or did when it lapsed; None where nobody does."""
    row = journal.get(LEASE, name)
    return None if row is None else read_lease(row).holder
