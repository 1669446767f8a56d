"""What changes of the routes report: versions and shares, never requests."""

from __future__ import annotations

from typing import ClassVar

from cumulant.core.events import Fact


class RoutesChanged(Fact, frozen=True, kw_only=True):
    """The routes of a model that all gateways are to work by. Percent of keys; `host`: the gateway that had them first,
    from a rollback that could not reach the journal.
    """

    kind: ClassVar[str] = "traffic.routes_changed"
    model: str
    revision: int
    champion: str
    candidate: str | None
    weight: float
    mirror: float
    host: str = ""


class RoutesApplied(Fact, frozen=True, kw_only=True):
    """The gateway of a machine works by a revision of a model's routes."""

    kind: ClassVar[str] = "traffic.routes_applied"
    model: str
    revision: int
    host: str
