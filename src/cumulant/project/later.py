"""The section `monitoring`, which a later room reads. It is checked like every other section."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cumulant.review.spec import ReviewSpec


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
    """How a served model is watched. Read by the monitoring room."""

    labels: Annotated[
        str | None,
        Meta(description="Where labels arrive later: a path, glob or URL with the key, the target and `known_time`."),
    ] = None
    notify: Annotated[
        list[str], Meta(description="URLs that receive alerts; usually `${secret:NAME}`, filled in on use.")
    ] = []
    retrain: Annotated[RetrainSpec, Meta(description="When to train again.")] = RetrainSpec()
    review: Annotated[ReviewSpec | None, Meta(description="The review queue; left out, nothing is queued.")] = None
