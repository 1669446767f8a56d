"""Alertmanager by its API v2: one POST says what fires and what is over; grouping and silences are its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cumulant.drivers.webhook.posting import Target, post
from cumulant.ports.notifier import Message

#: an alert that is not sent again for so long is over for Alertmanager
_FOR_GOOD = timedelta(days=7)
#: what is no alert, such as the end of a release, fires for so long
_NOTICE = timedelta(minutes=5)


class Alertmanager:
    """`alertmanager://HOST:PORT[/PREFIX]`, `alertmanager+https://...`: an alert's identity is its labels `alertname`
    (the rule), `model`, `subject` and `severity`.
    """

    def __init__(self, url: str) -> None:
        plain = url if url.startswith("alertmanager+") else url.replace("alertmanager://", "alertmanager+http://", 1)
        self._target = Target(plain, "alertmanager+")
        self._target.url = f"{self._target.url.rstrip('/')}/api/v2/alerts"

    def __repr__(self) -> str:
        return f"Alertmanager({self._target!r})"

    def send(self, message: Message, *, seconds: float) -> str:
        post(self._target, alerts(message, datetime.now(UTC)), key=message.key, seconds=seconds)
        return ""


def alerts(message: Message, now: datetime) -> list[dict[str, object]]:
    """The body of the POST: the alert, and its end under the level that it had before."""
    begun = min(message.at, now)
    if message.ended is not None:
        ends = max(begun, min(message.ended, now))
    else:
        ends = now + (_FOR_GOOD if message.kind == "alert" else _NOTICE)
    found = [_alert(message, message.level, begun, ends)]
    if message.was is not None:
        found.append(_alert(message, message.was, begun, now))
    return found


def _alert(message: Message, severity: str, begun: datetime, ends: datetime) -> dict[str, object]:
    labels = {"alertname": message.rule, "model": message.model, "subject": message.subject, "severity": severity}
    annotations = {"summary": message.title, "description": message.text}
    return {"labels": labels, "annotations": annotations, "startsAt": _written(begun), "endsAt": _written(ends)}


def _written(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
