"""Sections that later rooms read: `release` and `monitoring`. They are checked like every other section."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class ApprovalSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who must agree to a release, and before which stage."""

    before: Annotated[
        Literal["shadow", "canary", "full"], Meta(description="The stage that waits for the approval.")
    ] = "full"
    by: Annotated[list[str], Meta(description="Groups whose members may approve.", min_length=1)]
    excluded: Annotated[
        Literal["author", "nobody"],
        Meta(description="Who may not approve, whatever their groups: `author` is whoever started the training."),
    ] = msgspec.field(default="author", name="not")


class ReleaseSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a candidate takes over from the champion. Read by the release room."""

    approval: Annotated[
        Literal["none"] | ApprovalSpec,
        Meta(description="`none`, or who must agree before which stage. With `risk: high` it may not be `none`."),
    ] = "none"
    key: Annotated[
        str | None,
        Meta(description="A request column: rows with the same value stay on one version during a release."),
    ] = None


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
        list[str], Meta(description="URLs that receive alerts; usually `${secret:NAME}`, filled in on use.")
    ] = []
    retrain: Annotated[RetrainSpec, Meta(description="When to train again.")] = RetrainSpec()
    review: Annotated[ReviewSpec | None, Meta(description="The review queue; left out, nothing is queued.")] = None
