"""Changes of several tables in one transaction: a lock makes writers queue, an optimistic check makes it exact."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from valkey.exceptions import TimeoutError as PeerTimeoutError
from valkey.exceptions import ValkeyError, WatchError

from cumulant.core.errors import EngineUnavailableError, StorageError
from cumulant.drivers.valkey.keys import OnlineKeys
from cumulant.drivers.valkey.node import Client, Node, attempts
from cumulant.ports.online import Cells, Result

#: seconds after which the lock of a killed writer ends, longer than connecting, waiting in vain for a reply and looking
#: up what became of the transaction; and after which a living one renews its own
_LOCK_SECONDS, _RENEWED = 12.0, 1.0
#: seconds to wait for other writers, and between two attempts
_WAIT_SECONDS, _POLL = 60.0, 0.002

ReadAttempts = Callable[[str, Sequence[bytes]], Generator[list[bytes], Any, list[bytes | None]]]


class _ConflictError(Exception):
    """Another writer was first, although this one had the lock: it had ended."""


class Transactions:
    """Changes of the tables of one scope.

    Each change gives the epoch a new value, and is refused by the server (WATCH) where another one did so after it
    began. Without the lock several writers would mostly do their work in vain; it ends by itself when its holder is
    killed, and no result depends on it.
    """

    def __init__(self, node: Node, keys: OnlineKeys, attempts: ReadAttempts, generations: Mapping[str, bytes]) -> None:
        self._node, self._keys, self._attempts = node, keys, attempts
        #: of each table as it was read last
        self.generations = generations

    def run(self, change: Callable[[Cells], Result]) -> Result:
        """See `OnlineStore.update`.

        Raises:
            EngineUnavailableError: the server does not answer, or others write for a minute.
            StorageError: the server refuses.
        """
        deadline, pauses = time.monotonic() + _WAIT_SECONDS, attempts()
        while True:
            token = secrets.token_bytes(12)
            try:
                self._acquire(token, deadline)
                with self._release_after_error(token):
                    result, is_written = self._attempt(change, token)
            except _ConflictError:
                if time.monotonic() > deadline:
                    raise self._busy() from None
            except ValkeyError as error:
                self._node.pause_after(error, pauses)
            else:
                if not is_written:
                    self._release(token)
                return result

    def begin(self, client: Client, table: str) -> bytes:
        """The number of a new generation of a table, which readers do not see."""
        number = b"%d" % int(client.incr(self._keys.number))
        client.hset(self._keys.generations, number, table)
        return number

    def point(self, table: str, generation: bytes) -> None:
        """Make a generation the one that readers see.

        Raises:
            StorageError: it is not there: another process dropped the table, or the store was emptied.
        """

        def change(cells: Cells) -> None:
            assert isinstance(cells, _Cells)
            cells.point(table, generation)

        self.run(change)

    def remove(self, table: str) -> None:
        """Let readers see no such table; its meta is deleted."""

        def change(cells: Cells) -> None:
            assert isinstance(cells, _Cells)
            cells.remove(table)

        self.run(change)

    def _acquire(self, token: bytes, deadline: float) -> None:
        client = self._node.client()
        while not client.set(self._keys.lock, token, nx=True, px=int(_LOCK_SECONDS * 1000)):
            if time.monotonic() > deadline:
                raise self._busy()
            time.sleep(_POLL)

    def _release(self, token: bytes) -> None:
        client = self._node.client()
        with contextlib.suppress(ValkeyError):  # it ends by itself
            if client.get(self._keys.lock) == token:
                client.delete(self._keys.lock)

    @contextmanager
    def _release_after_error(self, token: bytes) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._release(token)
            raise

    def _attempt(self, change: Callable[[Cells], Result], token: bytes) -> tuple[Result, bool]:
        """What the change gives, and whether it wrote anything, which releases the lock."""
        client = self._node.client()
        with client.pipeline() as pipeline:
            pipeline.watch(self._keys.epoch)
            cells = _Cells(self, self._keys, client, pipeline)
            try:
                result = change(cells)
            except ValkeyError:
                raise
            except Exception:
                # What it read may be of two moments, where the lock ended before.
                pipeline.multi()
                pipeline.exists(self._keys.epoch)
                try:
                    pipeline.execute()
                except WatchError:
                    raise _ConflictError from None
                raise
            if not cells.is_changed:
                return result, False
            pipeline.multi()
            cells.write(token)
            try:
                pipeline.execute()
            except WatchError:
                # The client library raises the same where the connection ended before the reply.
                if self._node.call(lambda again: again.get(self._keys.epoch)) != token:
                    raise _ConflictError from None
            return result, True

    def read(self, client: Client, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Blobs of a table as it is now."""
        attempts = self._attempts(table, keys)
        command = next(attempts)
        while True:
            try:
                command = attempts.send(client.execute_command(*command))
            except StopIteration as done:
                blobs: list[bytes | None] = done.value
                return blobs

    def _busy(self) -> EngineUnavailableError:
        return EngineUnavailableError(
            f"the online store is busy: other processes have been writing for {_WAIT_SECONDS:g} s",
            subject=str(self._node),
            hint="try again",
        )


