"""What serving reports. The server itself writes no events: whoever starts it does."""

from __future__ import annotations

from typing import ClassVar

from cumulant.core.events import Fact


class ServiceStarted(Fact, frozen=True, kw_only=True):
    """A server answers for a model version."""

    kind: ClassVar[str] = "serving.started"

    model: str
    version: str
    url: str


class ServiceStopped(Fact, frozen=True, kw_only=True):
    """A server was asked to end and has answered what it had accepted."""

    kind: ClassVar[str] = "serving.stopped"

    model: str
    version: str
    url: str
