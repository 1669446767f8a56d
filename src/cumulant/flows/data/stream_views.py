"""Streams for readers: how far each was ingested, and the messages that were refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.flows.data.stream_lag import newest_lags, source_reports
from cumulant.flows.data.stream_membership import members_of, owned
from cumulant.flows.data.stream_records import check_topic, find_state, read_batches, streamed_sources
from cumulant.flows.features.stream_status import OnlineStatus, online_status
from cumulant.flows.ledger.actions import verb

if TYPE_CHECKING:
    import polars as pl

    from cumulant.data.streams.records import StreamState
    from cumulant.flows.data.stream_lag import StreamReport
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project


class PartitionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The next position to read of a partition, its end, and the messages between them."""

    partition: int
    position: int
    end: int
    lag: int


class StreamConsumer(msgspec.Struct, frozen=True, kw_only=True):
    """A process that ingests a stream, and the partitions that it reads: none while others have them all."""

    process: str
    partitions: tuple[int, ...]


class StreamStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a source's stream was ingested. `lag` is None, and `error` says why, where the topic cannot be
    read from there on.

    `consumers`: also those of other machines that were killed, until others take their partitions; `watermark`: as far
    as event time has come; `late`: rows that were too late for online features; `online`: the tables of these.
    """

    source: str
    topic: str
    batches: int = 0
    messages: int = 0
    rows: int = 0
    refused: int = 0
    at: datetime | None = None
    lag: int | None = None
    partitions: tuple[PartitionStatus, ...] = ()
    watermark: datetime | None = None
    late: int = 0
    online: tuple[OnlineStatus, ...] = ()
    consumers: tuple[StreamConsumer, ...] = ()
    error: str | None = None


@verb("data.show")
def stream_status(project: Project, *, principal: Principal, sources: Iterable[str] = ()) -> list[StreamStatus]:
    """How far the streams of these sources (default: all) were ingested.

    Raises:
        NotFoundError: there is no such source.
        UsageError: no source has a stream.
    """
    del principal
    return [_status(project, source, topic) for source, topic in streamed_sources(project, sources).items()]


def _status(project: Project, source: str, topic: str) -> StreamStatus:
    state, _ = find_state(project, source)
    status = StreamStatus(source=source, topic=topic)
    if state is not None:
        from cumulant.data.streams.event_times import watermark

        counts = {name: getattr(state, name) for name in ("batches", "messages", "rows", "refused", "at", "late")}
        moment = watermark(state, project.policies.source(source), datetime.now(UTC))
        online = online_status(project, source, state)
        consumers = _consumers(project, source, state)
        status = msgspec.structs.replace(status, **counts, watermark=moment, online=online, consumers=consumers)
    try:
        streams = project.streams()
        if state is not None:
            check_topic(streams, source, topic, state)
        bounds = streams.bounds(topic)
        stored = {} if state is None else state.positions
        positions = {number: stored.get(str(number), there.begin) for number, there in bounds.items()}
        with streams.consume(topic, positions):  # refuses what ingestion would refuse: positions that are not there
            lags = streams.lag(topic, positions)
    except CumulantError as error:
        return msgspec.structs.replace(status, error=project.vault.redact(error.full_text))
    partitions = tuple(
        PartitionStatus(partition=number, position=positions[number], end=there.end, lag=lags[number])
        for number, there in bounds.items()
    )
    return msgspec.structs.replace(status, lag=sum(lags.values()), partitions=partitions)


def _consumers(project: Project, source: str, state: StreamState) -> tuple[StreamConsumer, ...]:
    members = members_of(project.journal(), source)
    consumers = [
        StreamConsumer(process=str(record.holder), partitions=tuple(sorted(owned(state, member))))
        for member, record in members.items()
    ]
    return tuple(sorted(consumers, key=lambda consumer: (consumer.partitions, consumer.process)))


class StreamProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal knows of a source's stream. `rules`: the refused messages by rule, most first.

    `consumers`: processes that report what waits; `waiting`: messages that were not ingested when they last did, and
    `since` when the oldest of them has been there. None where no process ingests.
    """

    source: str
    topic: str
    messages: int = 0
    rows: int = 0
    refused: int = 0
    rules: dict[str, int] = {}
    late: int = 0
    at: datetime | None = None
    consumers: int = 0
    waiting: int | None = None
    since: datetime | None = None


