"""Ports `streams` and `schemas`: topics of messages in partitions, each read from positions that the reader keeps; and
a registry of the schemas by which messages are written.

A position is a number that grows within a partition; which numbers there are is the driver's matter (offsets of a
broker, places in a file). The reader stores the positions beside what it made of the messages, so that both are
committed together: a driver keeps no position for anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

from cumulant.core.errors import DataError, NotFoundError

SchemaKind = Literal["avro", "protobuf"]


class LostMessagesError(DataError):
    """Messages after a stored position are gone, or the topic was made anew: going on would leave a gap."""


class Bounds(msgspec.Struct, frozen=True):
    """The positions of a partition: `begin`, of the oldest message that is still there, and `end`, of the next one."""

    begin: int
    end: int


class Messages(NamedTuple):
    """Messages of one partition in order, with the position of each, and the position after the last.

    A value of None is a message without one (a tombstone). Positions may have gaps; where what follows holds no message
    (a marker of a transaction), there are none, and only `next` moves.
    """

    partition: int
    values: Sequence[bytes | None]
    positions: Sequence[int]
    next: int


class Consumer(Protocol):
    """Reads the partitions that it was opened for. For one thread."""

    def read(self, limit: int, seconds: float) -> list[Messages]:
        """The next messages, of about `limit` bytes at most (one message may be larger), waiting for the first at most
        `seconds`; empty where there is none by then. A partition may come several times, in order.

        Raises:
            LostMessagesError: messages between the position and what is there now were deleted.
            NotFoundError: the topic is gone.
            EngineUnavailableError: the broker does not answer.
            StorageError: a partition cannot be read.
        """
        ...


class Streams(Protocol):
    """The topics of one place. Its methods may be called by many threads and processes at once.

    Raises, in every method:
        NotFoundError: there is no such topic.
        EngineUnavailableError: the broker does not answer.
        StorageError: the place cannot be read or written.
        UsageError: a name that no topic can have.
    """

    def identity(self, topic: str) -> str:
        """What tells a topic from another one of its name, which was made after it was deleted, as far as the driver
        knows.
        """
        ...

    def partitions(self, topic: str) -> list[int]:
        """The numbers of the topic's partitions, ascending."""
        ...

    def bounds(self, topic: str) -> dict[int, Bounds]:
        """The positions of every partition as they are now."""
        ...

    def consume(self, topic: str, positions: Mapping[int, int]) -> AbstractContextManager[Consumer]:
        """A reader of these partitions, each from its position on. It is assigned to them, and joins no group.

        Raises:
            LostMessagesError: a position is before the oldest message, or after the newest.
        """
        ...

    def produce(self, topic: str, values: Iterable[bytes], *, partition: int) -> int:
        """Append messages to a partition, and return the position after the last. They are durable when this returns.

        Raises:
            UsageError: a message that the driver cannot hold.
        """
        ...

    def lag(self, topic: str, positions: Mapping[int, int]) -> dict[int, int]:
        """How many messages each of these partitions has from the position on; an upper limit where a driver counts
        positions of which some hold no message.
        """
        ...

    def close(self) -> None: ...


@runtime_checkable
class MarkedPositions(Protocol):
    """What a driver offers beside, whose identity of a topic does not tell every topic that was made anew. Raises as
    `Streams`.
    """

    def marks(self, topic: str, positions: Mapping[int, int]) -> dict[int, str]:
        """By partition a digest of what is there before its position, which stays as long as messages are only
        appended; none for a partition that is not there, that ends before the position, or with nothing before it.
        """
        ...


@runtime_checkable
class JobTopics(Protocol):
    """What a driver offers beside, whose topics jobs of other engines read and write. Raises as `Streams`."""

    def create_topic(self, topic: str, partitions: int) -> bool:
        """Whether it was created: false where it is there already."""
        ...

    def ends(self, topic: str) -> dict[int, int]:
        """The position after the newest message of every partition, which may be of a transaction that is open:
        `Streams.bounds` ends before the first of those.
        """
        ...

    def java_settings(self) -> dict[str, str]:
        """The connection as settings of the client of Java, with the password where it has one.

        Raises:
            NotFoundError: there is no such secret.
        """
        ...


class RegisteredSchema(msgspec.Struct, frozen=True, kw_only=True):
    """A schema, and those that it names, each after those that it names itself.

    A text is JSON for Avro, and a serialized FileDescriptorProto in base64 for Protobuf. `imports`: the name by which
    another schema refers to each (of a type, or of a file of Protobuf), and its text.
    """

    kind: str
    text: str
    imports: tuple[tuple[str, str], ...] = ()


class Schemas(Protocol):
    """The schemas of one registry. A number stands for one schema for ever, so that callers may keep what they get.

    Its methods may be called by many threads at once.
    """

    def schema(self, number: int, kind: SchemaKind) -> RegisteredSchema:
        """The schema of this number; `kind`: the one that is expected, which decides how it is asked for.

        Raises:
            NotFoundError: the registry has no such schema, or not all that it names.
            DataError: the schema, or one that it names, is too large.
            EngineUnavailableError: the registry does not answer.
            CredentialsError: it does not accept the user or the password.
            StorageError: it answers in another way than a registry.
        """
        ...


def check_position(topic: str, partition: int, position: int, bounds: Bounds) -> None:
    """Raises LostMessagesError: the position is not within the bounds of its partition."""
    if position < bounds.begin:
        message = (
            f"messages of {topic} were deleted before they were read: partition {partition} begins at "
            f"{bounds.begin:,}, and was read up to {position:,}"
        )
        raise LostMessagesError(message, subject=topic, hint="keep messages longer than ingestion may stand still")
    if position > bounds.end:
        message = (
            f"{topic} is not the topic that was read before: partition {partition} ends at {bounds.end:,}, and was "
            f"read up to {position:,}"
        )
        raise LostMessagesError(message, subject=topic, hint="a topic that was deleted and made anew needs a new name")


def no_partition(topic: str, partition: int, known: Iterable[int]) -> NotFoundError:
    """The error for a partition that the topic has not; `known`: those that it has."""
    listed = ", ".join(str(number) for number in known)
    return NotFoundError(f'there is no partition {partition} of "{topic}"', subject=topic, hint=f"it has {listed}")
