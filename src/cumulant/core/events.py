"""The event envelope: references and figures, chained by hashes so that an edit shows (`verify_chain`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import ClassVar

import msgspec

from cumulant.core.ids import digest

GENESIS = "0" * 64


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """What a package reports. Each package subclasses this in its `events.py`, with `kind` and `schema`."""

    kind: ClassVar[str]
    schema: ClassVar[int] = 1


class Actor(msgspec.Struct, frozen=True):
    """Who caused an event: a person (`user:ada`), a service or a schedule."""

    name: str
    reason: str | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope. `seq` counts from 1 in one store; `run` groups the events of one flow run.

    `rows` is the digest of the state rows that were written since the event before it that has one; None: none were.
    `environment` is None in events of before it was recorded.
    """

    seq: int
    id: str
    time: datetime
    kind: str
    schema: int
    actor: str
    reason: str | None
    project: str
    run: str | None
    cause: str | None
    tenant: str = "default"
    region: str = "local"
    environment: str | None = None
    data: dict[str, object]
    previous: str
    rows: str | None = None
    hash: str = ""

    def sealed(self) -> Event:
        """This event with `hash` computed over everything else."""
        return msgspec.structs.replace(self, hash=self.expected_hash())

    def expected_hash(self) -> str:
        fields = msgspec.to_builtins(msgspec.structs.replace(self, hash=""))
        for name in ("rows", "environment"):  # as events were hashed before they had these fields
            if fields[name] is None:
                del fields[name]
        return digest(fields)


class Break(msgspec.Struct, frozen=True):
    """A place where the chain does not hold; with `row`, a state row that differs from what event `seq` carries."""

    seq: int
    problem: str
    row: str | None = None


def verify_chain(events: Iterable[Event], *, after: int = 0, head: str = GENESIS) -> Iterator[Break]:
    """Every break in a chain, or in its part that follows event `after` with the hash `head`; none if untouched."""
    previous, expected = head, after + 1
    for event in events:
        if event.seq != expected:
            yield Break(event.seq, f"event {expected} is missing")
        if event.previous != previous:
            yield Break(event.seq, "does not follow the event before it")
        if event.hash != event.expected_hash():
            yield Break(event.seq, "was altered after it was written")
        previous, expected = event.hash, event.seq + 1
