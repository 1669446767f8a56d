"""The part `monitoring: review` of the project file."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Duration = Annotated[str, Meta(extra={"text": "duration"})]
Share = Annotated[str | float, Meta(extra={"text": "share"})]
Reason = Literal["unsure", "far", "disagree", "slice"]


class ReviewSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which predictions are reviewed, and how."""

    budget: Annotated[
        str, Meta(description="How many rows reviewers can answer, as a number per period.", extra={"text": "rate"})
    ]
    sample: Annotated[Share, Meta(description="Share of the budget that is drawn at random, for unbiased figures.")] = (
        "20%"
    )
    reasons: Annotated[
        list[Reason],
        Meta(
            description="Why else a row is queued: `unsure` (more than one answer is possible), `far` from the "
            "training data, `disagree` (champion and candidate), a watched `slice`."
        ),
    ] = msgspec.field(default_factory=lambda: ["unsure", "far", "disagree", "slice"])
    error: Annotated[
        Share, Meta(description="Share of rows in which the set of possible answers may miss the truth.")
    ] = "10%"
    far: Annotated[
        Share, Meta(description="Share of the training rows that are at least as far out as a row called far.")
    ] = "1%"
    slices: Annotated[
        list[str], Meta(description="Conditions over the fields of a request, such as `amount > 1000`: rows to watch.")
    ] = []
    deadline: Annotated[Duration, Meta(description="Time after which a case without an answer is closed.")] = "3d"
    fallback: Annotated[
        Literal["drop", "escalate"],
        Meta(description="Then drop the case without a label, or escalate it to `escalate_to` for as long again."),
    ] = "drop"
    lease: Annotated[Duration, Meta(description="Time for which a case is reserved for the reviewer who took it.")] = (
        "30m"
    )
    blind: Annotated[bool, Meta(description="Hide the model's answer until the reviewer has decided.")] = True
    second: Annotated[Share, Meta(description="Share of the cases that two reviewers decide independently.")] = "10%"
    escalate_to: Annotated[
        list[str], Meta(description="Users or groups that get escalated cases. Default: all reviewers.")
    ] = []
    reviewers: Annotated[
        Literal["hashed", "named"], Meta(description="How reviewers are recorded with labels and in exported files.")
    ] = "hashed"
    weights: Annotated[
        Literal["none", "sampling"],
        Meta(description="Weight of a reviewed row in training: one, or (`sampling`) the rows that it represents."),
    ] = "none"
