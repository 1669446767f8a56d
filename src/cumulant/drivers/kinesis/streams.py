"""Streams of Kinesis: a partition is a shard, and a child of a shard is read after it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from cumulant.core.errors import NotFoundError, UsageError
from cumulant.drivers.kinesis.connection import KinesisConnection, error_code, is_throttled
from cumulant.drivers.kinesis.consumer import KinesisConsumer, now_millis, shard_iterator
from cumulant.drivers.kinesis.positions import ShardPosition, position_at, shard_position
from cumulant.ports.secrets import Secrets
from cumulant.ports.streams import Bounds, LostMessagesError, no_partition

_STREAM = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._-]{1,128}")
_SHARD = re.compile(r"shardId-(\d+)")
#: the most messages of a shard that are counted as lag, since counting is reading
_MOST_COUNTED = 1000
#: empty answers in a row, with messages behind them, after which counting ends
_MOST_EMPTY = 5
#: the most messages and bytes of one request to write, and seconds until those that were refused are sent again
_MOST_PUT, _MOST_PUT_BYTES, _PUT_PAUSE = 500, 4 << 20, 0.5
_PUT_TRIES = 20


class _Shard(NamedTuple):
    identity: str
    #: the lowest key of those that go there
    key: str
    closed: bool
    parents: tuple[int, ...]


class KinesisStreams:
    """The streams of one region."""

    def __init__(self, url: str, *, secrets: Secrets | None = None) -> None:
        self._connection = KinesisConnection(url, secrets)

    def identity(self, topic: str) -> str:
        described = self._describe(topic)
        created: datetime = described["StreamCreationTimestamp"]
        return f"{described['StreamARN']} {int(created.timestamp() * 1000)}"

    def partitions(self, topic: str) -> list[int]:
        return sorted(self._shards(topic))

    def bounds(self, topic: str) -> dict[int, Bounds]:
        now = now_millis()
        return {number: Bounds(0, position_at(now)) for number in self.partitions(topic)}

    @contextmanager
    def consume(self, topic: str, positions: Mapping[int, int]) -> Iterator[KinesisConsumer]:
        shards = self._shards(topic)
        places = {number: shard_position(position) for number, position in positions.items()}
        kept_since = now_millis() - int(self._describe(topic)["RetentionPeriodHours"]) * 3_600_000
        unread: dict[int, ShardPosition] = {}
        for number, place in places.items():
            if place.ended:
                continue
            if number not in shards:
                raise _lost(topic, number) if place.until else no_partition(topic, number, shards)
            if place.until and place.until < kept_since and not self._is_there(topic, shards[number], place):
                raise _lost(topic, number)
            unread[number] = place
        with self._connection.errors(topic):
            consumer = KinesisConsumer(
                self._connection,
                topic,
                {number: shards[number].identity for number in unread},
                unread,
                {number: frozenset(shards[number].parents) & unread.keys() for number in unread},
            )
        yield consumer

    def produce(self, topic: str, values: Iterable[bytes], *, partition: int) -> int:
        shards = self._shards(topic)
        if partition not in shards:
            raise no_partition(topic, partition, shards)
        if shards[partition].closed:
            hint = "write to one of its children"
            raise UsageError(f"shard {partition} of {topic} was split or merged", subject=topic, hint=hint)
        last: int | None = None
        for chunk in _chunks(values):
            last = max(self._put(topic, chunk, shards[partition].key), last or 0)
        return ShardPosition(now_millis() - 1, last).number  # others may have written until now

    def lag(self, topic: str, positions: Mapping[int, int]) -> dict[int, int]:
        shards = self._shards(topic)
        lags = {}
        for number, position in positions.items():
            place = shard_position(position)
            if number not in shards and not place.ended:
                raise no_partition(topic, number, shards)
            lags[number] = 0 if place.ended else self._count(topic, shards[number].identity, place)
        return lags

    def close(self) -> None:
        self._connection.close()

    def _describe(self, topic: str) -> Any:
        _check_name(topic)
        with self._connection.errors(topic):
            answer = self._connection.client.describe_stream_summary(StreamName=topic)
        described = answer["StreamDescriptionSummary"]
        if described["StreamStatus"] == "DELETING":
            raise NotFoundError(f'stream "{topic}" is being deleted', subject=topic)
        return described

    def _shards(self, topic: str) -> dict[int, _Shard]:
        _check_name(topic)
        listed: list[Any] = []
        with self._connection.errors(topic):
            answer = self._connection.client.list_shards(StreamName=topic)
            listed += answer["Shards"]
            while token := answer.get("NextToken"):
                answer = self._connection.client.list_shards(NextToken=token)
                listed += answer["Shards"]
        shards = {}
        for shard in listed:
            parents = (shard.get("ParentShardId"), shard.get("AdjacentParentShardId"))
            shards[_number(shard["ShardId"])] = _Shard(
                shard["ShardId"],
                shard["HashKeyRange"]["StartingHashKey"],
                "EndingSequenceNumber" in shard["SequenceNumberRange"],
                tuple(_number(parent) for parent in parents if parent),
            )
        return shards

    def _is_there(self, topic: str, shard: _Shard, place: ShardPosition) -> bool:
        """Whether the message that was read last is still kept, so that none after it is gone."""
        if place.last is None:
            return False
        client = self._connection.client
        with self._connection.errors(topic):
            try:
                answer = client.get_shard_iterator(
                    StreamName=topic,
                    ShardId=shard.identity,
                    ShardIteratorType="AT_SEQUENCE_NUMBER",
                    StartingSequenceNumber=str(place.last),
                )
                records = client.get_records(ShardIterator=answer["ShardIterator"], Limit=1)["Records"]
            except ClientError as error:
                if error_code(error) in ("InvalidArgumentException", "ResourceNotFoundException"):
                    return False
                raise
        return bool(records) and int(records[0]["SequenceNumber"]) == place.last

    def _put(self, topic: str, values: Sequence[bytes], key: str) -> int:
        """Write messages in order, and return the last number. Those that the stream refuses for its load are sent
        again, after the others.
        """
        waiting, last = list(values), 0
        for _ in range(_PUT_TRIES):
            entries = [{"Data": value, "PartitionKey": key, "ExplicitHashKey": key} for value in waiting]
            with self._connection.errors(topic):
                results = self._connection.client.put_records(StreamName=topic, Records=entries)["Records"]
            last = max([last, *(int(result["SequenceNumber"]) for result in results if "SequenceNumber" in result)])
            waiting = [value for value, result in zip(waiting, results, strict=True) if "ErrorCode" in result]
            if not waiting:
                return last
            time.sleep(_PUT_PAUSE)
        with self._connection.errors(topic):
            raise ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "PutRecords")

    def _count(self, topic: str, identity: str, place: ShardPosition) -> int:
        """The messages from a position on, at most so many as are counted."""
        count = empty = 0
        with self._connection.errors(topic):
            client = self._connection.client
            iterator: str | None = shard_iterator(client, topic, identity, place)
            while iterator is not None and count < _MOST_COUNTED and empty < _MOST_EMPTY:
                try:
                    answer = client.get_records(ShardIterator=iterator, Limit=_MOST_COUNTED - count)
                except ClientError as error:
                    if not count or not is_throttled(error):
                        raise
                    break  # there are so many at least, and consumers need the reads
                count += len(answer["Records"])
                empty = 0 if answer["Records"] else empty + 1
                iterator = answer.get("NextShardIterator") if answer.get("MillisBehindLatest") else None
        return count


def _chunks(values: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Messages by as many as one request takes."""
    chunk: list[bytes] = []
    size = 0
    for value in values:
        if chunk and (len(chunk) == _MOST_PUT or size + len(value) > _MOST_PUT_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(value)
        size += len(value)
    if chunk:
        yield chunk


def _lost(topic: str, number: int) -> LostMessagesError:
    return LostMessagesError(
        f"messages of {topic} may be gone that were not read: shard {number} was read longer ago than the stream keeps "
        "messages",
        subject=topic,
        hint="keep messages longer than ingestion may stand still, and declare another source to read what is there",
    )


def _check_name(topic: str) -> None:
    if not _STREAM.fullmatch(topic):
        hint = "letters, digits, `.`, `_` and `-`, at most 128"
        raise UsageError(f'no stream can be named "{topic[:300]}"', subject=topic[:300], hint=hint)


def _number(identity: str) -> int:
    match = _SHARD.fullmatch(identity)
    if match is None:
        raise ValueError(identity)
    return int(match[1])
