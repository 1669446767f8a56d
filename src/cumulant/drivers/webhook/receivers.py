"""Webhooks: the whole message as JSON, or one text in Slack's style."""

from __future__ import annotations

import msgspec

from cumulant.drivers.webhook.posting import Target, post
from cumulant.ports.notifier import Message


class Webhook:
    """`webhook+https://[USER:PASSWORD@]HOST/PATH`: a JSON document with the message's fields, `text` among them.

    The header `Idempotency-Key` is the same when a message is sent again.
    """

    def __init__(self, url: str) -> None:
        self._target = Target(url, "webhook+")

    def __repr__(self) -> str:
        return f"Webhook({self._target!r})"

    def send(self, message: Message, *, seconds: float) -> str:
        post(self._target, msgspec.to_builtins(message), key=message.key, seconds=seconds)
        return ""


class Slack:
    """`slack+https://HOST/PATH`: an incoming webhook of Slack, or of what takes the same `{"text": ...}`."""

    def __init__(self, url: str) -> None:
        self._target = Target(url, "slack+")

    def __repr__(self) -> str:
        return f"Slack({self._target!r})"

    def send(self, message: Message, *, seconds: float) -> str:
        text = f"*{_escaped(message.title)}*\n{_escaped(message.text)}"
        post(self._target, {"text": text}, key=message.key, seconds=seconds)
        return ""


def _escaped(text: str) -> str:
    """As Slack asks: otherwise a value such as `<!channel>` would call everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
