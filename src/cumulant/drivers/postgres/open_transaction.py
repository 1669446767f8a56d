"""One write transaction that outlives its connection: what it did is repeated where nothing was committed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg import Connection

from cumulant.core.errors import EngineUnavailableError
from cumulant.drivers.postgres.connection import LimitedConnection

Result = TypeVar("Result")


class Connections(Protocol):
    """What an open transaction needs of its database."""

    def begin(self, lock: int) -> tuple[LimitedConnection, str]: ...

    def release(self, connection: LimitedConnection) -> None: ...

    def is_committed(self, number: str, is_stored: Callable[[Connection], bool]) -> bool: ...

    def explain(self, error: psycopg.Error) -> Exception: ...


class OpenTransaction:
    """A transaction that holds an advisory lock.

    Where its connection is lost, as when the server restarts, nothing is committed: its statements are repeated in
    order on another connection, and it goes on if each has the same result as before. Otherwise others wrote meanwhile
    what it depends on, and EngineUnavailableError is raised.
    """

    def __init__(self, database: Connections, lock: int, *, where: str, wait: float) -> None:
        self._database, self._lock, self._where, self._wait = database, lock, where, wait
        self._done: list[tuple[Callable[[Connection], Any], Any]] = []
        self._deadline: float | None = None
        self.connection, self._number = database.begin(lock)

    def run(self, work: Callable[[Connection], Result]) -> Result:
        """The result of statements, which may be repeated."""
        try:
            result = work(self.connection)
        except psycopg.Error as error:
            result = self._repeat(error, work)
        self._done.append((work, result))
        return result

    def commit(self, is_stored: Callable[[Connection], bool]) -> None:
        """Commit. Where the answer is lost, the transaction is looked up, and repeated if it is not there."""
        while True:
            number = self._number
            try:
                self.connection.execute("COMMIT")
            except psycopg.Error as error:
                if self.connection.closed and self._database.is_committed(number, is_stored):
                    return
                try:
                    self._repeat(error, lambda _: None)
                except EngineUnavailableError:
                    # It was still in progress, and those that wrote meanwhile came after it.
                    if self._database.is_committed(number, is_stored):
                        return
                    raise
            else:
                return

    def _repeat(self, error: psycopg.Error, work: Callable[[Connection], Result]) -> Result:
        """Do everything again on another connection, then `work`."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self._wait
        while self.connection.closed and time.monotonic() < self._deadline:
            self._database.release(self.connection)
            self.connection, self._number = self._database.begin(self._lock)
            try:
                for done, result in self._done:
                    if done(self.connection) != result:
                        raise _changed(self._where)
                return work(self.connection)
            except psycopg.Error as another:
                error = another
        raise self._database.explain(error) from error


def _changed(where: str) -> EngineUnavailableError:
    return EngineUnavailableError(
        "the connection to the journal was lost within a transaction, and others wrote to it before it was back",
        subject=where,
        hint="nothing was changed: run the same command again",
    )
