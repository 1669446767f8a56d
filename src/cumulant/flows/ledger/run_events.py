"""The events of runs and their steps, and the verification of the event chain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import attrgetter
from typing import ClassVar

import msgspec

from cumulant.core.events import GENESIS, Break, Event, Fact, verify_chain
from cumulant.core.ids import digest
from cumulant.flows.ledger.ledger_records import RunRecord
from cumulant.ports.journal import ChainHead, HashedRows, Journal, RowHashes, RowWrite, Witnessed

#: what no chain can show, since whoever may write the database may write this too
UNSEEN = (
    "aliases and tags in the model registry, which has a store of its own",
    "a state row that was changed together with its record between two events: the next event carries what is there",
    "a chain made anew together with the head beside the database: compare with a head or an export kept elsewhere",
)


class RunStarted(Fact, frozen=True, kw_only=True):
    """A flow began. Settings are in the run's row; here is what a reader of the story needs."""

    kind: ClassVar[str] = "run.started"
    flow: str


class RunFinished(Fact, frozen=True, kw_only=True):
    """A flow ended; `verdict` is `passed` or `refused` where the model's gate was evaluated."""

    kind: ClassVar[str] = "run.finished"
    flow: str
    seconds: float
    steps: int
    reused: int
    verdict: str | None = None


class RunFailed(Fact, frozen=True, kw_only=True):
    """A flow ended early; `status` is `failed`, `refused` (a gate said no) or `interrupted`."""

    kind: ClassVar[str] = "run.failed"
    flow: str
    status: str
    seconds: float
    error: dict[str, object]


def end_of(run: RunRecord) -> RunFinished | RunFailed:
    """What is reported of a run that has ended."""
    if run.error is not None:
        return RunFailed(flow=run.flow, status=run.status, seconds=run.seconds, error=run.error)
    reused = sum(use.reused for use in run.steps)
    return RunFinished(flow=run.flow, seconds=run.seconds, steps=len(run.steps), reused=reused, verdict=run.verdict)


class StepStarted(Fact, frozen=True, kw_only=True):
    """`taken_from` names the process whose lease had ended, where there was one."""

    kind: ClassVar[str] = "step.started"
    step: str
    name: str
    attempt: int
    taken_from: str | None = None


class StepFinished(Fact, frozen=True, kw_only=True):
    kind: ClassVar[str] = "step.finished"
    step: str
    name: str
    attempt: int
    seconds: float


class StepReused(Fact, frozen=True, kw_only=True):
    """A step that was done before: its result was found."""

    kind: ClassVar[str] = "step.reused"
    step: str
    name: str


class StepFailed(Fact, frozen=True, kw_only=True):
    """`interrupted`: a person stopped it; nothing is wrong with the step."""

    kind: ClassVar[str] = "step.failed"
    step: str
    name: str
    attempt: int
    seconds: float
    error: dict[str, object]
    interrupted: bool = False


class Verified(msgspec.Struct, frozen=True):
    """Every place where the chain or a state row does not hold, and how many rows were compared.

    `since`: the first event that carries hashes of rows; None where no event does. `waiting`: rows whose hashes the
    next event will carry.
    """

    breaks: list[Break]
    rows: int = 0
    since: int | None = None
    waiting: int = 0


def verify(journal: Journal, *, known: str = "") -> Verified:
    """Compare the chain with its heads and hashes, and the state rows with the hashes that its events carry.

    `known`: how the hash of an event begins that the chain must have, such as a head that was kept elsewhere. Others
    may write meanwhile: what they add lies between the two heads that are read before and after.
    """
    witness = journal.witness() if isinstance(journal, Witnessed) else None
    before = journal.head()
    passed = _ChainProgress({before.seq, 0 if witness is None else witness.seq}, known)
    breaks = list(_chain_breaks(journal, passed, before, witness))
    if not isinstance(journal, HashedRows):
        return Verified(breaks)
    with journal.row_hashes() as hashes:
        if hashes is None:
            lost = [Break(seq, "carries a digest of state rows, whose hashes are missing") for seq in passed.rows]
            return Verified([*breaks, *lost[:1]])
        check = RowHashCheck(hashes, passed.rows, passed.last)
        breaks += check.breaks()
        since = min(passed.rows, default=None)
        return Verified(breaks, rows=check.count, since=since, waiting=check.waiting)


def first_break(journal: Journal, *, after: int = 0) -> Break | None:
    """The first event after number `after` that does not continue the chain; None where all do."""
    events = journal.events(after=max(0, after - 1))
    start = next(events, None) if after else None
    return next(verify_chain(events, after=after, head=GENESIS if start is None else start.hash), None)


