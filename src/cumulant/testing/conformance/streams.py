"""What every driver of the port `streams` keeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from cumulant.core.errors import NotFoundError, UsageError
from cumulant.ports.streams import Bounds, Consumer, LostMessagesError, Messages, Streams

#: makes a topic with that many partitions and no messages, and returns its name
NewTopic = Callable[[int], str]
#: seconds after which a message that was sent must have arrived, on a busy machine too
_PATIENCE = 60.0
_LIMIT = 1 << 20


class StreamsConformance:
    """Subclass it with the fixtures `streams`: a `Streams`, and `new_topic`: a `NewTopic`.

    `counts`: whether the position after a message is that of the next one, and the end of a partition that after its
    newest. Without, both are larger, and a reader who gets to the end has read all that was there.
    """

    counts = True

    def test_a_topic_without_messages(self, streams: Streams, new_topic: NewTopic) -> None:
        topic = new_topic(3)
        assert streams.partitions(topic) == [0, 1, 2]
        assert streams.identity(topic) == streams.identity(topic) != ""
        bounds = streams.bounds(topic)
        assert {number: there.begin for number, there in bounds.items()} == dict.fromkeys([0, 1, 2], 0)
        assert bounds == dict.fromkeys([0, 1, 2], Bounds(0, 0)) or not self.counts
        assert streams.lag(topic, {0: 0, 1: 0, 2: 0}) == {0: 0, 1: 0, 2: 0}
        with streams.consume(topic, {0: 0, 1: 0, 2: 0}) as consumer:
            assert not any(batch.values for batch in consumer.read(_LIMIT, 0.2))

    def test_messages_come_in_order_as_they_were_sent(self, streams: Streams, new_topic: NewTopic) -> None:
        topic = new_topic(2)
        sent = [b'{"n": 1}', "ä€𝄞\t".encode(), b"", b"\x00\xff" * 150_000, b"\r"]
        ends = [streams.produce(topic, [value], partition=1) for value in sent]
        assert ends == sorted(set(ends))
        end = streams.bounds(topic)[1].end
        assert end == ends[-1] or (end > ends[-1] and not self.counts)
        assert streams.lag(topic, {0: 0, 1: 0}) == {0: 0, 1: 5}
        with streams.consume(topic, {0: 0, 1: 0}) as consumer:
            values, positions, after = _read(consumer, 5)
        assert [value or b"" for value in values] == sent
        assert positions == sorted(set(positions))
        assert positions == [0, *ends[:-1]] or not self.counts
        with streams.consume(topic, {1: after[1]}) as consumer:
            assert not any(batch.values for batch in consumer.read(_LIMIT, 0.2))
        assert after == {1: ends[-1]} or not self.counts

    def test_a_reader_gets_to_the_end_that_was_there(self, streams: Streams, new_topic: NewTopic) -> None:
        topic = new_topic(2)
        streams.produce(topic, [b"a", b"b"], partition=1)
        ends = {partition: there.end for partition, there in streams.bounds(topic).items()}
        positions, values = {0: 0, 1: 0}, list[bytes | None]()
        deadline = time.monotonic() + _PATIENCE
        with streams.consume(topic, positions) as consumer:
            while any(positions[partition] < end for partition, end in ends.items()) and time.monotonic() < deadline:
                for batch in consumer.read(_LIMIT, 0.2):
                    values += batch.values
                    assert batch.next > positions[batch.partition] or not batch.values
                    positions[batch.partition] = batch.next
        assert all(positions[partition] >= end for partition, end in ends.items())
        assert values == [b"a", b"b"]

    def test_reading_goes_on_from_any_position(self, streams: Streams, new_topic: NewTopic) -> None:
        topic = new_topic(1)
        ends = [streams.produce(topic, [b"%d" % number], partition=0) for number in range(6)]
        for read, end in enumerate([0, *ends]):
            with streams.consume(topic, {0: end}) as consumer:
                values, _, after = _read(consumer, 6 - read)
            assert values == [b"%d" % number for number in range(read, 6)]
            assert after == ({} if read == 6 else {0: ends[-1]}) or not self.counts
            assert streams.lag(topic, {0: end}) == {0: 6 - read}

    def test_a_limit_divides_what_is_there(self, streams: Streams, new_topic: NewTopic) -> None:
        topic = new_topic(2)
        # large ones after small ones: the next size cannot be told from those before
        sent = [b"%06d" % number * (5 if number < 350 else 2000) for number in range(400)]
        for partition in (0, 1):
            streams.produce(topic, sent, partition=partition)
        read: dict[int, list[bytes | None]] = {0: [], 1: []}
        deadline, batches = time.monotonic() + _PATIENCE, 0
        with streams.consume(topic, {0: 0, 1: 0}) as consumer:
            while sum(map(len, read.values())) < 800 and time.monotonic() < deadline:
                batch = consumer.read(30_000, 1.0)
                batches += any(part.values for part in batch)
                assert sum(len(value or b"") for part in batch for value in part.values) <= 30_000 + 16 * 12_000
                for part in batch:
                    read[part.partition] += part.values
        assert read == {0: sent, 1: sent}
        assert batches > 4

    def test_readers_do_not_affect_each_other(self, streams: Streams, new_topic: NewTopic) -> None:
        topic = new_topic(1)
        streams.produce(topic, [b"a", b"b"], partition=0)
        with streams.consume(topic, {0: 0}) as first, streams.consume(topic, {0: 0}) as second:
            assert _read(first, 2)[0] == [b"a", b"b"]
            assert _read(second, 2)[0] == [b"a", b"b"]
            end = streams.produce(topic, [b"c"], partition=0)
            assert _read(first, 1)[0] == [b"c"]
            assert _read(second, 1)[2] == {0: end} or not self.counts

    def test_a_reader_waits_for_messages(self, streams: Streams, new_topic: NewTopic) -> None:
        topic = new_topic(1)
        with streams.consume(topic, {0: 0}) as consumer:
            assert not any(batch.values for batch in consumer.read(_LIMIT, 0.1))
            sender = threading.Timer(0.3, streams.produce, (topic, [b"late"]), {"partition": 0})
            sender.start()
            values, _, _ = _read(consumer, 1)
            sender.join()
        assert values == [b"late"]

    def test_writers_at_once_lose_nothing(self, streams: Streams, new_topic: NewTopic) -> None:
        topic = new_topic(1)

        def send(writer: int) -> None:
            for number in range(20):
                streams.produce(topic, [b"%d-%d" % (writer, number)], partition=0)

        threads = [threading.Thread(target=send, args=(writer,)) for writer in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with streams.consume(topic, {0: 0}) as consumer:
            values, _, _ = _read(consumer, 80)
        for writer in range(4):
            own = [value for value in values if value is not None and value.startswith(b"%d-" % writer)]
            assert own == [b"%d-%d" % (writer, number) for number in range(20)]

    def test_a_topic_that_is_not_there(self, streams: Streams, new_topic: NewTopic) -> None:
        absent = f"{new_topic(1)}-absent"
        with pytest.raises(NotFoundError):
            streams.partitions(absent)
        with pytest.raises(NotFoundError):
            streams.identity(absent)
        with pytest.raises(NotFoundError):
            streams.bounds(absent)
        with pytest.raises(NotFoundError):
            streams.lag(absent, {0: 0})
        with pytest.raises(NotFoundError), streams.consume(absent, {0: 0}):
            pass

    def test_a_partition_that_is_not_there(self, streams: Streams, new_topic: NewTopic) -> None:
        topic = new_topic(1)
        with pytest.raises(NotFoundError), streams.consume(topic, {7: 0}):
            pass
        with pytest.raises(NotFoundError):
            streams.lag(topic, {7: 0})

    @pytest.mark.parametrize("topic", ["", "a/b", "..", "a b", "x" * 300])
    def test_a_name_that_no_topic_has(self, streams: Streams, topic: str) -> None:
        with pytest.raises(UsageError):
            streams.partitions(topic)

    def test_a_position_beyond_the_end(self, streams: Streams, new_topic: NewTopic) -> None:
        topic = new_topic(1)
        end = streams.produce(topic, [b"one"], partition=0)
        with pytest.raises(LostMessagesError, match="not the topic"), streams.consume(topic, {0: end + 1}):
            pass


def _read(consumer: Consumer, count: int) -> tuple[list[bytes | None], list[int], dict[int, int]]:
    """The next `count` messages: values, positions, and the positions after them. Fails where more or fewer come."""
    batches: list[Messages] = []
    deadline = time.monotonic() + _PATIENCE
    while sum(len(batch.values) for batch in batches) < count and time.monotonic() < deadline:
        batches += consumer.read(_LIMIT, 1.0)
    values = _joined([batch.values for batch in batches])
    assert len(values) == count
    return values, _joined([batch.positions for batch in batches]), _after(batches)


def _after(batches: Sequence[Messages]) -> dict[int, int]:
    return {batch.partition: batch.next for batch in batches if batch.values}


def _joined(lists: Sequence[Sequence[object]]) -> list:  # type: ignore[type-arg]
    return [item for items in lists for item in items]
