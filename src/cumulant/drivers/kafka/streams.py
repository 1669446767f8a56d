"""Topics of Kafka: partitions are assigned from the caller's positions, and no consumer group holds any.

A position is an offset. Messages of transactions that were aborted are not read.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]  # one of them is re-exported unsaid

from cumulant.core.errors import (
    CredentialsError,
    CumulantError,
    EngineUnavailableError,
    NotFoundError,
    StorageError,
    UsageError,
)
from cumulant.drivers.kafka.location import parse_kafka_url
from cumulant.ports.secrets import Secrets
from cumulant.ports.streams import Bounds, LostMessagesError, Messages, check_position, no_partition

_TOPIC = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._-]{1,249}")
#: seconds for one answer of a broker, and until a message is written
_ANSWER, _WRITTEN = 15.0, 60.0
#: seconds after which a user who was refused is not tried again: a broker that starts may not know its users yet
_LOGIN = 5.0
#: seconds between two questions while a partition has no leader
_PAUSE = 0.1
#: seconds for which a broker that has come back may not know its topics
_STARTING = 30.0
#: the most messages of one read, those that are fetched at once, and what the client holds ahead of its reader
_MOST, _AT_ONCE, _AHEAD_KIB = 20_000, 16, 32 << 10
_GONE = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
_OUT_OF_RANGE = {KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET}
_REFUSED = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
}
#: while a partition gets another leader, and just after it was made
_ELECTING = {KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION}
_AWAY = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.BROKER_NOT_AVAILABLE,
} | _ELECTING


class KafkaStreams:
    """Clients of one cluster, made on first use."""

    def __init__(self, url: str, *, secrets: Secrets | None = None) -> None:
        self._address, self._secrets = parse_kafka_url(url), secrets
        self._lock, self._denied = threading.Lock(), threading.Event()
        #: when the brokers were last away, by the monotonic clock: one that has just started knows no topic yet
        self._away_at = -_STARTING
        self._asking: Consumer | None = None
        self._admin: AdminClient | None = None
        self._writing: Producer | None = None

    def identity(self, topic: str) -> str:
        self.partitions(topic)
        with self._errors(topic):
            answers = self._administration().describe_topics(TopicCollection([topic]), request_timeout=_ANSWER)
            try:
                return str(answers[topic].result(timeout=_ANSWER).topic_id)
            except TimeoutError as error:  # the broker that was asked died before it answered
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error

    def partitions(self, topic: str) -> list[int]:
        if not _TOPIC.fullmatch(topic):
            hint = "letters, digits, `.`, `_` and `-`, at most 249"
            raise UsageError(f'no topic can be named "{topic[:300]}"', subject=topic[:300], hint=hint)
        with self._errors(topic):
            metadata = self._describe(topic)
            if metadata.error is not None:
                raise KafkaException(metadata.error)
        return sorted(metadata.partitions)

    def bounds(self, topic: str) -> dict[int, Bounds]:
        bounds = {}
        for partition in self.partitions(topic):
            with self._errors(topic):
                bounds[partition] = self._bounds(TopicPartition(topic, partition))
        return bounds

    @contextmanager
    def consume(self, topic: str, positions: Mapping[int, int]) -> Iterator[KafkaConsumer]:
        bounds = self.bounds(topic)
        for partition, position in positions.items():
            check_position(topic, partition, position, _of(topic, partition, bounds))
        away = threading.Event()
        consumer = self._new_consumer(away)
        try:
            with self._errors(topic):
                consumer.assign([TopicPartition(topic, number, offset) for number, offset in positions.items()])
            yield KafkaConsumer(consumer, topic, self._errors, away)
        finally:
            consumer.close()

    def produce(self, topic: str, values: Iterable[bytes], *, partition: int) -> int:
        _of(topic, partition, dict.fromkeys(self.partitions(topic), Bounds(0, 0)))
        written: list[int] = []
        failed: list[KafkaError] = []

        def note(error: KafkaError | None, message: Any) -> None:
            if error is not None:
                failed.append(error)
            else:
                written.append(message.offset())

        with self._errors(topic):
            producer = self._producer()
            # of a partition that is new the producer would hear by itself in minutes only
            if partition not in producer.list_topics(topic, timeout=_ANSWER).topics[topic].partitions:
                raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
            sent = 0
            for value in values:
                sent += 1
                while not self._put(producer, topic, partition, value, note):
                    producer.poll(0.1)
            unsent = producer.flush(_WRITTEN)
            if failed:
                raise KafkaException(failed[0])
            if unsent or len(written) < sent:
                raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))
        return max(written) + 1 if written else self.bounds(topic)[partition].end

    def lag(self, topic: str, positions: Mapping[int, int]) -> dict[int, int]:
        bounds = self.bounds(topic)
        return {
            partition: max(_of(topic, partition, bounds).end - position, 0) for partition, position in positions.items()
        }

    def create_topic(self, topic: str, partitions: int) -> bool:
        with self._errors(topic):
            answers = self._administration().create_topics([NewTopic(topic, partitions)], operation_timeout=_ANSWER)
            try:
                answers[topic].result(timeout=2 * _ANSWER)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                    return False
                raise
            except TimeoutError as error:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error
        return True

    def ends(self, topic: str) -> dict[int, int]:
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        places = {TopicPartition(topic, partition): latest for partition in self.partitions(topic)}
        with self._errors(topic):
            answers = self._administration().list_offsets(
                places, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_ANSWER
            )
            try:
                return {
                    place.partition: int(answer.result(timeout=2 * _ANSWER).offset) for place, answer in answers.items()
                }
            except TimeoutError as error:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error

    def java_settings(self) -> dict[str, str]:
        return self._address.java_settings(self._secrets)

    def close(self) -> None:
        with self._lock:
            if self._asking is not None:
                self._asking.close()
            self._asking = self._writing = self._admin = None

    def _describe(self, topic: str) -> Any:
        """What the brokers say of a topic. That they refuse the user counts from now on only."""
        consumer = self._consumer()
        consumer.poll(0.0)  # which calls back with what they have said before
        self._denied.clear()
        try:
            described = consumer.list_topics(topic, timeout=min(_LOGIN, _ANSWER))
        except KafkaException as error:
            consumer.poll(0.0)
            if self._denied.is_set() or error.args[0].code() not in _AWAY or _ANSWER <= _LOGIN:
                raise
            described = consumer.list_topics(topic, timeout=_ANSWER - _LOGIN)
        return described.topics[topic]

    @contextmanager
    def _errors(self, topic: str) -> Iterator[None]:
        """Errors of the client as those of the port. That a user was refused is not in the error of the call."""
        try:
            yield
        except KafkaException as error:
            place = ",".join(self._address.brokers)
            fault = _fault(error.args[0], topic, place)
            if self._asking is not None:
                self._asking.poll(0.0)  # which calls back with what the brokers have said
            if isinstance(fault, EngineUnavailableError):
                self._away_at = time.monotonic()
            elif isinstance(fault, NotFoundError) and time.monotonic() - self._away_at < _STARTING:
                fault = _away(place)
            if isinstance(fault, EngineUnavailableError) and self._denied.is_set():
                fault = _refused(topic, place)
            raise fault from error

    @staticmethod
    def _put(producer: Producer, topic: str, partition: int, value: bytes, note: Any) -> bool:
        """Whether the message is on its way; false while the client's queue is full."""
        try:
            producer.produce(topic, value, partition=partition, on_delivery=note)
        except BufferError:
            return False
        return True

    def _settings(self, away: threading.Event | None = None) -> dict[str, Any]:
        def note(error: KafkaError) -> None:
            if error.code() in _REFUSED:
                self._denied.set()
            if error.code() in _AWAY:
                self._away_at = time.monotonic()
            if away is not None and error.code() == KafkaError._ALL_BROKERS_DOWN:
                away.set()

        own = {"client.id": "cumulant", "log_level": 0, "error_cb": note, "reconnect.backoff.max.ms": 2000}
        return self._address.client_settings(self._secrets) | own

    def _new_consumer(self, away: threading.Event | None = None) -> Consumer:
        settings = self._settings(away) | {
            "group.id": "cumulant",  # which the client requires, and nothing joins
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "allow.auto.create.topics": False,
            "queued.max.messages.kbytes": _AHEAD_KIB,
        }
        return Consumer(settings)

    def _consumer(self) -> Consumer:
        with self._lock:
            if self._asking is None:
                self._asking = self._new_consumer()
            return self._asking

    def _bounds(self, place: TopicPartition) -> Bounds:
        deadline = time.monotonic() + _ANSWER
        while True:
            try:
                offsets = self._consumer().get_watermark_offsets(place, timeout=_ANSWER, cached=False)
            except KafkaException as error:
                if error.args[0].code() not in _ELECTING or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)
            else:
                if offsets is None:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
                return Bounds(*offsets)

    def _administration(self) -> AdminClient:
        with self._lock:
            if self._admin is None:
                self._admin = AdminClient(self._settings())
            return self._admin

    def _producer(self) -> Producer:
        with self._lock:
            if self._writing is None:
                settings = {"enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": int(_WRITTEN * 1000)}
                self._writing = Producer(self._settings() | settings)
            return self._writing


