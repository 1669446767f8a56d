"""The release policy as numbers: times in seconds (`timedelta` where added to a moment), shares from 0 to 1."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import msgspec

from cumulant.core.errors import UsageError
from cumulant.release.steps import ReleaseStep

#: among the groups that may approve: whoever is allowed to, of any group or none
ANYBODY = "*"

#: which objectives of the served model stop a release: with a spent budget or a paging burn rate, the latter, none
SloGate = Literal["budget", "page", "none"]

Kind = Literal["failures", "latency", "pairs", "own"]

#: the metrics that are measured without being declared
KINDS: dict[str, Kind] = {
    "errors": "failures",
    "timeouts": "failures",
    "latency": "latency",
    "disagreement": "pairs",
    "prediction": "pairs",
    "distance": "pairs",
    "quality": "pairs",
}


class ApprovalPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Who must agree to a release, and before which stage."""

    before: Literal["canary", "promote"] = "promote"
    #: groups, or `ANYBODY`
    by: tuple[str, ...]
    #: whoever started the training, or nobody
    excluded: Literal["author", "nobody"] = "author"


class MetricPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What the project declares of one metric; None: the metric's own default."""

    #: in the metric's unit; for latency a share of the champion's
    margin: float | None = None
    #: part of alpha, against the others' parts
    part: float | None = None
    required: bool | None = None
    quantile: float | None = None
    #: a metric of the project's own: a query, or a function `file.py:name`; its least and greatest value
    prometheus: str | None = None
    call: str | None = None
    bounds: tuple[float, float] | None = None
    better: Literal["lower", "higher"] = "lower"
    #: seconds
    block: float | None = None


class CeilingPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Failures that need no statistics: above these the candidate is rolled back by the next check."""

    #: share of the requests of the last seconds that fail, and fewest requests for it
    errors: float
    requests: int
    #: seconds without a ready server
    not_ready: float
    #: within a minute
    restarts: int


class PairedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of both versions on labelled rows of the past: how far back, and most rows."""

    span: timedelta
    rows: int


class ReleasePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A release's steps, what decides in them, and what follows. `alpha`: how often a sound candidate may fall."""

    steps: tuple[ReleaseStep, ...]
    approval: ApprovalPolicy | None
    #: the request column by which rows stay on one version
    key: str | None
    alpha: float
    metrics: dict[str, MetricPolicy]
    #: None: the versions are not compared on labelled rows of the past
    evaluation: PairedPolicy | None
    #: largest part of the champion's loss that a candidate may save on these rows
    largest_gain: float
    ceilings: CeilingPolicy
    #: PEM file of those who sign certificates of external servers, relative to the project
    authority: str | None
    warm_up: float
    newer: Literal["supersedes", "waits"]
    keep_warm: timedelta
    #: seconds between two looks, and of one block of evidence
    look: float
    block: float
    slo: SloGate = "budget"

    @property
    def holdback(self) -> ReleaseStep | None:
        """The step that waits for labels, if any."""
        return self.steps[-1] if self.steps[-1].stage == "holdback" else None


def check_approval_stage(steps: tuple[ReleaseStep, ...], approval: ApprovalPolicy | None) -> None:
    """Raises UsageError where an approval before the canary has no earlier step to wait in."""
    if approval is not None and approval.before == "canary" and steps[0].stage == "canary":
        raise UsageError(
            "release.approval waits before the canary, which is the first stage",
            subject="release.approval.before",
            hint="keep the stage `shadow` or `ab`, or write `before: promote`",
        )
