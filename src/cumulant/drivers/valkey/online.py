"""The port `online` on Valkey or Redis, also in a cluster."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec

from cumulant.core.errors import EngineUnavailableError, StorageError
from cumulant.core.scope import Scope
from cumulant.drivers.valkey.keys import OnlineKeys
from cumulant.drivers.valkey.location import parse_online_url
from cumulant.drivers.valkey.node import Client, Node, redirected
from cumulant.drivers.valkey.pipeline import PipelinedConnection, RefusedCommandError, Reply, connect
from cumulant.drivers.valkey.transaction import Transactions
from cumulant.ports.online import Cells, Result
from cumulant.ports.secrets import Secrets

#: rows, or bytes of them, that are loaded at once
_BATCH, _BATCH_BYTES = 5_000, 4 * 1024**2
#: keys that are deleted at once
_DELETED = 1_000
#: seconds for connecting, and for one read of a request
_CONNECT_SECONDS, _READ_SECONDS = 2.0, 2.0
_META = msgspec.json.Decoder(dict[str, str])
#: the commands of an attempt to read, their replies, and the blobs
Attempts = Generator[list[bytes], Any, list[bytes | None]]


class ValkeyOnline:
    """`valkey://[USER@]HOST[:PORT][/DB][?password=SECRET]`, `redis://`, or `rediss://` with TLS.

    A row is a key of its own, with the generation of its table in it. A table's pointer names the generation that
    readers see; it is read together with the rows. `swap` loads the next generation and then moves the pointer.

    Raises:
        UsageError: the URL is invalid, or contains a password.
        NotFoundError: the secret that it names does not exist.
    """

    remote = True

    def __init__(self, url: str, *, secrets: Secrets | None = None, scope: Scope | None = None) -> None:
        address = parse_online_url(url)
        self._node = Node(address, secrets)
        self._keys = OnlineKeys(scope)
        #: the generation of each table as it was read last
        self._generations: dict[str, bytes] = {}
        self._transactions = Transactions(self._node, self._keys, self._attempts, self._generations)
        self._reading: PipelinedConnection | None = None
        self._connecting: asyncio.Task[PipelinedConnection] | None = None

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._node.call(lambda client: self._transactions.read(client, table, keys))

    async def read(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        attempts = self._attempts(table, keys)
        command = next(attempts)
        while True:
            reply = await self._execute(command)
            try:
                command = attempts.send(reply)
            except StopIteration as done:
                blobs: list[bytes | None] = done.value
                return blobs

    def put(self, table: str, rows: Iterable[tuple[bytes, bytes]]) -> int:
        written = list(rows)
        self.update(lambda cells: cells.put(table, written))
        return len(written)

    def update(self, change: Callable[[Cells], Result]) -> Result:
        return self._transactions.run(change)

    def swap(self, table: str, rows: Iterable[tuple[bytes, bytes]]) -> int:
        self._node.call(check_eviction)
        generation = self._node.call(lambda client: self._transactions.begin(client, table))
        try:
            for batch in _batches(rows):
                self._node.call(partial(self._load, generation, batch))
            count = self._node.call(lambda client: int(client.scard(self._keys.index(generation))))
            self._transactions.point(table, generation)
        except BaseException:
            self._node.call(lambda client: self._discard(client, generation))
            raise
        self._node.call(lambda client: self._discard_older(client, table, int(generation)))
        return count

    def meta(self, table: str) -> dict[str, str]:
        value = self._node.call(lambda client: client.hget(self._keys.meta, table))
        try:
            return _META.decode(value) if value else {}
        except msgspec.DecodeError as error:
            raise StorageError(
                f"what is stored about online table {table} cannot be read: {error}",
                subject=table,
                hint="another program wrote it: fill the table again",
            ) from None

    def put_meta(self, table: str, meta: dict[str, str]) -> None:
        value = msgspec.json.encode(meta)
        self._node.call(lambda client: client.hset(self._keys.meta, table, value))

    def tables(self) -> list[str]:
        def names(client: Client) -> set[bytes]:
            return {*client.hvals(self._keys.generations), *client.hkeys(self._keys.meta)}

        return sorted(name.decode() for name in self._node.call(names))

    def drop(self, table: str) -> None:
        self._transactions.remove(table)
        self._node.call(lambda client: self._discard_older(client, table, None))

    def close(self) -> None:
        if self._reading is not None:
            self._reading.abort()
        if self._connecting is not None:
            self._connecting.cancel()
        self._reading = self._connecting = None
        self._node.close()

    def _attempts(self, table: str, keys: Sequence[bytes]) -> Attempts:
        """Reads the pointer with the rows of the generation that it named last, until it is the same.

        MGET has no value for a key of another type either: of keys without one it is asked whether they exist.
        """
        pointer = self._keys.pointer(table)
        for _ in range(100):
            generation = self._generations.get(table)
            prefix = b"" if generation is None else self._keys.rows(generation)
            rows = [] if generation is None else [prefix + key for key in keys]
            blobs: list[bytes | None]
            current, *blobs = yield [b"MGET", pointer, *rows]
            absent = [pointer] if current is None else []
            if None in blobs:
                absent += [key for key, value in zip(rows, blobs, strict=True) if value is None]
            if current is not None and current != generation:
                self._generations[table] = current
                continue
            if absent and (yield [b"EXISTS", *absent]):
                yield from self._check_types(table, absent)
                continue  # they have been written in between
            if current is None:
                self._generations.pop(table, None)
                return [None] * len(keys)
            return blobs
        raise StorageError(f"online table {table} was replaced again and again while it was read", subject=table)

    def _check_types(self, table: str, keys: Sequence[bytes]) -> Generator[list[bytes], Any, None]:
        for key in keys:
            kind = yield [b"TYPE", key]
            if kind not in {b"string", b"none"}:
                raise StorageError(
                    f"a key of online table {table} holds a {bytes(kind).decode()}, not what Cumulant wrote there",
                    subject=table,
                    hint="another program wrote it: delete the key and fill the table again",
                )

    async def _execute(self, command: Sequence[bytes]) -> Reply:
        for _ in range(3):
            try:
                connection = await self._connected()
                return await connection.execute(*command, seconds=_READ_SECONDS)
            except RefusedCommandError as error:
                if (moved := redirected(str(error))) is None:
                    raise self._node.explain(error) from None
                self._node.move(moved)
                connection.abort()
            except EngineUnavailableError:
                self._node.leave()
                raise
        raise EngineUnavailableError("the nodes of the online store refer to each other", subject=str(self._node))

    async def _connected(self) -> PipelinedConnection:
        """The connection of this event loop; those who need it at once wait for the same one."""
        loop = asyncio.get_running_loop()
        connection = self._reading
        if connection is not None and connection.is_open and connection.loop is loop:
            return connection
        if self._connecting is None or self._connecting.get_loop() is not loop:
            self._connecting = loop.create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> PipelinedConnection:
        try:
            self._reading = await connect(self._node.address, self._node.password(), seconds=_CONNECT_SECONDS)
            return self._reading
        finally:
            self._connecting = None

    def _load(self, generation: bytes, batch: Sequence[tuple[bytes, bytes]], client: Client) -> None:
        with client.pipeline(transaction=False) as pipeline:
            # The key is noted first: a row that a killed process wrote is deleted with its generation.
            pipeline.sadd(self._keys.index(generation), *(key for key, _ in batch))
            pipeline.mset({self._keys.row(generation, key): blob for key, blob in batch})
            pipeline.execute()

    def _discard_older(self, client: Client, table: str, than: int | None) -> None:
        """Delete the generations of a table, and of them those with smaller numbers where `than` is given."""
        numbers: dict[bytes, bytes] = client.hgetall(self._keys.generations)
        for number, name in numbers.items():
            if name == table.encode() and number.isdigit() and (than is None or int(number) < than):
                self._discard(client, number)

    def _discard(self, client: Client, generation: bytes) -> None:
        index = self._keys.index(generation)
        while keys := client.srandmember(index, _DELETED):
            with client.pipeline(transaction=True) as pipeline:
                pipeline.unlink(*(self._keys.row(generation, key) for key in keys))
                pipeline.srem(index, *keys)
                pipeline.execute()
        client.hdel(self._keys.generations, generation)


def check_eviction(client: Client) -> None:
    """Raises StorageError: the server would delete rows when its memory is full, so that features would be wrong."""
    memory: dict[str, object] = client.info("memory")
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction" and int(str(memory.get("maxmemory", 0))) > 0:
        raise StorageError(
            f"the online store deletes keys when its memory is full (maxmemory-policy {policy})",
            hint="features would be wrong: set maxmemory-policy noeviction, or use another server for caches",
        )


def _batches(rows: Iterable[tuple[bytes, bytes]]) -> Iterable[list[tuple[bytes, bytes]]]:
    remaining = iter(rows)
    while first := next(remaining, None):
        batch, size = [first], len(first[1])
        for row in itertools.islice(remaining, _BATCH - 1):
            batch.append(row)
            size += len(row[1])
            if size >= _BATCH_BYTES:
                break
        yield batch