class KafkaConsumer:
    """Reads assigned partitions. `away`: set when no broker can be reached."""

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        errors: Callable[[str], AbstractContextManager[None]],
        away: threading.Event,
    ) -> None:
        self._consumer, self._topic, self._errors, self._away = consumer, topic, errors, away

    def read(self, limit: int, seconds: float) -> list[Messages]:
        received: list[Any] = []
        size = 0
        with self._errors(self._topic):
            # few at once, the first alone: how large the next ones are is not known before they are there
            while size < limit and len(received) < _MOST:
                most = min(_AT_ONCE, max(1, (limit - size) * len(received) // max(size, 1)))
                fetched = self._consumer.consume(most, timeout=0.0 if received else seconds)
                if not fetched:
                    break
                received += fetched
                size += sum(len(message.value() or b"") for message in fetched if message.error() is None)
            if not received and self._away.is_set():
                raise KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN))
            self._away.clear()
            return _by_partition(received)


def _by_partition(received: Iterable[Any]) -> list[Messages]:
    """Messages by partition, in order; the end of a partition moves its position behind what is no message there."""
    values: dict[int, list[bytes | None]] = {}
    offsets: dict[int, list[int]] = {}
    after: dict[int, int] = {}
    for message in received:
        partition, error = message.partition(), message.error()
        if error is None:
            values.setdefault(partition, []).append(message.value())
            offset = message.offset()
            offsets.setdefault(partition, []).append(offset)
            after[partition] = offset + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            after[partition] = message.offset()
        else:
            raise KafkaException(error)
    return [
        Messages(partition, values.get(partition, []), offsets.get(partition, []), position)
        for partition, position in after.items()
    ]


