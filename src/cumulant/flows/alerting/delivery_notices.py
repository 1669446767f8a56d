"""Notices to a receiver about its own messages: left out, or refused."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from cumulant.ports.notifier import Message

if TYPE_CHECKING:
    from cumulant.flows.alerting.outbox import LeftOut

_REFUSED = "refused"


def left_out_notice(project: str, missed: LeftOut, now: datetime) -> Message:
    """That so many messages went, because the receiver took none for long."""
    count, since = missed.messages, missed.since
    text = (
        f"{count} messages since {since:%Y-%m-%d %H:%M} UTC were left out, because this receiver took none for long. "
        "`cumulant alerts list` shows what fires, `cumulant events list --kind alert.fired` what did."
    )
    title = f"warning: {count} messages of {project} were left out"
    key = f"left-out/{since.isoformat()}/{count}"
    return _notice(key, project=project, rule="left_out", title=title, text=text, now=now)


def refused_notice(project: str, refused: Message, fault: str, now: datetime) -> Message | None:
    """That the receiver refuses a message: short, so that it may take this one. None where it refused such a one."""
    if refused.rule == _REFUSED and refused.kind == "notice":
        return None
    text = (
        f"This receiver refuses a message of {refused.at:%Y-%m-%d %H:%M} UTC: {fault[:200]}. "
        "`cumulant alerts list` shows which and what fires; `cumulant alerts retry` sends it again."
    )
    title = f"warning: a message of {project} cannot be delivered"
    return _notice(f"refused/{refused.key}", project=project, rule=_REFUSED, title=title, text=text, now=now)


def _notice(key: str, *, project: str, rule: str, title: str, text: str, now: datetime) -> Message:
    return Message(
        key=key,
        kind="notice",
        status="notice",
        level="warning",
        model=project,
        rule=rule,
        subject="messages",
        title=title,
        text=text,
        at=now,
    )
