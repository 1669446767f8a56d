"""Port `journal`: state rows and the event chain, written together.

State and the events that report it change in one transaction, so neither can be seen without the other. A client is
made for one scope (tenant, project, environment) and sees only its rows, its chain and its cursors, whoever else
shares the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol, runtime_checkable

import msgspec

from cumulant.core.events import Actor, Event, Fact


class Row(msgspec.Struct, frozen=True):
    """A state row; `version` counts its writes and serves as fencing token.

    The count continues when a row is deleted and written again, so that no version is used twice.
    """

    kind: str
    key: str
    value: dict[str, object]
    version: int
    updated: datetime


class RowVersion(msgspec.Struct, frozen=True):
    """The version of a state row, and when it was written."""

    key: str
    version: int
    updated: datetime


class ChainHead(msgspec.Struct, frozen=True):
    """The newest event's `seq` and hash, stored apart from the events, so that a missing end is detected too."""

    seq: int
    hash: str


class Transaction(Protocol):
    """Reads see this transaction's own writes. Writers are serialised."""

    def get(self, kind: str, key: str) -> Row | None: ...

    def rows(self, kind: str, prefix: str = "", *, after: str | None = None, limit: int | None = None) -> list[Row]:
        """Rows of one kind whose key starts with `prefix`, ordered by key: at most `limit`, with keys above `after`."""
        ...

    def put(self, kind: str, key: str, value: dict[str, object], *, expect: int | None = None) -> Row:
        """Write a row. With `expect`, only if its version is that (0: it must not exist).

        Raises:
            LeaseHeldError: the row has another version.
        """
        ...

    def delete(self, kind: str, key: str) -> None: ...

    def emit(self, fact: Fact, *, cause: str | None = None) -> Event: ...


class Journal(Protocol):
    def transaction(self, *, actor: Actor, run: str | None = None) -> AbstractContextManager[Transaction]:
        """A write transaction: committed on leaving, undone by an exception."""
        ...

    def get(self, kind: str, key: str) -> Row | None: ...

    def rows(
        self,
        kind: str,
        prefix: str = "",
        *,
        after: str | None = None,
        limit: int | None = None,
        descending: bool = False,
    ) -> list[Row]:
        """Rows of one kind whose key starts with `prefix`, ordered by key: at most `limit`, with keys above `after`.

        `descending`: in the opposite order, with keys below `after`.
        """
        ...

    def row_versions(
        self,
        kind: str,
        prefix: str = "",
        *,
        after: str | None = None,
        limit: int | None = None,
        descending: bool = False,
    ) -> list[RowVersion]:
        """As `rows`, without their values: for readers that keep what they have read of a version."""
        ...

    def count(self, kind: str, prefix: str = "") -> int:
        """How many rows of one kind have a key that starts with `prefix`."""
        ...

    def events(
        self,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int | None = None,
        kinds: Sequence[str] = (),
        run: str | None = None,
    ) -> Iterator[Event]:
        """Events with `seq` above `after` and below `before`, in order. A kind that ends with `.` or `*` stands for all
        kinds that begin so.
        """
        ...

    def head(self) -> ChainHead:
        """The end of the chain; `ChainHead(0, GENESIS)` where nothing happened yet."""
        ...

    def wait(self, after: int, seconds: float) -> bool:
        """Wait for an event with `seq` above `after`, at most `seconds`; whether there is one."""
        ...

    def cursor(self, subscriber: str) -> int:
        """The last event that `subscriber` has handled; 0 for a new one."""
        ...

    def advance(self, subscriber: str, seq: int) -> None: ...

    def report(self, kind: str, key: str, value: dict[str, object], *, expect: int) -> Row:
        """Write at once what a machine reports of itself again and again: a row of one writer, apart from the state.

        It is in no transaction, enters no event and waits for no writer of state on another machine. What of it others
        rely on is reported by an event where it changes. `expect` as `Transaction.put`.

        Raises:
            LeaseHeldError: the row has another version. The writer's own may be the cause, where the answer to an
                earlier try was lost.
        """
        ...

    def reports(self, kind: str) -> list[Row]:
        """The reports of a kind, ordered by key."""
        ...

    def remove_report(self, kind: str, key: str, *, expect: int) -> bool:
        """Remove a report whose version is `expect`; whether it was there. A later one has a higher version."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Freezing(Protocol):
    """An optional part of a journal: it can be read where it cannot be written."""

    @property
    def frozen(self) -> bool:
        """Whether it can be read and not written."""
        ...

    def aside(self) -> Journal:
        """A copy that can be written and is gone when it is closed, for work that changes nothing that others see."""
        ...


@runtime_checkable
class ReadAtOnce(Protocol):
    """An optional part of a journal: rows are read from this machine, so fast that an event loop may do it."""

    def get_at_once(self, kind: str, key: str) -> Row | None:
        """As `get`, without waiting for anybody.

        Raises:
            EngineUnavailableError: the journal is locked.
        """
        ...


@runtime_checkable
class Witnessed(Protocol):
    """An optional part of a journal: further evidence that reveals later changes."""

    def witness(self) -> ChainHead | None:
        """A head of the chain that is stored apart from the events and their counter; None where none is."""
        ...

    def misfiled(self) -> Iterator[int]:
        """The `seq` under which events lie that are looked up by another seq, kind, run or scope than their own."""
        ...


class RowWrite(msgspec.Struct, frozen=True):
    """The hash of a state row as one write left it; `event` carries it in its digest, 0: the next event will."""

    event: int
    kind: str
    key: str
    version: int
    hash: str


class RowHashes(msgspec.Struct, frozen=True):
    """At one moment: every recorded write, in order, and the rows as they are now, hashed anew (`event` is 0); and the
    number of the newest event.
    """

    writes: Iterator[RowWrite]
    rows: Iterator[RowWrite]
    head: int


@runtime_checkable
class HashedRows(Protocol):
    """What a journal may have besides: events that carry the hashes of the state rows written with them."""

    def row_hashes(self) -> AbstractContextManager[RowHashes | None]:
        """None where the journal was made before rows were hashed and cannot be changed."""
        ...