def _of(topic: str, partition: int, bounds: Mapping[int, Bounds]) -> Bounds:
    if partition not in bounds:
        raise no_partition(topic, partition, bounds)
    return bounds[partition]


def _fault(error: KafkaError, topic: str, place: str) -> CumulantError:
    code = error.code()
    if code in _GONE:
        return NotFoundError(f'there is no topic "{topic}"', subject=topic, hint=f"create it at {place}")
    if code in _OUT_OF_RANGE:
        return LostMessagesError(
            f"messages of {topic} were deleted before they were read",
            subject=topic,
            hint="keep messages longer than ingestion may stand still",
        )
    if code in _REFUSED:
        return _refused(topic, place)
    if code in _AWAY or error.retriable():
        return _away(place)
    if code == KafkaError.MSG_SIZE_TOO_LARGE:
        return UsageError(f"a message is larger than {topic} takes", subject=topic, hint="send smaller ones")
    return StorageError(f"the brokers at {place} report {error.name()}", subject=topic, hint="see their log")


def _away(place: str) -> EngineUnavailableError:
    hint = "check their address, the network and their load"
    return EngineUnavailableError(f"the brokers at {place} do not answer", subject=place, hint=hint)


def _refused(topic: str, place: str) -> CredentialsError:
    hint = "check the user, its secret and its rights"
    return CredentialsError(f"the brokers at {place} refuse this user", subject=topic, hint=hint)