@verb("data.show")
def stream_progress(project: Project, *, principal: Principal) -> list[StreamProgress]:
    """The streams of all sources as the journal has them: no broker is asked, which might not answer."""
    del principal
    reports = source_reports(project.journal())
    return [
        _progress(project, name, policy.spec.stream, reports.get(name, []))
        for name, policy in project.policies.sources.items()
        if policy.spec.stream is not None
    ]


def _progress(project: Project, source: str, topic: str, reports: Sequence[StreamReport]) -> StreamProgress:
    state, _ = find_state(project, source)
    progress = StreamProgress(source=source, topic=topic)
    if state is not None:
        counts = {name: getattr(state, name) for name in ("messages", "rows", "refused", "late", "at")}
        rules = dict(sorted(state.rules.items(), key=lambda item: (-item[1], item[0])))
        progress = msgspec.structs.replace(progress, **counts, rules=rules)
    if not reports:
        return progress
    lags = newest_lags(reports).values()
    since = min((lag.since for lag in lags if lag.since is not None), default=None)
    waiting = sum(lag.waiting for lag in lags)
    return msgspec.structs.replace(progress, consumers=len(reports), waiting=waiting, since=since)


class RefusedMessages(msgspec.Struct, frozen=True, kw_only=True):
    """The newest refused messages of a source (`frame`: `rule`, `partition`, `position`, `value`), of `total`."""

    total: int
    rules: dict[str, int]
    frame: pl.DataFrame


@verb("data.quarantine", personal=True)
def refused_messages(
    project: Project, source: str, *, principal: Principal, limit: int | None = None
) -> RefusedMessages:
    """The refused messages of a source, newest batch first; without their values where the source has personal columns.

    Raises:
        NotFoundError: there is no such source.
        UsageError: it has no stream.
    """
    import polars as pl

    from cumulant.data.row_columns import RULE
    from cumulant.data.streams.checking import PARTITION, POSITION, VALUE

    del principal
    streamed_sources(project, [source])
    personal = bool(project.policies.source(source).spec.personal)
    value = pl.lit("(personal)") if personal else pl.col(VALUE).map_elements(_text, return_dtype=pl.String)
    columns = [pl.col(RULE), pl.col(PARTITION), pl.col(POSITION), value.alias(VALUE)]
    frames, rules, rows = [], dict[str, int](), 0
    for batch in reversed(read_batches(project, source)):
        if batch.refused is None:
            continue
        for rule, count in batch.rules.items():
            rules[rule] = rules.get(rule, 0) + count
        if limit is None or rows < limit:
            frames.append(batch.refused.scan(project.tables()).collect().select(columns))
            rows += batch.refused.rows
    schema = {RULE: pl.String, PARTITION: pl.Int64, POSITION: pl.Int64, VALUE: pl.String}
    frame = pl.concat(frames) if frames else pl.DataFrame(schema=schema)
    frame = frame.rename({name: name.strip("_") for name in schema})
    return RefusedMessages(total=sum(rules.values()), rules=rules, frame=frame if limit is None else frame.head(limit))


@verb("data.show", personal=True)
def late_rows(project: Project, source: str, *, principal: Principal, limit: int | None = None) -> pl.DataFrame:
    """The rows of a source that were too late for online features, newest batch first; personal columns as hashes.

    Raises:
        NotFoundError: there is no such source.
        UsageError: it has no stream.
    """
    import polars as pl

    from cumulant.data.masking import mask_frame
    from cumulant.data.row_columns import LATE

    del principal
    streamed_sources(project, [source])
    frames, count = list[pl.DataFrame](), 0
    for batch in reversed(read_batches(project, source)):
        if batch.rows is not None and batch.late and (limit is None or count < limit):
            stored = batch.rows.scan(project.tables())
            if LATE in stored.collect_schema():
                frames.append(stored.filter(pl.col(LATE)).drop(LATE).collect())
                count += frames[-1].height
    if not frames:
        return pl.DataFrame()
    frame = pl.concat(frames, how="diagonal_relaxed")
    personal = [name for name in project.policies.source(source).spec.personal if name in frame.columns]
    masked = mask_frame(frame, personal, project.salt()) if personal else frame
    return masked if limit is None else masked.head(limit)


def _text(value: bytes) -> str:
    return value.decode("utf-8", errors="replace")
