"""What was ingested of the streams of a project, as the journal knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import DataError, NotFoundError, UsageError, not_found
from cumulant.ports.streams import MarkedPositions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cumulant.data.files.listing import FileListing
    from cumulant.data.snapshot import Snapshot
    from cumulant.data.streams.records import StreamBatch, StreamState
    from cumulant.ports.journal import Row, Transaction
    from cumulant.ports.streams import Streams
    from cumulant.project.project import Project


def streamed_sources(project: Project, names: Iterable[str] = ()) -> dict[str, str]:
    """The topic of each of these sources (default: all that have a stream).

    Raises:
        NotFoundError: there is no such source.
        UsageError: a source that is named has no stream, or none has.
    """
    declared = project.policies.sources
    topics = {name: policy.spec.stream for name, policy in declared.items() if policy.spec.stream is not None}
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in declared:
            raise not_found("source", name, declared)
        if name not in topics:
            raise UsageError(
                f"source {name} has no stream", subject=name, hint="`cumulant data validate` reads sources of files"
            )
    if not topics:
        raise UsageError(
            "no source of the project has a stream", hint="name a topic: `stream: TOPIC` under `data: SOURCE:`"
        )
    return {name: topics[name] for name in chosen or topics}


def only_streamed_source(project: Project) -> str:
    """The source with a stream, where there is one.

    Raises:
        UsageError: none has a stream, or several have.
    """
    names = list(streamed_sources(project))
    if len(names) > 1:
        raise UsageError("several sources have a stream", hint=f"name one: {', '.join(names)}")
    return names[0]


def find_state(project: Project, source: str) -> tuple[StreamState | None, int]:
    """How far the stream of a source was ingested, and the version of that row; None and 0 where nothing was."""
    from cumulant.data.streams.records import STREAM, StreamState

    row = project.journal().get(STREAM, source)
    return (None, 0) if row is None else (msgspec.convert(row.value, StreamState), row.version)


def check_topic(streams: Streams, source: str, topic: str, state: StreamState) -> None:
    """Raises DataError: what was ingested is of another topic, also of one of the same name that was deleted."""
    same = (state.topic, state.identity) == (topic, streams.identity(topic))
    if same and state.marks:
        there = marks_of(streams, topic, {number: state.positions[number] for number in state.marks})
        same = all(there.get(number, mark) == mark for number, mark in state.marks.items())
    if not same:
        before = state.topic if state.topic != topic else "a topic of this name that is gone"
        raise DataError(
            f"the rows of source {source} come from {before}, whose positions mean nothing in {topic}",
            subject=source,
            hint="declare another source for the new topic",
        )


def marks_of(streams: Streams, topic: str, positions: Mapping[str, int]) -> dict[str, str]:
    """The marks of these positions, of a driver that has some."""
    if not isinstance(streams, MarkedPositions):
        return {}
    marks = streams.marks(topic, {int(number): position for number, position in positions.items()})
    return {str(number): mark for number, mark in marks.items()}


def read_batches(project: Project, source: str) -> list[StreamBatch]:
    """The batches of a source in order."""
    from cumulant.data.streams.records import BATCH

    return [batch_of(row) for row in project.journal().rows(BATCH, f"{source}/")]


def find_batch(project: Project, source: str, number: int) -> StreamBatch | None:
    """The batch of a source with this number; None where there is none."""
    from cumulant.data.streams.records import BATCH, batch_key

    row = project.journal().get(BATCH, batch_key(source, number))
    return None if row is None else batch_of(row)


def batches_after(project: Project, source: str, number: int, last: int, *, rows: int) -> list[StreamBatch]:
    """The batches after this number up to the `last` one, until they have so many rows."""
    batches, count = [], 0
    for following in range(number + 1, last + 1):
        batch = find_batch(project, source, following)
        if batch is None:
            continue
        batches.append(batch)
        count += batch.rows_passed
        if count >= rows:
            break
    return batches


def last_batches(project: Project, snapshots: Mapping[str, Snapshot]) -> dict[str, int]:
    """Of sources of streams the last batch whose rows a snapshot has."""
    from cumulant.data.streams.batches import last_batch

    streamed = [name for name in snapshots if project.policies.source(name).spec.stream is not None]
    return {name: last_batch(file.url for file in snapshots[name].files) for name in streamed}


def list_ingested(project: Project, source: str) -> FileListing:
    """The batches of a source of which a snapshot is made.

    Raises:
        NotFoundError: no row was ingested yet.
    """
    from cumulant.data.streams.batches import list_batches

    topic = streamed_sources(project, [source])[source]
    listing = list_batches(topic, read_batches(project, source))
    if not listing.files:
        raise NotFoundError(
            f"no message of {topic} was ingested yet for source {source}",
            subject=source,
            hint=f"`{project.line(f'ingest run --once --source {source}')}` ingests what is there",
        )
    return listing


def add_batch(transaction: Transaction, source: str, topic: str, batch: StreamBatch) -> None:
    """Add a batch with its event; no other may have its number."""
    from cumulant.data.streams.records import BATCH, StreamIngested, batch_key, batch_value

    transaction.put(BATCH, batch_key(source, batch.number), batch_value(batch), expect=0)
    transaction.emit(
        StreamIngested(
            source=source,
            topic=topic,
            batch=batch.number,
            messages=batch.messages,
            rows=batch.rows_passed,
            refused=batch.messages - batch.rows_passed,
            positions=batch.positions,
        )
    )


def batch_of(row: Row) -> StreamBatch:
    """The batch of a journal row."""
    from cumulant.data.streams.records import read_batch

    return read_batch(row.value)
