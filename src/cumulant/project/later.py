"""The section `monitoring`, which a later room reads. It is checked like every other section."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cumulant.monitoring.alerts.spec import AlertsSpec


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


class ReviewSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which predictions people look at."""

    budget: Annotated[
        str, Meta(description="How many rows people can review, as a number a period.", extra={"text": "rate"})
    ]


class MonitoringSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a served model is watched. Read by the monitoring room."""

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
    retrain: Annotated[RetrainSpec, Meta(description="When to train again.")] = RetrainSpec()
    review: Annotated[ReviewSpec | None, Meta(description="The review queue; left out, nothing is queued.")] = None
