"""The port `notifier` on webhooks: the whole message as JSON, or one text as Slack takes it."""

from __future__ import annotations

import msgspec

from cumulant.drivers.webhook.posting import WebhookClient, post
from cumulant.ports.notifier import Message


class Webhook(WebhookClient):
    """`webhook+https://[USER:PASSWORD@]HOST/PATH`: a JSON document with the message's fields, `text` among them.

    A repeated message has the same header `Idempotency-Key`.
    """

    prefix = "webhook+"

    def send(self, message: Message, *, seconds: float) -> str:
        post(self._target, msgspec.to_builtins(message), key=message.key, seconds=seconds)
        return ""


class Slack(WebhookClient):
    """`slack+https://HOST/PATH`: an incoming webhook of Slack, or of what takes the same `{"text": ...}`."""

    prefix = "slack+"

    def send(self, message: Message, *, seconds: float) -> str:
        text = f"*{_escape(message.title)}*\n{_escape(message.text)}"
        post(self._target, {"text": text}, key=message.key, seconds=seconds)
        return ""


def _escape(text: str) -> str:
    """Escape as Slack requires: otherwise a value such as `<!channel>` would notify everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
