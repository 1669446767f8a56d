"""Connections to one database: pooled, made again after a restart of the server, errors mapped."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import psycopg
from psycopg import Connection, sql
from psycopg.pq import TransactionStatus

from cumulant.core.errors import EngineUnavailableError
from cumulant.core.network.postgresql import DatabaseLocation, explain_connection, unreachable
from cumulant.drivers.postgres.connection import LimitedConnection
from cumulant.drivers.postgres.faults import explain
from cumulant.drivers.postgres.migrations import migrate
from cumulant.drivers.postgres.open_transaction import OpenTransaction

Result = TypeVar("Result")

_log = logging.getLogger(__name__)
_PAUSE_FIRST, _PAUSE_LAST, _PAUSE_GROWTH = 0.05, 1.0, 1.5
#: connections that stay open while nothing uses them
_MOST_IDLE = 4
#: seconds that a server has to say that the time for a lock is over
_REPLY = 5.0


class PostgresDatabase:
    """A pool of connections in autocommit mode, opened on first use. A forked child starts with an empty pool.

    A server that never answered is reported at once; one that answered before is waited for, as after a restart. Once
    somebody waited for it in vain, it is reported at once until it answers again.

    Args:
        location: where the database is.
        wait: seconds to wait for another writer, and for a server that is gone, before EngineUnavailableError. A
            connection on which nothing comes for as long and 5 s is closed, and another one is opened.
    """

    def __init__(self, location: DatabaseLocation, *, wait: float = 60.0) -> None:
        self.location = location
        self._wait = wait
        self._process = os.getpid()
        self._idle: deque[LimitedConnection] = deque()
        #: a parent's connections, which a forked child must neither use nor close
        self._inherited: list[deque[LimitedConnection]] = []
        self._reached = False
        self._migrated = False
        self._closed = weakref.finalize(self, _close_all, self._idle, self._process)

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """The result of `work`, which may be done again: it gets another connection where one is lost."""
        connection, result = self._retry(work)
        self.release(connection)
        return result

    @contextmanager
    def write(self, lock: int, *, is_stored: Callable[[Connection], bool]) -> Iterator[OpenTransaction]:
        """A write transaction; writers of one lock wait for each other. Committed on exit, undone by an exception.

        A commit whose answer is lost with the connection is looked up, by its number and by `is_stored`: whether what
        the block wrote is there. A server that crashed before it stored the transaction gives its number away again.
        """
        opened = OpenTransaction(self, lock, where=self.location.name, wait=self._wait)
        try:
            yield opened
            opened.commit(is_stored)
        finally:
            self.release(opened.connection)

    def acquire(self) -> LimitedConnection:
        """An idle connection, or a new one. Return it with `release`."""
        if self._process != os.getpid():
            self._inherited.append(self._idle)
            self._process, self._idle = os.getpid(), deque()
            self._closed.detach()
            self._closed = weakref.finalize(self, _close_all, self._idle, self._process)
        try:
            return self._idle.pop()
        except IndexError:
            return self._reconnect()

    def release(self, connection: LimitedConnection) -> None:
        """Return a connection. An open transaction is undone; a connection that is lost takes the idle ones with it."""
        if connection.closed:
            self.close()
            return
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
        if connection.info.transaction_status is TransactionStatus.IDLE and len(self._idle) < _MOST_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the idle connections. The next use opens others."""
        _close_all(self._idle, self._process)

    def explain(self, error: psycopg.Error) -> Exception:
        return explain(error, where=self.location.name, wait=self._wait)

    def begin(self, lock: int) -> tuple[LimitedConnection, str]:
        """A connection with a transaction that has the lock, and the transaction's number."""
        milliseconds = round(self._wait * 1000)
        # One message to the server. A client that is stopped, or whose host is gone, must not keep the lock for ever.
        statements = (
            f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {milliseconds};"
            f" SET LOCAL idle_in_transaction_session_timeout = {milliseconds};"
            f" SELECT pg_advisory_xact_lock({lock}); SELECT pg_current_xact_id()::text"
        )

        def begin(connection: Connection) -> str:
            cursor = connection.execute(statements, prepare=False)
            while cursor.nextset():
                pass
            row = cursor.fetchone()
            return "" if row is None else row[0]

        return self._retry(begin)

    def _retry(self, work: Callable[[Connection], Result]) -> tuple[LimitedConnection, Result]:
        """The result of `work` and the connection that it got: a new one where the first is lost."""
        deadline: float | None = None  # from the first loss on, however long it took to notice
        while True:
            connection = self.acquire()
            try:
                return connection, work(connection)
            except psycopg.Error as error:
                lost = connection.closed
                self.release(connection)
                deadline = deadline or time.monotonic() + self._wait
                if not lost or time.monotonic() > deadline:
                    raise self.explain(error) from error
            except BaseException:
                self.release(connection)
                raise

    def is_committed(self, number: str, is_stored: Callable[[Connection], bool]) -> bool:
        """Whether a transaction was committed whose connection was lost.

        By its number, which may be that of a later one after a crash, and by whether what it wrote is there.
        """

        def read(connection: Connection) -> str | None:
            try:
                row = connection.execute("SELECT pg_xact_status(%s::xid8)", (number,)).fetchone()
            except psycopg.errors.InvalidParameterValue:  # a number of the future, after a crash
                return None
            return None if row is None else row[0]

        self.close()  # what was idle may be lost with that connection
        deadline = time.monotonic() + self._wait
        while (status := self.read(read)) == "in progress" and time.monotonic() < deadline:
            time.sleep(_PAUSE_FIRST)
        return status == "committed" and self.read(is_stored)

    def _reconnect(self) -> LimitedConnection:
        """A new connection; a server that answered before is waited for."""
        deadline, pause, reported = time.monotonic() + self._wait, _PAUSE_FIRST, False
        while True:
            try:
                return self._connect()
            except EngineUnavailableError as error:
                if not self._reached or time.monotonic() > deadline:
                    self._reached = False
                    raise
                if not reported:
                    _log.warning("%s; waiting up to %g s for it", error.message, self._wait)
                    reported = True
            time.sleep(pause)
            pause = min(pause * _PAUSE_GROWTH, _PAUSE_LAST)

    def _connect(self) -> LimitedConnection:
        where, schema = self.location.name, self.location.schema
        try:
            connection = LimitedConnection.connect(**self.location.settings, autocommit=True)  # type: ignore[arg-type]
        except psycopg.Error as error:
            raise explain_connection(error, where=where, subject="journal") from error
        connection.limit = self._wait + _REPLY
        try:
            connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
            if not self._migrated:
                migrate(connection, schema, wait=self._wait)
        except psycopg.Error as error:
            lost = connection.closed
            connection.close()
            raise (unreachable(error, where=where, subject="journal") if lost else self.explain(error)) from error
        except BaseException:
            connection.close()
            raise
        self._reached = self._migrated = True
        return connection


def _close_all(connections: deque[LimitedConnection], process: int) -> None:
    while connections and process == os.getpid():
        connections.pop().close()
