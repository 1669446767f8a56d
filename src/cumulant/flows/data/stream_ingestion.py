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
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import ContractBreachError, DataError, LeaseHeldError, RetryableError
from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
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
#: the most bytes that are asked for at once, and what a message takes in memory beside its own
_READ, _OVERHEAD = 2 << 20, 120
#: seconds for which one read waits, with one source and with several
_WAIT, _WAIT_SHARED = 0.5, 0.05
#: seconds between two looks for new partitions, and until a broker that did not answer is tried again
_REFRESH, _RETRY = 30.0, 2.0
#: from so many messages on, a batch of which none passes shows a wrong declaration rather than bad messages
_ALL_REFUSED = 100


class IngestedSource(msgspec.Struct, frozen=True, kw_only=True):
    """What one call took in of a source, and how many messages its topic has after that (None: it did not answer).

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
    """Take in the messages of the named sources (default: all with a stream) until `stop` is set: what was read by then
    is committed. `once`: what is there when the call begins.

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
        active = readers
        while active and not stop.is_set():
            for reader in active:
                _step(reader, wait, stop, once=once)
            active = [reader for reader in active if not reader.done]
        for reader in active:
            reader.commit()
        return [reader.result() for reader in readers]


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
        self._project, self._source, self._topic = project, source, topic
        self._actor, self._limits, self._progress = actor, limits, progress
        self._policy = project.policies.source(source)
        self._streams = project.streams()
        self._counts = Counter[str]()
        self._rules = Counter[str]()
        self._stack = ExitStack()
        self._consumer: Consumer | None = None
        self._opened_at = 0.0
        self._state, self._version = self._load()
        bounds = self._streams.bounds(topic)
        self._schema: Mapping[str, pl.DataType] | None = None
        #: what was read and is not committed yet, its bytes, and when its first message came
        self._pending: list[Messages] = []
        self._pending_bytes, self._pending_since = 0, 0.0
        self._positions: dict[int, int] = {}
        #: with `once`: the positions at which this call ends
        self._ends = {number: there.end for number, there in bounds.items()} if once else None
        self._forget_pending()

    @property
    def done(self) -> bool:
        """Whether everything is committed that was there when the call began."""
        if self._ends is None or self._pending:
            return False
        return all(self._positions.get(number, 0) >= end for number, end in self._ends.items())

    def step(self, wait: float) -> None:
        """Read once, for at most `wait` seconds, and commit where a batch is complete."""
        if self._consumer is None or time.monotonic() - self._opened_at > _REFRESH:
            self._open()
        if self._consumer is None or self.done:
            return
        room = self._limits.bytes - self._pending_bytes
        for messages in self._consumer.read(max(min(room, _READ), 1), wait):
            self._take(messages)
        reached = self._ends is not None and all(
            self._positions.get(number, 0) >= end for number, end in self._ends.items()
        )
        if self._pending and (
            reached
            or self._pending_bytes >= self._limits.bytes
            or time.monotonic() - self._pending_since >= self._limits.seconds
        ):
            self.commit()

    def commit(self) -> None:
        """Commit what was read: the rows, the refused messages and the positions together."""
        batch, self._pending = self._pending, []
        if not batch:
            return
        from cumulant.data.streams.records import BATCH, STREAM, StreamIngested, batch_key

        checked = self._check(batch)
        stored = self._store(batch, checked)
        state = self._state.after(stored, checked.columns)
        journal = self._project.journal()
        try:
            with journal.transaction(actor=self._actor) as transaction:
                row = transaction.put(STREAM, self._source, msgspec.to_builtins(state), expect=self._version)
                transaction.put(BATCH, batch_key(self._source, stored.number), msgspec.to_builtins(stored), expect=0)
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
        self._count(stored)
        self._forget_pending()

    def start_again(self, error: RetryableError) -> None:
        """Read on from the committed positions, after a fault that may pass."""
        self._progress(f"{self._source}: {error.message}; trying again")
        self._stack.close()
        self._consumer = None
        self._state, self._version = self._load()
        self._forget_pending()

    def result(self) -> IngestedSource:
        messages, refused = self._counts["messages"], self._counts["refused"]
        positions = {int(number): position for number, position in self._state.positions.items()}
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

    def _load(self) -> tuple[StreamState, int]:
        from cumulant.data.streams.records import StreamState

        identity = self._streams.identity(self._topic)
        state, version = find_state(self._project, self._source)
        if state is None:
            return StreamState(topic=self._topic, identity=identity), version
        if (state.topic, state.identity) != (self._topic, identity):
            before = state.topic if state.topic != self._topic else "a topic of this name that is gone"
            raise DataError(
                f"the rows of source {self._source} come from {before}, whose positions mean nothing in {self._topic}",
                subject=self._source,
                hint="declare another source for the new topic",
            )
        return state, version

    def _open(self) -> None:
        """Read from the positions so far, and new partitions from their begin."""
        self._opened_at = time.monotonic()
        bounds = self._streams.bounds(self._topic)
        fresh = {number: there.begin for number, there in bounds.items() if number not in self._positions}
        if self._consumer is not None and not fresh:
            return
        self._positions |= fresh
        self._stack.close()
        self._consumer = self._stack.enter_context(self._streams.consume(self._topic, self._positions))

    def _take(self, messages: Messages) -> None:
        self._positions[messages.partition] = messages.next
        if not messages.values:
            return
        if not self._pending:
            self._pending_since = time.monotonic()
        self._pending.append(messages)
        self._pending_bytes += sum(len(value or b"") for value in messages.values)
        self._pending_bytes += _OVERHEAD * len(messages.values)

    def _forget_pending(self) -> None:
        """Begin a batch, at the committed positions."""
        self._pending, self._pending_bytes = [], 0
        committed = {int(number): position for number, position in self._state.positions.items()}
        self._positions = committed if self._consumer is None else committed | self._positions

    def _check(self, batch: list[Messages]) -> CheckedMessages:
        from cumulant.data.parts.part import PartContext
        from cumulant.data.streams.checking import check_messages

        context = PartContext(self._source, self._policy, self._project.tables())
        checked = check_messages(batch, context, self._state.columns, self._schema)
        self._schema = checked.schema
        count = checked.refused.height
        if count >= _ALL_REFUSED and not checked.rows.height and not self._limits.accept_refused:
            rules = ", ".join(f"{rule} ({number:,})" for rule, number in checked.rules.most_common(3))
            raise ContractBreachError(
                f"source {self._source}: none of {count:,} messages of {self._topic} passes: {rules}",
                subject=self._source,
                hint="correct the declaration of the source, or take them as refused with --accept-refused",
            )
        return checked

    def _store(self, batch: list[Messages], checked: CheckedMessages) -> StreamBatch:
        from cumulant.data.streams.batches import content_of
        from cumulant.data.streams.checking import VALUE
        from cumulant.data.streams.records import StreamBatch, positions_after, table_key
        from cumulant.ports.tables import Protection

        spec, number = self._policy.spec, self._state.batches + 1
        content = content_of(batch, spec, self._state.positions)
        protect = Protection(columns=tuple(sorted(spec.personal)))
        tables, rows, refused = self._project.tables(), None, None
        if checked.rows.height:
            rows = tables.write(table_key(self._source, number, content, "rows"), checked.rows, protect=protect)
        if checked.refused.height:
            protect = Protection(columns=(VALUE,) if spec.personal else ())
            refused = tables.write(
                table_key(self._source, number, content, "refused"), checked.refused, protect=protect
            )
        return StreamBatch(
            number=number,
            content=content,
            positions=positions_after(batch),
            messages=sum(len(messages.values) for messages in batch),
            rows=rows,
            refused=refused,
            rules=dict(checked.rules),
            at=datetime.now(UTC),
        )

    def _count(self, batch: StreamBatch) -> None:
        self._counts.update(batches=1, messages=batch.messages, refused=batch.messages - batch.rows_passed)
        self._rules.update(batch.rules)
        refused = f", {self._counts['refused']:,} refused" if self._counts["refused"] else ""
        self._progress(f"{self._source}: {self._counts['messages']:,} messages of {self._topic}{refused}")
