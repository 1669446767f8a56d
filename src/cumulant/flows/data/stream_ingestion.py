"""Ingestion of streams: messages become rows of their sources, exactly once.

A batch's rows are stored first, under a name that nothing shows. One transaction of the journal then adds the batch and
moves the positions, so that after a kill either both are there or neither. The version of the row with the positions is
the fence: of two processes that read the same messages, one commits.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, DataError, LeaseHeldError, RetryableError
from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
from cumulant.flows.data.stream_batches import check_batch, message_decoder, store_batch
from cumulant.flows.data.stream_records import find_state, streamed_sources
from cumulant.flows.ledger.actions import verb

if TYPE_CHECKING:
    import polars as pl

    from cumulant.data.streams.checking import CheckedMessages
    from cumulant.data.streams.records import StreamBatch, StreamState
    from cumulant.ports.access import Principal
    from cumulant.ports.streams import Consumer, Messages
    from cumulant.project.project import Project

#: bytes of messages of a batch, and seconds after its first one, at which it is committed
BATCH_BYTES, BATCH_SECONDS = 32 << 20, 10.0
#: the most bytes that are asked for at once, and the bytes that a message is thought to have before any was read
_READ, _FIRST_GUESS = 2 << 20, 16
#: bytes that a message takes in memory beside its own, and for each column of its source, whose table has a value there
_OVERHEAD, _VALUE = 120, 8
#: seconds for which one read waits, with one source and with several
_WAIT, _WAIT_SHARED = 0.5, 0.05
#: seconds between two looks for new partitions, and until a broker that did not answer is tried again
_REFRESH, _RETRY = 30.0, 2.0


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
    """When a batch is committed: at so many bytes, or seconds after its first message. `accept_refused`: also where no
    message of it passes.
    """

    bytes: int = BATCH_BYTES
    seconds: float = BATCH_SECONDS
    accept_refused: bool = False


@verb("data.ingest")
def ingest_streams(
    project: Project,
    *,
    principal: Principal,
    sources: Iterable[str] = (),
    once: bool = False,
    stop: threading.Event | None = None,
    limits: IngestLimits | None = None,
    progress: Progress = silent,
) -> list[IngestedSource]:
    """Ingest the messages of the named sources (default: all with a stream) until `stop` is set: what was read by then
    is committed. `once`: what is there when the call begins. An error ends its source alone; the others go on, and the
    first error is raised when they end.

    Raises:
        NotFoundError: there is no such source, or no such topic.
        UsageError: no source has a stream.
        DataError: messages were deleted before they were read; the topic is another one; a message fits no table.
        ContractBreachError: no message of a large batch passes; nothing of it is committed.
        LeaseHeldError: another process ingests a source at the same time.
        EngineUnavailableError: with `once`, the broker does not answer; without, it is tried again.
        StorageError: rows cannot be stored; nothing of the batch is committed.
    """
    stop, limits = stop or threading.Event(), limits or IngestLimits()
    actor = Actor(principal.id)
    with ExitStack() as stack:
        readers = [
            stack.enter_context(_opened(_Reader(project, name, topic, actor, limits, progress, once=once)))
            for name, topic in streamed_sources(project, sources).items()
        ]
        wait = _WAIT if len(readers) == 1 else _WAIT_SHARED
        active, errors = readers, list[CumulantError]()
        while active and not stop.is_set():
            for reader in active:
                with _ended_by_error(reader, errors, alone=len(readers) == 1):
                    _step(reader, wait, stop, once=once)
            active = [reader for reader in active if not reader.done]
        for reader in active:
            with _ended_by_error(reader, errors, alone=len(readers) == 1):
                reader.commit()
        if errors:
            raise errors[0]
        return [reader.result() for reader in readers]


@contextmanager
def _ended_by_error(reader: _Reader, errors: list[CumulantError], *, alone: bool) -> Iterator[None]:
    """An error of one source keeps no other from being committed. It is told at once where others go on."""
    try:
        yield
    except CumulantError as error:
        errors.append(error)
        reader.end(None if alone else error)


def _step(reader: _Reader, wait: float, stop: threading.Event, *, once: bool) -> None:
    try:
        reader.step(wait)
    except LeaseHeldError:
        raise
    except RetryableError as error:
        if once:
            raise
        reader.start_again(error)
        stop.wait(_RETRY)


@contextmanager
def _opened(reader: _Reader) -> Iterator[_Reader]:
    try:
        yield reader
    finally:
        reader.close()


class _Reader:
    """Reads the topic of one source from the committed positions, and commits batches."""

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
        self._opened_at = 0.0
        self._state, self._version = StreamState(topic=topic, identity=""), 0
        self._schema: Mapping[str, pl.DataType] | None = None
        #: what was read and is not committed yet, its bytes, and since when there is anything to commit
        self._pending: list[Messages] = []
        self._pending_bytes, self._pending_since = 0, 0.0
        self._message_bytes = float(_FIRST_GUESS)
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
        return self._ends is not None and all(
            self._positions.get(number, 0) >= end for number, end in self._ends.items()
        )

    @property
    def _uncommitted(self) -> bool:
        """Whether positions moved: with messages, or past what is none, such as the marker of a transaction."""
        return self._positions != _by_number(self._state.positions)

    @property
    def _overhead(self) -> int:
        return _OVERHEAD + _VALUE * len(self._state.columns)

    def step(self, wait: float) -> None:
        """Read once, for at most `wait` seconds, and commit where a batch is complete."""
        if self._consumer is None or time.monotonic() - self._opened_at > _REFRESH:
            self._open()
        if self._consumer is None:
            return
        if not self._reached:
            for messages in self._consumer.read(self._room(), wait):
                self._take(messages)
        if self._uncommitted and (
            self._reached
            or self._pending_bytes >= self._limits.bytes
            or time.monotonic() - self._pending_since >= self._limits.seconds
        ):
            self.commit()

    def commit(self) -> None:
        """Commit what was read: the rows, the refused messages and the positions of all partitions together."""
        if not self._uncommitted:
            return
        from cumulant.data.streams.records import BATCH, STREAM, StreamIngested, batch_key

        self._check_identity(self._state)  # whatever was read before is of the same topic then
        stored, state = None, msgspec.structs.replace(self._state, positions=_by_text(self._positions))
        if self._pending:
            checked = self._check(self._pending)
            stored = store_batch(self._project, self._source, self._state, self._pending, checked, state.positions)
            state = self._state.after(stored, checked.columns)
        journal = self._project.journal()
        try:
            with journal.transaction(actor=self._actor) as transaction:
                row = transaction.put(STREAM, self._source, msgspec.to_builtins(state), expect=self._version)
                if stored is not None:
                    key = batch_key(self._source, stored.number)
                    transaction.put(BATCH, key, msgspec.to_builtins(stored), expect=0)
                    transaction.emit(
                        StreamIngested(
                            source=self._source,
                            topic=self._topic,
                            batch=stored.number,
                            messages=stored.messages,
                            rows=stored.rows_passed,
                            refused=stored.messages - stored.rows_passed,
                            positions=stored.positions,
                        )
                    )
        except LeaseHeldError as error:
            raise LeaseHeldError(
                f"another process ingests source {self._source}",
                subject=self._source,
                hint="run one for each source; what this one had read was not committed",
            ) from error
        self._state, self._version = state, row.version
        self._forget_pending()
        if stored is not None:
            self._count(stored)

    def start_again(self, error: RetryableError) -> None:
        """Read on from the committed positions, after a fault that may pass."""
        self._progress(f"{self._source}: {error.message}; trying again")
        self._drop()

    def end(self, error: CumulantError | None) -> None:
        """Read no more; tell the error that is the reason, if any is given."""
        if error is not None:
            self._progress(f"{self._source}: ended by an error: {error.message}")
        self._ended = True
        self._drop()

    def result(self) -> IngestedSource:
        messages, refused = self._counts["messages"], self._counts["refused"]
        positions = _by_number(self._state.positions)
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

    def _load(self) -> None:
        """Begin at the committed positions."""
        from cumulant.data.streams.records import StreamState

        state, version = find_state(self._project, self._source)
        if state is None:
            state = StreamState(topic=self._topic, identity=self._streams.identity(self._topic))
        else:
            self._check_identity(state)
        self._state, self._version = state, version
        self._positions = _by_number(state.positions)

    def _check_identity(self, state: StreamState) -> None:
        if (state.topic, state.identity) != (self._topic, self._streams.identity(self._topic)):
            before = state.topic if state.topic != self._topic else "a topic of this name that is gone"
            raise DataError(
                f"the rows of source {self._source} come from {before}, whose positions mean nothing in {self._topic}",
                subject=self._source,
                hint="declare another source for the new topic",
            )

    def _open(self) -> None:
        """Read from the positions so far, and new partitions from their begin."""
        self._opened_at = time.monotonic()
        if self._consumer is None:
            self._load()
        else:
            self._check_identity(self._state)
        bounds = self._streams.bounds(self._topic)
        if self._once and self._ends is None:
            self._ends = {number: there.end for number, there in bounds.items()}
        fresh = {number: there.begin for number, there in bounds.items() if number not in self._positions}
        if self._consumer is not None and not fresh:
            return
        self._note_change()
        self._positions |= fresh
        self._stack.close()
        self._consumer = self._stack.enter_context(self._streams.consume(self._topic, self._positions))

    def _room(self) -> int:
        """The bytes of messages to ask for: the batch also counts what each takes beside its own."""
        share = self._message_bytes / (self._message_bytes + self._overhead)
        return max(min(int((self._limits.bytes - self._pending_bytes) * share), _READ), 1)

    def _note_change(self) -> None:
        if not self._uncommitted:
            self._pending_since = time.monotonic()

    def _take(self, messages: Messages) -> None:
        self._note_change()
        self._positions[messages.partition] = messages.next
        count = len(messages.values)
        if not count:
            return
        if not self._pending:
            self._pending_since = time.monotonic()
        self._pending.append(messages)
        size = sum(len(value or b"") for value in messages.values)
        self._message_bytes = max(size / count, 1.0)
        self._pending_bytes += size + self._overhead * count

    def _forget_pending(self) -> None:
        """Begin a batch, at the committed positions."""
        self._pending, self._pending_bytes = [], 0
        self._positions = _by_number(self._state.positions)

    def _drop(self) -> None:
        self._forget_pending()
        self._consumer = None
        self._stack.close()

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


def _by_number(positions: Mapping[str, int]) -> dict[int, int]:
    return {int(number): position for number, position in positions.items()}


def _by_text(positions: Mapping[int, int]) -> dict[str, int]:
    return {str(number): position for number, position in positions.items()}
