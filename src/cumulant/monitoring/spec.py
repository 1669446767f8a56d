"""The section `monitoring` of the project file: how a served model is watched."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cumulant.monitoring.alerts.spec import AlertsSpec
from cumulant.review.spec import ReviewSpec

Duration = Annotated[str, Meta(extra={"text": "duration"})]
Share = Annotated[str | float, Meta(extra={"text": "share"})]


class DriftSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a change of the rows is an alarm: it is large enough to matter, and it is not chance."""

    window: Annotated[
        Duration,
        Meta(description="Rows are looked at in windows of this length. Rows of one window may depend on each other."),
    ] = "1d"
    false_alarms: Annotated[
        Share, Meta(description="How often a month in which nothing changes may show any alarm, over all features.")
    ] = "5%"
    effect: Annotated[
        float,
        Meta(gt=0, lt=1, description="Least change of a feature that matters: Jensen-Shannon distance, from 0 to 1."),
    ] = 0.1
    answers: Annotated[
        float, Meta(gt=0, lt=1, description="Least change of the predictions or labels that matters, in the same unit.")
    ] = 0.05
    missing: Annotated[Share, Meta(description="Least growth of the share of missing values that matters.")] = "5%"
    faults: Annotated[
        Share, Meta(description="Least share of unseen categories, impossible or unreadable values that matters.")
    ] = "1%"
    spans: Annotated[
        list[Annotated[int, Meta(ge=1)]],
        Meta(min_length=1, description="How many of the newest windows are looked at together, at each look."),
    ] = msgspec.field(default_factory=lambda: [1, 7])
    weights: Annotated[
        dict[str, Annotated[float, Meta(ge=0)]],
        Meta(description="What a feature counts against the others, 1 where nothing is said; 0 never alarms."),
    ] = {}
    ignore: Annotated[list[str], Meta(description="Columns that are not watched.")] = []


class RetrainSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a new model is trained without a person asking."""

    when: Annotated[
        Literal["loss_confirmed", "never"],
        Meta(description="`loss_confirmed`: labels show that the champion became worse. `never`: only by hand."),
    ] = "never"
    at_most: Annotated[str, Meta(description="An upper bound, as a number a period.", extra={"text": "rate"})] = (
        "2/month"
    )
    approval: Annotated[
        Literal["none", "release"],
        Meta(description="`release`: the new model passes the approval of `release.approval`."),
    ] = "release"


class MonitoringSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a served model is watched."""

    labels: Annotated[
        str | None,
        Meta(description="Where labels arrive later: a path, glob or URL with the key, the target and `known_time`."),
    ] = None
    notify: Annotated[
        list[str],
        Meta(
            description="Who is told of alerts and releases, by URL: `slack+https://`, `webhook+https://` (also plain "
            "`https://`), `smtp://`, `smtps://`, `alertmanager://`; `${secret:NAME}` is filled in on use."
        ),
    ] = []
    alerts: Annotated[AlertsSpec, Meta(description="What becomes an alert, and how much people are told.")] = (
        AlertsSpec()
    )
    drift: Annotated[DriftSpec, Meta(description="When a change of the rows is an alarm.")] = DriftSpec()
    retrain: Annotated[RetrainSpec, Meta(description="When to train again.")] = RetrainSpec()
    review: Annotated[ReviewSpec | None, Meta(description="The review queue; left out, nothing is queued.")] = None