class _Cells:
    """The blobs inside one change. Its writes are collected and sent at its end."""

    def __init__(self, transactions: Transactions, keys: OnlineKeys, client: Client, pipeline: Client) -> None:
        self._transactions, self._keys, self._client, self._pipeline = transactions, keys, client, pipeline
        self._written: dict[str, dict[bytes, bytes | None]] = {}
        #: keys that were read and have a row, so that their generation's index has them
        self._indexed: dict[str, set[bytes]] = {}
        self._pointed: dict[str, bytes] = {}
        self._removed: list[str] = []
        self._renewed = time.monotonic()

    @property
    def is_changed(self) -> bool:
        return bool(self._written or self._pointed or self._removed)

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        if time.monotonic() - self._renewed > _RENEWED:
            self._renewed = time.monotonic()
            self._client.pexpire(self._keys.lock, int(_LOCK_SECONDS * 1000))
        stored = self._read(table, keys)
        with_rows = {key for key, blob in zip(keys, stored, strict=True) if blob is not None}
        self._indexed.setdefault(table, set()).update(with_rows)
        written = self._written.get(table)
        return stored if not written else [written.get(key, blob) for key, blob in zip(keys, stored, strict=True)]

    def _read(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """By the connection that watches: another one would be taken from the pool, and looked at, for each read."""
        try:
            return self._transactions.read(self._pipeline, table, keys)
        except WatchError as error:
            # The client library raises it where the connection ended, in place of that error.
            raise error.__context__ or error from None
        except PeerTimeoutError:
            self._pipeline.watching = False  # ended with the connection: no reply to UNWATCH is waited for
            raise

    def put(self, table: str, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        self._written.setdefault(table, {}).update(rows)

    def point(self, table: str, generation: bytes) -> None:
        if not self._client.hexists(self._keys.generations, generation):
            raise StorageError(
                f"online table {table} was filled in vain: it was replaced or dropped, or the store was emptied",
                subject=table,
                hint="fill it again",
            )
        self._pointed[table] = generation

    def remove(self, table: str) -> None:
        self._removed.append(table)

    def write(self, token: bytes) -> None:
        """Add the collected writes to the transaction, and the release of the lock: where it is another's by now, that
        one's transaction will be refused.
        """
        pipeline, keys = self._pipeline, self._keys
        pipeline.set(keys.epoch, token)
        pipeline.delete(keys.lock)
        for table, rows in self._written.items():
            generation = self._generation(table)
            present = {key: blob for key, blob in rows.items() if blob is not None}
            if new := present.keys() - self._indexed.get(table, set()):
                pipeline.sadd(keys.index(generation), *new)
            if present:
                pipeline.mset({keys.row(generation, key): blob for key, blob in present.items()})
            if gone := rows.keys() - present.keys():
                pipeline.srem(keys.index(generation), *gone)
                pipeline.unlink(*(keys.row(generation, key) for key in gone))
        for table, generation in self._pointed.items():
            pipeline.set(keys.pointer(table), generation)
        for table in self._removed:
            pipeline.delete(keys.pointer(table))
            pipeline.hdel(keys.meta, table)

    def _generation(self, table: str) -> bytes:
        """The generation of a table that is written, a new one where there is none."""
        if table in self._indexed and (known := self._transactions.generations.get(table)) is not None:
            return known  # it was read in this transaction, which is refused where it is another one by now
        generation = self._client.get(self._keys.pointer(table))
        if isinstance(generation, bytes):
            return generation
        number = self._transactions.begin(self._client, table)
        self._pointed[table] = number
        return number
