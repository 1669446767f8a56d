"""What a release reports. Versions and figures, never rows."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from cumulant.core.events import Fact


class ReleaseStarted(Fact, frozen=True, kw_only=True):
    """A release of a candidate started."""

    kind: ClassVar[str] = "release.started"
    release: str
    model: str
    champion: str
    candidate: str
    steps: tuple[str, ...]


class StepBegun(Fact, frozen=True, kw_only=True):
    """The gateway was set to the next step. Percent of keys."""

    kind: ClassVar[str] = "release.step_begun"
    release: str
    model: str
    step: str
    weight: float
    mirror: float
    reason: str


class ReleaseHeld(Fact, frozen=True, kw_only=True):
    """A release stopped: `paused` by an operator, or `awaiting_approval`."""

    kind: ClassVar[str] = "release.held"
    release: str
    model: str
    status: str
    step: str
    reason: str


class ReleaseResumed(Fact, frozen=True, kw_only=True):
    """A release continued after a pause or an approval."""

    kind: ClassVar[str] = "release.resumed"
    release: str
    model: str
    step: str
    reason: str


class SloHeld(Fact, frozen=True, kw_only=True):
    """A release does not go on to its next step while the served model misses an objective."""

    kind: ClassVar[str] = "release.slo_held"
    release: str
    model: str
    step: str
    reason: str


class SloMet(Fact, frozen=True, kw_only=True):
    """The objectives that held a release are met again."""

    kind: ClassVar[str] = "release.slo_met"
    release: str
    model: str
    step: str


class SloOverridden(Fact, frozen=True, kw_only=True):
    """An operator lets a release go on whatever the objectives are. `hold`: the one that was missed; may be empty."""

    kind: ClassVar[str] = "release.slo_overridden"
    release: str
    model: str
    hold: str
    reason: str


class MetricReported(Fact, frozen=True, kw_only=True):
    """One metric at the moment of a decision; `harm` and `fine` are e-values, `needed` what each must reach."""

    kind: ClassVar[str] = "release.figure"
    metric: str
    champion: float | None
    candidate: float | None
    low: float | None
    high: float | None
    margin: float | None
    harm: float
    harm_needed: float | None
    fine: float
    fine_needed: float


class ReleaseEnded(Fact, frozen=True, kw_only=True):
    """`promoted`, `rolled_back`, `inconclusive` or `superseded`, with the figures of that moment."""

    kind: ClassVar[str] = "release.ended"
    release: str
    model: str
    champion: str
    candidate: str
    status: str
    reason: str
    step: str
    figures: tuple[MetricReported, ...]
    #: the rollback that ended it, as its event names it; empty: it ended otherwise
    rollback: str = ""


class ReleaseTold(Fact, frozen=True, kw_only=True):
    """Messages about its end were queued for so many receivers; `notify.delivered` records each delivery."""

    kind: ClassVar[str] = "release.told"
    release: str
    model: str
    receivers: int


class RolledBack(Fact, frozen=True, kw_only=True):
    """An operator sent all traffic to a version, outside of a running release, at the moment `at`."""

    kind: ClassVar[str] = "release.rolled_back"
    model: str
    given_up: str
    version: str
    reason: str
    at: datetime
    #: its identifier, also in the routes that it put in force
    rollback: str = ""


class ReleaseWaits(Fact, frozen=True, kw_only=True):
    """A newer candidate was declared to wait until the release that runs is over."""

    kind: ClassVar[str] = "release.waits"
    model: str
    uri: str
    running: str
