"""Messages that were read and are not committed yet, and the memory that they take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.ports.streams import Messages

#: the most bytes that are asked for at once, and the bytes that a message is thought to have before any was read
_READ, _FIRST_GUESS = 2 << 20, 16
#: bytes that a message takes in memory beside its own, and for each column of its source, whose table has a value there
OVERHEAD, _VALUE = 120, 8


class PendingMessages:
    """The messages of the next batch. `bytes`: with what each takes beside its own."""

    def __init__(self) -> None:
        self.messages: list[Messages] = []
        self.bytes = 0
        self._since = 0.0
        self._message_bytes = float(_FIRST_GUESS)

    @property
    def seconds(self) -> float:
        """Since the first of them was read."""
        return time.monotonic() - self._since

    def begin(self) -> None:
        """Count the time from now on."""
        self._since = time.monotonic()

    def add(self, messages: Messages, columns: int) -> None:
        """Messages of a source with so many columns."""
        count = len(messages.values)
        if not count:
            return
        if not self.messages:
            self.begin()
        self.messages.append(messages)
        size = sum(len(value or b"") for value in messages.values)
        self._message_bytes = max(size / count, 1.0)
        self.bytes += size + _overhead(columns) * count

    def room(self, limit: int, columns: int) -> int:
        """The bytes of messages to ask for, where a batch has `limit` bytes with what each message takes besides."""
        share = self._message_bytes / (self._message_bytes + _overhead(columns))
        return max(min(int((limit - self.bytes) * share), _READ), 1)

    def clear(self) -> None:
        self.messages, self.bytes = [], 0


def _overhead(columns: int) -> int:
    return OVERHEAD + _VALUE * columns
