"""A reader of shards: one request at a time, each shard as often as others may read it too."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from cumulant.drivers.kinesis.connection import KinesisConnection, error_code, is_throttled
from cumulant.drivers.kinesis.positions import ShardPosition
from cumulant.ports.streams import LostMessagesError, Messages

#: seconds between two reads of a shard that has no more, of whose five reads a second others need some; and after
#: which one is tried again that is throttled, doubled up to the second number
_PAUSE, _SLOWEST = 1.0, 8.0
#: the most messages of one request; an answer has 10 MiB at most
_MOST = 10_000
#: milliseconds after which the position of a shard moves that has no messages
_MOVED = 600_000


def now_millis() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def shard_iterator(client: Any, topic: str, identity: str, place: ShardPosition) -> str:
    """Where the service reads on from a position.

    Raises:
        LostMessagesError: the shard never had the message that was read last.
    """
    start: dict[str, str] = {"ShardIteratorType": "TRIM_HORIZON"}
    if place.last is not None:
        start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": str(place.last)}
    try:
        answer = client.get_shard_iterator(StreamName=topic, ShardId=identity, **start)
    except ClientError as error:
        if place.last is None or error_code(error) not in ("InvalidArgumentException", "ResourceNotFoundException"):
            raise
        raise LostMessagesError(
            f"{topic} is not the topic that was read before: {identity} has no message {place.last}",
            subject=topic,
            hint="a stream that was deleted and made anew needs a new name",
        ) from None
    return str(answer["ShardIterator"])


class _Shard:
    """A shard that is read. `due`: when it may be read again, by the monotonic clock; `pause`: until then."""

    def __init__(self, number: int, identity: str, place: ShardPosition) -> None:
        self.number, self.identity, self.place = number, identity, place
        self.iterator: str | None = None
        self.due, self.pause = 0.0, _PAUSE
        #: whether a position at the newest message was returned since the last messages, or since it was opened
        self.moved = False


class KinesisConsumer:
    """Reads shards in turn. `parents`: of each shard, those that are read before it.

    Raises:
        LostMessagesError: see `shard_iterator`.
    """

    def __init__(
        self,
        connection: KinesisConnection,
        topic: str,
        identities: Mapping[int, str],
        places: Mapping[int, ShardPosition],
        parents: Mapping[int, frozenset[int]],
    ) -> None:
        self._connection, self._topic = connection, topic
        self._parents = dict(parents)
        self._shards = {number: _Shard(number, identities[number], place) for number, place in places.items()}
        #: what was received and is not returned yet, of one shard, and the position after it
        self._received: list[tuple[int, bytes]] = []
        self._owner: tuple[_Shard, ShardPosition] | None = None
        for shard in self._shards.values():
            if not self._parents[shard.number]:
                self._open(shard)

    def read(self, limit: int, seconds: float) -> list[Messages]:
        deadline = time.monotonic() + seconds
        while True:
            if self._received:
                return [self._part(limit)]
            shard = min(self._readable(), key=lambda shard: shard.due, default=None)
            wait = (deadline if shard is None else min(shard.due, deadline)) - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            if shard is None or shard.due > time.monotonic():
                return []
            with self._connection.errors(self._topic):
                moved = self._fetch(shard)
            if moved is not None:
                return [moved]

    def _readable(self) -> list[_Shard]:
        return [shard for shard in self._shards.values() if not self._parents[shard.number]]

    def _open(self, shard: _Shard) -> None:
        shard.iterator = shard_iterator(self._connection.client, self._topic, shard.identity, shard.place)

    def _fetch(self, shard: _Shard) -> Messages | None:
        """Receive what the shard has next; the position alone where it moved without messages."""
        began = now_millis()
        try:
            if shard.iterator is None:
                self._open(shard)
            answer = self._connection.client.get_records(ShardIterator=shard.iterator, Limit=_MOST)
        except ClientError as error:
            if error_code(error) == "ExpiredIteratorException":
                shard.iterator = None
                return None
            if not is_throttled(error):
                raise
            shard.due = time.monotonic() + shard.pause
            shard.pause = min(shard.pause * 2, _SLOWEST)
            return None
        behind = int(answer.get("MillisBehindLatest") or 0)
        records, shard.iterator, shard.pause = answer["Records"], answer.get("NextShardIterator"), _PAUSE
        shard.due = 0.0 if behind or shard.iterator is None else time.monotonic() + _PAUSE
        until = max(shard.place.until, began - behind)
        ended = shard.iterator is None
        if records:
            self._received = [(int(record["SequenceNumber"]), record["Data"]) for record in reversed(records)]
            self._owner = (shard, ShardPosition(until, self._received[0][0], ended))
            shard.moved = False
            return None
        if not ended and (behind or (shard.moved and until - shard.place.until < _MOVED)):
            return None
        shard.moved = True
        self._move(shard, ShardPosition(until, shard.place.last, ended))
        return Messages(shard.number, [], [], shard.place.number)

    def _part(self, limit: int) -> Messages:
        """The next of the received messages, at least one."""
        if self._owner is None:
            raise RuntimeError("messages without a shard")
        shard, after = self._owner
        values: list[bytes | None] = []
        numbers: list[int] = []
        size = 0
        while self._received and (not values or size + len(self._received[-1][1]) <= limit):
            number, value = self._received.pop()
            values.append(value)
            numbers.append(number)
            size += len(value)
        self._move(shard, after if not self._received else ShardPosition(shard.place.until, numbers[-1]))
        return Messages(shard.number, values, numbers, shard.place.number)

    def _move(self, shard: _Shard, place: ShardPosition) -> None:
        """Note how far a shard was read; after its end its children may be."""
        shard.place = place
        if place.ended:
            del self._shards[shard.number]
            self._parents = {number: parents - {shard.number} for number, parents in self._parents.items()}
