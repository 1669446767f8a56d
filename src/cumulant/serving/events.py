"""Events of serving. They are written by the process that starts the server, not by the server."""

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
    """A server was stopped after it answered all accepted requests."""

    kind: ClassVar[str] = "serving.stopped"

    model: str
    version: str
    url: str
