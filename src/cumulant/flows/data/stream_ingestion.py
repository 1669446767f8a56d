"""Ingestion of streams: messages become rows of their sources, exactly once.

Processes that ingest the same source share its partitions; `stream_reader` reads and commits those of this one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError, LeaseHeldError, NotFoundError, RetryableError
from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
from cumulant.flows.data.stream_reader import IngestedSource, IngestLimits, StreamReader
from cumulant.flows.data.stream_records import streamed_sources
from cumulant.flows.ledger.actions import verb
from cumulant.ports.streams import LostMessagesError

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: seconds for which one read waits, with one source and with several
_WAIT, _WAIT_SHARED = 0.5, 0.05
#: seconds until a broker that did not answer is tried again
_RETRY = 2.0


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

    Other processes may ingest the same sources: each reads its share of the partitions. With `once` this call also
    waits until they have committed what was there.

    Raises:
        NotFoundError: there is no such source, or no such topic.
        UsageError: no source has a stream.
        DataError: messages were deleted before they were read; the topic is another one; a message fits no table.
        ContractBreachError: no message of a large batch passes; nothing of it is committed.
        EngineUnavailableError: with `once`, the broker does not answer; without, it is tried again.
        StorageError: rows cannot be stored; nothing of the batch is committed.
    """
    stop, limits = stop or threading.Event(), limits or IngestLimits()
    actor = Actor(principal.id)
    with ExitStack() as stack:
        readers = [
            stack.enter_context(_opened(StreamReader(project, name, topic, actor, limits, progress, once=once)))
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
                reader.finish()
        if errors:
            raise errors[0]
        return [reader.result() for reader in readers]


@contextmanager
def _ended_by_error(reader: StreamReader, errors: list[CumulantError], *, alone: bool) -> Iterator[None]:
    """An error of one source keeps no other from being committed. It is told at once where others go on."""
    try:
        yield
    except CumulantError as error:
        errors.append(error)
        reader.end(None if alone else error)


def _step(reader: StreamReader, wait: float, stop: threading.Event, *, once: bool) -> None:
    try:
        reader.step(wait, stop)
    except (LostMessagesError, NotFoundError):
        reader.check_identity()  # nothing was deleted of another topic of this name
        raise
    except LeaseHeldError as error:
        reader.join_again(error)
    except RetryableError as error:
        if once:
            raise
        reader.start_again(error)
        stop.wait(_RETRY)


@contextmanager
def _opened(reader: StreamReader) -> Iterator[StreamReader]:
    try:
        yield reader
    finally:
        reader.close()
