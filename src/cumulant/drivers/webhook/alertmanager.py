"""The port `notifier` on Alertmanager's API v2: one POST per message; grouping and silences are Alertmanager's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cumulant.drivers.webhook.posting import WebhookClient, post
from cumulant.ports.notifier import Message

#: Alertmanager resolves an alert that is not sent again within this time
_EXPIRY = timedelta(days=7)
#: how long a message that is no alert fires, such as the end of a release
_NOTICE = timedelta(minutes=5)


class Alertmanager(WebhookClient):
    """`alertmanager://HOST:PORT[/PREFIX]`, `alertmanager+https://...`: an alert's identity is its labels `alertname`
    (the rule), `model`, `subject` and `severity`.
    """

    prefix = "alertmanager+"

    def __init__(self, url: str) -> None:
        super().__init__(url if url.startswith(self.prefix) else url.replace("alertmanager:", "alertmanager+http:", 1))
        self._target.url = f"{self._target.url.rstrip('/')}/api/v2/alerts"

    def send(self, message: Message, *, seconds: float) -> str:
        post(self._target, build_alerts(message, datetime.now(UTC)), key=message.key, seconds=seconds)
        return ""


def build_alerts(message: Message, now: datetime) -> list[dict[str, object]]:
    """The body of the POST: the alert, and its end under the previous level."""
    starts = min(message.at, now)
    if message.ended is not None:
        ends = max(starts, min(message.ended, now))
    else:
        ends = now + (_EXPIRY if message.kind == "alert" else _NOTICE)
    alerts = [_alert(message, message.level, starts, ends)]
    if message.was is not None:
        alerts.append(_alert(message, message.was, starts, now))
    return alerts


def _alert(message: Message, severity: str, starts: datetime, ends: datetime) -> dict[str, object]:
    labels = {"alertname": message.rule, "model": message.model, "subject": message.subject, "severity": severity}
    annotations = {"summary": message.title, "description": message.text}
    return {
        "labels": labels,
        "annotations": annotations,
        "startsAt": _format_time(starts),
        "endsAt": _format_time(ends),
    }


def _format_time(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