def _chain_breaks(
    journal: Journal, passed: _ChainProgress, before: ChainHead, witness: ChainHead | None
) -> Iterator[Break]:
    yield from verify_chain(passed.through(journal.events()))
    if passed.last < before.seq:
        yield Break(before.seq, "the newest events are missing")
    elif passed.hashes.get(before.seq, before.hash) != before.hash:
        yield Break(before.seq, "is not the event that was written here")
    if passed.last > journal.head().seq:
        yield Break(passed.last, "was not written by this journal")
    if witness is not None and witness != before and passed.hashes.get(witness.seq) != witness.hash:
        what = "is another one" if witness.seq in passed.hashes else "is missing"
        yield Break(witness.seq, f"{what}: the head that is kept beside the database names it")
    if not passed.knows:
        yield Break(passed.last, f"is the end of a chain that has no event {passed.known[:12]}")
    if isinstance(journal, Witnessed):
        for seq in journal.misfiled():
            yield Break(seq, "is stored under another number, kind or run than its own")


class _ChainProgress:
    """What has gone by of a chain: the last event, hashes at some places, whether one is known, digests of rows."""

    def __init__(self, places: set[int], known: str) -> None:
        self.last = 0
        self.hashes: dict[int, str] = {0: GENESIS}
        self.knows = not known
        self.known = known
        self.rows: dict[int, str] = {}
        self._places = places

    def through(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            self.last = event.seq
            self.knows = self.knows or event.hash.startswith(self.known)
            if event.rows is not None:
                self.rows[event.seq] = event.rows
            if event.seq in self._places:
                self.hashes[event.seq] = event.hash
            yield event


class RowHashCheck:
    """One comparison of all rows.

    Args:
        hashes: the recorded writes, and the rows as they are.
        digests: by event, the digest of rows that it carries.
        last: the newest event that was read; what newer ones carry is not compared with them.
    """

    def __init__(self, hashes: RowHashes, digests: Mapping[int, str], last: int) -> None:
        self._hashes = hashes
        self._digests = digests
        self._last = last
        self._newest: dict[tuple[str, str], RowWrite] = {}
        #: how many rows were compared, and how many of their hashes no event carries yet
        self.count = self.waiting = 0

    def breaks(self) -> Iterator[Break]:
        yield from self._records()
        for row in self._hashes.rows:
            self.count += 1
            recorded = self._newest.pop((row.kind, row.key), None)
            problem = _difference(row, recorded)
            if problem:
                yield Break(recorded.event if recorded else 0, problem, row=_name(row))
        for missing in self._newest.values():
            yield Break(
                missing.event, f"is missing: {_source(missing)} has version {missing.version}", row=_name(missing)
            )

    def _records(self) -> Iterator[Break]:
        missing = dict(self._digests)
        for event, group in groupby(self._hashes.writes, attrgetter("event")):
            writes = list(group)
            if not 0 <= event <= self._hashes.head:
                yield Break(
                    event, "is named by records of state rows, and there is no such event", row=_name(writes[0])
                )
                continue
            if event == 0:
                yield from self._wait(writes)
            self._newest.update({(row.kind, row.key): row for row in writes})
            carried = missing.pop(event, None)
            if 0 < event <= self._last and carried != digest([(w.kind, w.key, w.version, w.hash) for w in writes]):
                yield Break(event, "carries another digest than that of the recorded hashes of its state rows")
        for event in missing:
            yield Break(event, "carries a digest of state rows whose recorded hashes are missing")

    def _wait(self, writes: list[RowWrite]) -> Iterator[Break]:
        """Each write has a version of its own: one that waits is newer than what an event carries."""
        self.waiting = len(writes)
        for row in writes:
            bound = self._newest.get((row.kind, row.key))
            if bound is not None and row.version <= bound.version:
                yield Break(bound.event, f"is older than the record of version {row.version}", row=_name(row))


def _difference(row: RowWrite, recorded: RowWrite | None) -> str | None:
    if recorded is None:
        return "was inserted: no event and no record of a write has it"
    if row.version != recorded.version:
        return f"has version {row.version}: {_source(recorded)} has version {recorded.version}"
    if row.hash != recorded.hash:
        return f"has another content than version {row.version} in {_source(recorded)}"
    return None


def _source(write: RowWrite) -> str:
    return f"event {write.event}" if write.event else "the record of its last write"


def _name(row: RowWrite) -> str:
    return f"state row {row.kind} {row.key}"
