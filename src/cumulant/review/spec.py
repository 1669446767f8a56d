"""The part `monitoring: review` of the project file: which predictions people look at, and how."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Duration = Annotated[str, Meta(extra={"text": "duration"})]
Share = Annotated[str | float, Meta(extra={"text": "share"})]
Reason = Literal["unsure", "far", "disagree", "slice"]


class ReviewSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which predictions people look at."""

    budget: Annotated[
        str, Meta(description="How many rows reviewers can answer, as a number per period.", extra={"text": "rate"})
    ]
    sample: Annotated[
        Share, Meta(description="Share of the budget that is drawn at random, so that figures stay honest.")
    ] = "20%"
    reasons: Annotated[
        list[Reason],
        Meta(
            description="Why else a row is queued: `unsure` (more than one answer is possible), `far` from the "
            "training data, `disagree` (champion and candidate), a watched `slice`."
        ),
    ] = msgspec.field(default_factory=lambda: ["unsure", "far", "disagree", "slice"])
    error: Annotated[
        Share, Meta(description="In which share of rows the set of possible answers may miss the truth.")
    ] = "10%"
    far: Annotated[Share, Meta(description="Which share of the training rows lies as far out as a row called far.")] = (
        "1%"
    )
    slices: Annotated[
        list[str], Meta(description="Conditions over the fields of a request, such as `amount > 1000`: rows to watch.")
    ] = []
    deadline: Annotated[Duration, Meta(description="After it a case without an answer is closed.")] = "3d"
    fallback: Annotated[
        Literal["drop", "escalate"],
        Meta(
            description="What becomes of such a case: it gets no label, or those of `escalate_to` get it for as long "
            "again."
        ),
    ] = "drop"
    lease: Annotated[Duration, Meta(description="How long a case is kept for the reviewer who took it.")] = "30m"
    blind: Annotated[bool, Meta(description="Hide the model's answer until the reviewer has decided.")] = True
    second: Annotated[Share, Meta(description="Share of the cases that two reviewers decide independently.")] = "10%"
    escalate_to: Annotated[
        list[str], Meta(description="Users or groups that get escalated cases; left out, everybody does.")
    ] = []
    reviewers: Annotated[
        Literal["hashed", "named"], Meta(description="How reviewers stand beside labels and in exported files.")
    ] = "hashed"
    weights: Annotated[
        Literal["none", "sampling"],
        Meta(
            description="How training counts a reviewed row: once, or (`sampling`) as the rows that it was drawn for."
        ),
    ] = "none"
