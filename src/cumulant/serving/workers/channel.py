"""Remote calls between the processes of one server, in both directions, over a socket pair."""

from __future__ import annotations

import asyncio
import itertools
import struct
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from cumulant.core import errors
from cumulant.core.errors import CumulantError, EngineUnavailableError

Answer = Callable[[str, Mapping[str, Any]], Awaitable[Any]]

_LENGTH = struct.Struct("<I")


class GoneError(EngineUnavailableError):
    """The process at the other end has ended."""


class ChannelMessage(msgspec.Struct, array_like=True):
    """`kind`: call, answer or error."""

    kind: str
    number: int
    verb: str = ""
    body: Any = None


class Channel:
    """One end of a channel; `answer` handles the calls of the other end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
        self._reader, self._writer, self._answer = reader, writer, answer
        self._numbers = itertools.count()
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def call(self, verb: str, arguments: Mapping[str, Any]) -> Any:
        """Result of a call.

        Raises:
            CumulantError: as the other end raised it.
            GoneError: the other end is gone.
        """
        number = next(self._numbers)
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(ChannelMessage("call", number, verb, dict(arguments)))
            return await future
        finally:
            self._pending.pop(number, None)

    async def listen(self) -> None:
        """Process messages until the other end is closed."""
        decode = msgspec.msgpack.Decoder(ChannelMessage).decode
        try:
            while True:
                (size,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
                self._take(decode(await self._reader.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(GoneError("a process of the server has ended"))
            self._writer.close()

    def _take(self, message: ChannelMessage) -> None:
        if message.kind == "call":
            task = asyncio.ensure_future(self._do(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        future = self._pending.get(message.number)
        if future is None or future.done():
            return
        if message.kind == "answer":
            future.set_result(message.body)
        else:
            future.set_exception(restore_error(message.body))

    async def _do(self, message: ChannelMessage) -> None:
        answer = await self._answered(message)
        if not self._writer.is_closing():
            self._send(answer)

    async def _answered(self, message: ChannelMessage) -> ChannelMessage:
        try:
            body = await self._answer(message.verb, message.body)
        except CumulantError as error:
            return ChannelMessage("error", message.number, body=describe_error(error))
        except Exception as error:  # noqa: BLE001 - the edge: without an answer the caller would never return
            traceback.print_exc(file=sys.stderr)
            fault = ["CumulantError", f"{message.verb} failed: {type(error).__name__}", None, None]
            return ChannelMessage("error", message.number, body=fault)
        return ChannelMessage("answer", message.number, body=body)

    def _send(self, message: ChannelMessage) -> None:
        if self._writer.is_closing():
            raise GoneError("a process of the server has ended")
        content = msgspec.msgpack.encode(message)
        self._writer.write(_LENGTH.pack(len(content)) + content)


def describe_error(error: CumulantError) -> tuple[str, str, str | None, str | None]:
    """Serializable form of an error: class name, message, subject, hint."""
    kind = next(base.__name__ for base in type(error).__mro__ if hasattr(errors, base.__name__))
    return kind, error.message, error.subject, error.hint


def restore_error(described: Sequence[Any]) -> CumulantError:
    """Error from its serializable form."""
    kind = getattr(errors, str(described[0]), CumulantError)
    if not (isinstance(kind, type) and issubclass(kind, CumulantError)):
        kind = CumulantError
    error: CumulantError = kind(str(described[1]), subject=described[2], hint=described[3])
    return error
