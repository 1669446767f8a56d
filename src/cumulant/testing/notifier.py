"""A receiver in memory."""

from __future__ import annotations

from cumulant.core.errors import CumulantError
from cumulant.ports.notifier import Message


class MemoryNotifier:
    """Port `notifier`: stores what it took. While `fault` is set, `send` raises it."""

    def __init__(self) -> None:
        self.taken: list[Message] = []
        self.fault: CumulantError | None = None

    def send(self, message: Message, *, seconds: float) -> str:
        del seconds
        if self.fault is not None:
            raise self.fault
        self.taken.append(message)
        return ""
