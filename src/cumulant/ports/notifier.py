"""Port `notifier`: a message to people, or to a system that manages alerts."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Protocol

import msgspec

Level = Literal["info", "warning", "critical"]
Kind = Literal["alert", "digest", "release", "notice", "test"]

#: capability: the receiver stores, groups and silences alerts itself. It gets each one, also those that are
#: not sent to people, and repeatedly while one fires, since it may lose its state
KEEPS_STATE = "keeps-state"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a message. Figures and references, never rows and never a secret.

    `key` is the same when a message is sent again: a receiver that knows it can ignore it. `status` of an alert:
    `firing` or `resolved`; of a release how it stands. `title` is one line, `text` all that a person needs.
    """

    key: str
    kind: Kind
    status: str
    level: Level
    model: str
    rule: str
    subject: str
    title: str
    text: str
    at: datetime
    since: datetime | None = None
    ended: datetime | None = None
    #: the level before it was raised, under which a receiver that stores alerts knows it
    was: Level | None = None
    detail: dict[str, object] = {}


class Notifier(Protocol):
    """One receiver, made for its URL. No error contains what may be a secret: path, query and password of the URL."""

    def send(self, message: Message, *, seconds: float) -> str:
        """Send the message; returns what the receiver replied that a person should know, or nothing.

        Returns or raises within about `seconds`, also where the receiver takes the message and sends nothing, or sends
        it drop by drop. A message that was given up may have arrived: it is sent again under its key.

        Raises:
            OverloadedError: the receiver requests a pause; `retry_after` is its length in seconds.
            EngineUnavailableError: it does not answer, or answers that it cannot now.
            UndeliverableError: it refuses this message, and may take others: it is too large, or not of its form.
            TerminalError: it refuses: the address or the credentials are wrong, so that it would refuse any.
        """
        ...
