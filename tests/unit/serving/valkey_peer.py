"""A hand-written peer at the place of a Valkey, which behaves as it is told."""

from __future__ import annotations

import asyncio
import contextlib


class Peer:
    """Speaks just enough of the protocol. `mood` names what it does with commands from now on.

    `good`, `hangs`, `closes`, or bytes that it sends instead of each answer. `greets`: pings are answered well all the same.
    """

    def __init__(self):
        self.mood, self.greets, self.kept = "good", False, {}
        self.commands: list[list[bytes]] = []
        self._writers = set()

    @contextlib.asynccontextmanager
    async def listening(self, ssl=None):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=ssl)
        port = server.sockets[0].getsockname()[1]
        try:
            yield f"{'rediss' if ssl else 'valkey'}://127.0.0.1:{port}/0"
        finally:
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        try:
            while True:
                words = await self._read(reader)
                self.commands.append(words)
                if not await self._answer(words, writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _read(self, reader):
        count = int((await reader.readuntil(b"\r\n"))[1:])
        words = []
        for _ in range(count):
            size = int((await reader.readuntil(b"\r\n"))[1:])
            words.append((await reader.readexactly(size + 2))[:-2])
        return words

    async def _answer(self, words, writer):
        mood = "good" if self.greets and words[0] == b"PING" else self.mood
        if mood == "closes":
            return False
        if mood == "hangs":
            await asyncio.sleep(3600)
        if isinstance(mood, bytes):
            writer.write(mood)
        else:
            writer.write(self._good(words))
        await writer.drain()
        return True

    def _good(self, words):
        match words:
            case [b"PING"]:
                return b"+PONG\r\n"
            case [b"GET", key]:
                value = self.kept.get(key)
                return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)
            case [b"SET", key, value, b"PX", _]:
                self.kept[key] = value
                return b"+OK\r\n"
            case [b"AUTH" | b"SELECT", *_]:
                return b"+OK\r\n"
        return b"-ERR unknown\r\n"
