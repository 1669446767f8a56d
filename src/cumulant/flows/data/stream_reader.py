"""Reads the share of a stream that this process has, and commits batches of it.

A batch's rows are stored first, under a name that nothing shows. One transaction of the journal then adds the batch and
moves the positions, so that after a kill either both are there or neither. In it the process must still own the
partitions that it read; whoever was taken for gone commits nothing. Batches of all processes have numbers in the order
in which they are committed, without gaps.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, LeaseHeldError, RetryableError
from cumulant.core.events import Actor
from cumulant.core.progress import Progress
from cumulant.flows.data.stream_batches import check_batch, message_decoder, store_batch
from cumulant.flows.data.stream_lag import LagReporter, remove_reports
from cumulant.flows.data.stream_membership import StreamMember, owned
from cumulant.flows.data.stream_pending import PendingMessages
from cumulant.flows.data.stream_records import add_batch, check_topic, find_state, marks_of
from cumulant.ports.streams import no_partition

if TYPE_CHECKING:
    import polars as pl

    from cumulant.data.streams.checking import CheckedMessages
    from cumulant.data.streams.records import StreamBatch, StreamState
    from cumulant.ports.journal import Transaction
    from cumulant.ports.streams import Bounds, Consumer, Messages
    from cumulant.project.project import Project

#: bytes of messages of a batch, and seconds after its first one, at which it is committed
BATCH_BYTES, BATCH_SECONDS = 32 << 20, 10.0
#: seconds between two looks for new partitions, and for other processes that ingest the source
_REFRESH, _LOOK = 10.0, 1.0


class IngestedSource(msgspec.Struct, frozen=True, kw_only=True):
    """What one call ingested of a source, and how many messages its topic has after that (None: it did not answer).

    `too_many_refused`: a larger share of them than the source allows.
    """

    source: str
    topic: str
    batches: int
    messages: int
    rows: int
    refused: int
    rules: dict[str, int]
    lag: int | None
    too_many_refused: bool


class IngestLimits(msgspec.Struct, frozen=True, kw_only=True):
    """A batch is committed at so many bytes or seconds; `accept_refused`: also where none of its messages passes."""

    bytes: int = BATCH_BYTES
    seconds: float = BATCH_SECONDS
    accept_refused: bool = False


class StreamReader:
    """Reads partitions of the topic of one source from the committed positions, and commits batches."""

    def __init__(  # noqa: PLR0917
        self,
        project: Project,
        source: str,
        topic: str,
        actor: Actor,
        limits: IngestLimits,
        progress: Progress,
        *,
        once: bool,
        member: StreamMember | None = None,
    ) -> None:
        from cumulant.data.streams.records import StreamState

        self._project, self._source, self._topic = project, source, topic
        self._actor, self._limits, self._progress = actor, limits, progress
        self._policy = project.policies.source(source)
        self._streams = project.streams()
        self._decoder = message_decoder(project, source)
        self._counts = Counter[str]()
        self._rules = Counter[str]()
        self._stack = ExitStack()
        self._consumer: Consumer | None = None
        self._member = member or StreamMember(project.journal(), source, actor)
        self._lags = LagReporter(project.journal(), source)
        self._joined = False
        #: when the topic, and the other processes, were last looked at
        self._refreshed_at, self._looked_at = 0.0, 0.0
        self._bounds: Mapping[int, Bounds] = {}
        #: as it was last read or written; of the own partitions the positions there are those of this process
        self._state = StreamState(topic=topic, identity="")
        self._schema: Mapping[str, pl.DataType] | None = None
        self._pending = PendingMessages()
        #: of the own partitions: the next one to read
        self._positions: dict[int, int] = {}
        self._once, self._ended = once, False
        #: with `once`: the positions at which this call ends
        self._ends: dict[int, int] | None = None

    @property
    def done(self) -> bool:
        """Whether everything is committed that was there when the call began, or an error ended this source."""
        return self._ended or (self._reached and not self._uncommitted)

    @property
    def _reached(self) -> bool:
        """Whether nothing is left to read of what was there when the call began, here and by others."""
        if self._ends is None or not self._joined:
            return False
        positions = {int(number): position for number, position in self._state.positions.items()} | self._positions
        return all(positions.get(number, 0) >= end for number, end in self._ends.items())

    @property
    def _idle(self) -> bool:
        """Whether this process has nothing to read for now."""
        ends = self._ends
        return ends is not None and all(position >= ends.get(number, 0) for number, position in self._positions.items())

    @property
    def _uncommitted(self) -> bool:
        """Whether positions moved: with messages, or past what is none, such as the marker of a transaction."""
        return self._positions != self._committed

    @property
    def _committed(self) -> dict[int, int]:
        """The committed positions of the own partitions, as far as they have any."""
        stored = self._state.positions
        return {number: stored[str(number)] for number in self._positions if str(number) in stored}

    def step(self, wait: float, stop: threading.Event) -> None:
        """Read once, for at most `wait` seconds, and commit where a batch is complete.

        Raises:
            LeaseHeldError: this process was taken for gone; nothing that was not committed will be.
        """
        if not self._joined or time.monotonic() - self._looked_at >= _LOOK:
            self.look()
        if self._consumer is None or self._idle:
            if not self._uncommitted and not self._reached:
                stop.wait(wait)
        else:
            for messages in self._consumer.read(self._pending.room(self._limits.bytes, len(self._state.columns)), wait):
                self._take(messages)
        if self._uncommitted and (
            self._idle or self._pending.bytes >= self._limits.bytes or self._pending.seconds >= self._limits.seconds
        ):
            self.commit()

    def look(self) -> None:
        """Look at the topic and at the other processes, and read the share of the partitions that is due.

        Raises:
            LeaseHeldError: as `step`.
        """
        state, _ = find_state(self._project, self._source)
        refresh = not self._joined or time.monotonic() - self._refreshed_at >= _REFRESH
        if refresh:
            self._refresh(state)
        if not self._joined:
            self._member.join()
            self._joined = True
        self._looked_at = time.monotonic()
        if state is not None:
            self._member.check_owned(state, self._positions)
            self._state = state
        share = self._member.share(self._state, self._bounds)
        if share.release:
            self.commit(share.release)
        elif share.take or state is None:
            with self._project.journal().transaction(actor=self._actor) as transaction:
                before = self._read(transaction)
                after = self._member.take(transaction, before, self._bounds)
                if after != before or state is None:
                    self._put(transaction, after)
            self._state = after
            remove_reports(self._project.journal(), self._source, self._member.removed)
            self._member.removed.clear()
        refresh |= self._assign()
        if refresh:
            self._report_lag()

    def commit(self, release: frozenset[int] = frozenset()) -> None:
        """Commit what was read: the rows, the refused messages and the positions of the own partitions together.
        `release`: partitions that are given back with it.

        Raises:
            LeaseHeldError: as `step`.
        """
        if not self._uncommitted and not release:
            return
        self.check_identity(self._state)  # whatever was read before is of the same topic then
        while True:
            state = self._state
            messages, stored = self._pending.messages, None
            checked = self._check(messages) if messages else None
            if checked is not None:
                stored = store_batch(self._project, self._source, state, messages, checked, member=self._member.id)
            with self._project.journal().transaction(actor=self._actor) as transaction:
                current = self._read(transaction)
                self._member.confirm(transaction, current, self._positions)
                if checked is None or current.columns == state.columns:
                    batch, current = self._advance(transaction, current, stored, checked)
                    current = self._member.release(current, release)
                    self._put(transaction, current)
                    break
            # another process added columns, by which these messages are checked again
            self._state, self._schema = current, None
        self._state = current
        for number in release:
            del self._positions[number]
        self._pending.clear()
        if batch is not None:
            self._count(batch)

    def finish(self) -> None:
        """Commit what was read, at the end. What others have taken over is left to them."""
        try:
            self.commit()
        except LeaseHeldError as error:
            self._progress(f"{self._source}: {error.message}")

    def start_again(self, error: RetryableError) -> None:
        """Read on from the committed positions, after a fault that may pass. Others may read until then."""
        self._progress(f"{self._source}: {error.message}; trying again")
        self._drop()

    def join_again(self, error: LeaseHeldError) -> None:
        """Begin anew beside the processes that have taken this one for gone."""
        self._progress(f"{self._source}: {error.message}; joining them again")
        self._drop()

    def end(self, error: CumulantError | None) -> None:
        """Read no more; tell the error that is the reason, if any is given."""
        if error is not None:
            self._progress(f"{self._source}: ended by an error: {error.message}")
        self._ended = True
        self._drop()

    def result(self) -> IngestedSource:
        messages, refused = self._counts["messages"], self._counts["refused"]
        state, _ = find_state(self._project, self._source)
        positions = {} if state is None else {int(number): place for number, place in state.positions.items()}
        try:
            lag = sum(self._streams.lag(self._topic, positions).values()) if positions else None
        except RetryableError:
            lag = None
        return IngestedSource(
            source=self._source,
            topic=self._topic,
            batches=self._counts["batches"],
            messages=messages,
            rows=messages - refused,
            refused=refused,
            rules=dict(self._rules.most_common()),
            lag=lag,
            too_many_refused=refused > self._policy.quarantine * messages,
        )

    def close(self) -> None:
        self._stack.close()
        self._lags.remove()
        self._member.leave()

    def _refresh(self, state: StreamState | None) -> None:
        """Look at the topic: whether it is the same, and which partitions it has."""
        if state is not None:
            self.check_identity(state)
        elif not self._state.identity:
            self._state = msgspec.structs.replace(self._state, identity=self._streams.identity(self._topic))
        self._bounds = self._streams.bounds(self._topic)
        self._refreshed_at = time.monotonic()
        if self._once and self._ends is None:
            self._ends = {number: there.end for number, there in self._bounds.items()}

    def _read(self, transaction: Transaction) -> StreamState:
        """The state, in the transaction that changes it."""
        from cumulant.data.streams.records import STREAM, StreamState

        row = transaction.get(STREAM, self._source)
        return self._state if row is None else msgspec.convert(row.value, StreamState)

    def _put(self, transaction: Transaction, state: StreamState) -> None:
        from cumulant.data.streams.records import STREAM

        transaction.put(STREAM, self._source, msgspec.to_builtins(state))

    def _advance(
        self,
        transaction: Transaction,
        state: StreamState,
        stored: StreamBatch | None,
        checked: CheckedMessages | None,
    ) -> tuple[StreamBatch | None, StreamState]:
        """The batch, as the one after `state`, and the state after it."""
        own = {str(number): place for number, place in self._positions.items()}
        moved = {number: place for number, place in own.items() if state.positions.get(number) != place}
        others = {number: mark for number, mark in state.marks.items() if number not in moved}
        marks = others | marks_of(self._streams, self._topic, moved)
        state = msgspec.structs.replace(state, positions=state.positions | moved, marks=marks)
        if stored is None or checked is None:
            return None, state
        batch = msgspec.structs.replace(stored, number=state.batches + 1, positions=moved)
        add_batch(transaction, self._source, self._topic, batch)
        return batch, state.after(batch, checked.columns)

    def _assign(self) -> bool:
        """Read the partitions that are owned now: those before from where they were, the others as committed. Returns
        whether they are others.
        """
        own = owned(self._state, self._member.id)
        if own == set(self._positions) and (self._consumer is not None or not own):
            return False
        if own != set(self._positions) and (self._member.count > 1 or self._consumer is not None):
            listed = ", ".join(str(number) for number in sorted(own)) or "none"
            self._progress(f"{self._source}: partitions of {self._topic} here: {listed} of {len(self._bounds)}")
        stored = self._state.positions
        places = {number: stored[str(number)] for number in own if str(number) in stored} | self._positions
        if own - places.keys():
            self._bounds = self._streams.bounds(self._topic)  # where what was never read begins now
        for number in own - places.keys():
            if number not in self._bounds:
                raise no_partition(self._topic, number, self._bounds)
            places[number] = self._bounds[number].begin
        self._note_change()
        self._positions = {number: places[number] for number in own}
        self._stack.close()
        self._consumer = None
        if own:
            self._consumer = self._stack.enter_context(self._streams.consume(self._topic, self._positions))
        return True

    def _report_lag(self) -> None:
        stored = self._committed
        # of a partition that is owned and listed no more, all that there was is read
        own = {number: there for number, there in self._bounds.items() if number in self._positions}
        committed = {number: stored.get(number, there.begin) for number, there in own.items()}
        behind = {number: place for number, place in committed.items() if own[number].end > place}
        waiting = dict.fromkeys(committed.keys() - behind.keys(), 0)
        if behind:
            with suppress(CumulantError):  # what cannot be counted may still be read
                waiting |= self._streams.lag(self._topic, behind)
        self._lags.report(self._member.id, self._bounds, committed, waiting)

    def check_identity(self, state: StreamState | None = None) -> None:
        """Raises DataError: the topic is another one than that of `state`, by default of what was read."""
        check_topic(self._streams, self._source, self._topic, state or self._state)

    def _note_change(self) -> None:
        if not self._uncommitted:
            self._pending.begin()

    def _take(self, messages: Messages) -> None:
        self._note_change()
        self._positions[messages.partition] = messages.next
        self._pending.add(messages, len(self._state.columns))

    def _drop(self) -> None:
        """Leave the source to others, with what is not committed of it."""
        self._pending.clear()
        self._consumer, self._positions = None, {}
        self._stack.close()
        self._member.leave()
        self._joined = False

    def _check(self, batch: list[Messages]) -> CheckedMessages:
        checked = check_batch(
            self._project,
            self._source,
            self._state,
            batch,
            self._schema,
            decoder=self._decoder,
            accept_refused=self._limits.accept_refused,
        )
        self._schema = checked.schema
        return checked

    def _count(self, batch: StreamBatch) -> None:
        self._counts.update(batches=1, messages=batch.messages, refused=batch.messages - batch.rows_passed)
        self._rules.update(batch.rules)
        refused = f", {self._counts['refused']:,} refused" if self._counts["refused"] else ""
        self._progress(f"{self._source}: {self._counts['messages']:,} messages of {self._topic}{refused}")
