"""Replies of a Valkey server, parsed as their bytes arrive."""

from __future__ import annotations

from collections.abc import Iterator

_LINE_END = b"\r\n"
#: digits of a length: a longer line is no reply of this protocol
_LONGEST_LINE = 64 * 1024
#: how a refusal of the user or the password begins
CREDENTIALS = ("NOAUTH", "WRONGPASS", "ERR AUTH", "ERR Client sent AUTH")


class RefusedCommandError(Exception):
    """A command was refused. Its text begins with a code, such as `MOVED`."""


class ReplyError(Exception):
    """The bytes are no replies of this protocol."""


Value = bytes | int | RefusedCommandError | None
Reply = Value | list[Value]
#: the first bytes of values that have a length
_BYTES, _ARRAY = 0x24, 0x2A


class ReplyParser:
    """Parser of RESP version 2 without nested arrays. What was parsed is never looked at again.

    Several times faster than the client library's parser for asyncio, which waits for each value of an array.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._missing = 0
        self._values: list[Value] = []

    def feed(self, data: bytes) -> Iterator[Reply]:
        """The replies that are complete with `data`.

        Raises:
            ReplyError: it is something else.
        """
        self._buffer += data
        buffer, at = self._buffer, 0
        while (stop := buffer.find(_LINE_END, at)) >= 0:
            kind, after = buffer[at], stop + 2
            if kind == _BYTES and (size := _length(buffer, at, stop)) >= 0:
                after += size + 2
                if after > len(buffer):
                    break
                value: Value = bytes(buffer[after - size - 2 : after - 2])
            elif kind == _ARRAY:
                self._missing, at = self._begin_array(_length(buffer, at, stop)), after
                if not self._missing:
                    yield []
                continue
            else:
                value = None if kind == _BYTES else _line(kind, bytes(buffer[at + 1 : stop]))
            at = after
            if not self._missing:
                yield value
                continue
            self._values.append(value)
            self._missing -= 1
            if not self._missing:
                values, self._values = self._values, []
                yield values
        del buffer[:at]
        if len(buffer) > _LONGEST_LINE and _LINE_END not in buffer:
            raise ReplyError("a line without an end")

    def _begin_array(self, count: int) -> int:
        if self._missing:
            raise ReplyError("an array within an array")
        return max(count, 0)


def _length(buffer: bytearray, at: int, stop: int) -> int:
    return _number(buffer[at + 1 : stop])


def _number(text: bytes | bytearray) -> int:
    try:
        return int(text)
    except ValueError:
        raise ReplyError("no number where one belongs") from None


def _line(kind: int, text: bytes) -> Value:
    match kind:
        case 0x2B:  # +
            return text
        case 0x3A:  # :
            return _number(text)
        case 0x2D:  # -
            return RefusedCommandError(text.decode(errors="replace"))
        case _:
            raise ReplyError("an unknown kind of value")


def pack(*parts: bytes) -> bytes:
    """A command as it is sent."""
    return b"".join((b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)))
