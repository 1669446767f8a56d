"""The world of simulated releases: callers, keys, versions, labels; an omitted section means a sound candidate."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Rate = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Hour = Annotated[int, Meta(ge=0, le=23)]
Stage = Annotated[str, Meta(min_length=1)]
Span = Annotated[str, Meta(extra={"text": "duration"})] | NotNegative
Profile = Annotated[list[NotNegative], Meta(min_length=24, max_length=24)]
Hours = Annotated[list[Hour], Meta(min_length=1)]

_STAGE = "`shadow`, `ab`, `canary` (its first step), or a step such as `canary 95%`"


class WorldSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section of a world."""


class WorldTraffic(WorldSection, frozen=True, kw_only=True):
    """How many requests come, and when."""

    requests_per_second: Annotated[Positive, Meta(description="Mean requests a second, Poisson.")] = 200.0
    profile: Annotated[
        Profile | None, Meta(description="24 factors on the requests a second, one an hour of the day.")
    ] = None
    release_hours: Annotated[
        Positive | Hours | None,
        Meta(
            description="A number: hours after which a release that is not over is cut off and counts as inconclusive; "
            "default: as long as 20 million requests or 70,000 looks take. A list: hours of the day at which "
            "releases begin, one drawn for each; default: any."
        ),
    ] = None


class HeavyKey(WorldSection, frozen=True, kw_only=True):
    """One key with much of the traffic, whichever arm it falls to."""

    share: Annotated[float, Meta(gt=0, lt=1, description="Its share of all requests.")]
    errors: Annotated[
        Rate | None, Meta(description="Share of its requests that fail, in either arm; default: as the arm's others.")
    ] = None
    latency_ratio: Annotated[Positive, Meta(description="Its latency over that of others, in either arm.")] = 1.0


class WorldKeys(WorldSection, frozen=True, kw_only=True):
    """Keys that keep a caller on one arm: a uniform hash below the weight is the candidate's, at every weight above."""

    count: Annotated[int, Meta(ge=1, le=10_000_000, description="How many keys there are beside the heavy ones.")] = (
        20_000
    )
    zipf: Annotated[
        NotNegative, Meta(description="The key of rank r sends requests in proportion to r to the power of minus this.")
    ] = 0.0
    heavy: Annotated[list[HeavyKey], Meta(description="Keys with a share of the traffic of their own.")] = []


class Errors(WorldSection, frozen=True, kw_only=True):
    """Share of requests that fail, independently of each other but for `bursts`. None of them is a time-out."""

    champion: Annotated[Rate, Meta(description="Of the champion's requests.")] = 0.005
    candidate: Annotated[Rate | None, Meta(description="Of the candidate's; default: as the champion's.")] = None
    from_stage: Annotated[
        Stage | None,
        Meta(description=f"Before this stage the candidate fails as the champion does: {_STAGE}. Default: at once."),
    ] = None


class Bursts(WorldSection, frozen=True, kw_only=True):
    """The failure rate is multiplied by a gamma factor with mean 1, constant over intervals."""

    of: Annotated[
        Literal["own", "shared"], Meta(description="Whether each arm has factors of its own, or both have the same.")
    ] = "own"
    cv: Annotated[NotNegative, Meta(description="Coefficient of variation of the factor.")] = 1.0
    seconds: Annotated[float, Meta(ge=1, description="Length of an interval.")] = 60.0


class Outage(WorldSection, frozen=True, kw_only=True):
    """One arm fails for a while from the start of a stage."""

    arm: Annotated[Literal["champion", "candidate"], Meta(description="Whose requests fail.")]
    stage: Annotated[Stage, Meta(description=f"It begins with this stage: {_STAGE}.")]
    seconds: Annotated[Positive, Meta(description="How long it lasts.")] = 60.0
    rate: Annotated[Rate, Meta(description="Share of that arm's requests that fail meanwhile.")] = 1.0


class Latency(WorldSection, frozen=True, kw_only=True):
    """How long an answer takes: log-normal."""

    median_ms: Annotated[Positive, Meta(description="Median of the champion's, in milliseconds.")] = 20.0
    sigma: Annotated[NotNegative, Meta(description="Standard deviation of the logarithm.")] = 0.5
    ar1: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="Autocorrelation, from look to look, of each arm's own level, whose standard deviation is a "
            "fifth of sigma and a part of it. 0: there is no level, requests are independent.",
        ),
    ] = 0.0
    ratio: Annotated[Positive, Meta(description="The candidate's over the champion's.")] = 1.0


class ColdStart(WorldSection, frozen=True, kw_only=True):
    """What the candidate is like when it begins to answer callers, in its first step with a weight."""

    seconds: Annotated[Positive, Meta(description="How long, from the first look with requests of its own.")] = 60.0
    latency_ratio: Annotated[Positive, Meta(description="Its latency over what it is later.")] = 3.0
    errors: Annotated[
        Rate | None, Meta(description="Share of its requests that fail meanwhile; default: as later.")
    ] = None


class RareLoss(WorldSection, frozen=True, kw_only=True):
    """Few rows that carry much of the difference."""

    share: Annotated[Rate, Meta(description="Share of the rows.")]
    size: Annotated[float, Meta(description="What the candidate loses more in such a row.")]


class Quality(WorldSection, frozen=True, kw_only=True):
    """Losses of mirrored rows, and when and of which rows a label comes.

    The difference (candidate less champion) of one row is normal with `loss_sd`, plus `rare_loss`, plus the day's own,
    plus a constant that makes the mean over all rows and days `difference`.
    """

    loss: Annotated[float, Meta(description="The champion's mean loss of a row.")] = 0.1
    loss_sd: Annotated[NotNegative, Meta(description="Standard deviation of the difference of one row.")] = 0.17
    rare_loss: Annotated[RareLoss | None, Meta(description="Few rows with a large difference.")] = None
    day_sd: Annotated[
        NotNegative, Meta(description="Standard deviation of what all rows of one day share of the difference.")
    ] = 0.0
    difference: Annotated[float, Meta(description="Mean difference over all rows; above 0 the candidate is worse.")] = (
        0.0
    )
    label_delay: Annotated[
        Span, Meta(description="From a request to its label: seconds, or a duration such as `7d`.")
    ] = 0.0
    labelled: Annotated[
        Literal["all", "positives", "high_scores"],
        Meta(
            description="Rows whose label comes. A tenth of the rows is positive; a tenth has high scores, of which "
            "60% are positive. With `scores.shift` s, the candidate loses 1.8 s less in positive rows and 0.2 s more "
            "in others."
        ),
    ] = "all"


class Scores(WorldSection, frozen=True, kw_only=True):
    """How the candidate's answers to mirrored rows differ from the champion's."""

    disagreement: Annotated[Rate, Meta(description="Share of the decisions that differ.")] = 0.01
    shift: Annotated[float, Meta(ge=-1, le=1, description="What is added to the mean score.")] = 0.0


class WorldSplit(WorldSection, frozen=True, kw_only=True):
    """Requests that are lost on their way to the log."""

    lost_share: Annotated[Rate, Meta(description="Share of the candidate's requests that never reach the log.")] = 0.0
    from_stage: Annotated[Stage | None, Meta(description=f"From this stage on: {_STAGE}. Default: at once.")] = None


class ReleaseWorld(WorldSection, frozen=True, kw_only=True):
    """The conditions of a simulated release. `expect`: which end is right."""

    description: Annotated[str, Meta(description="What the world is, in a sentence.")] = ""
    expect: Annotated[
        Literal["sound", "broken", "any"],
        Meta(
            description="`sound`: a rollback is wrong. `broken`: a promotion is wrong. `any`: neither is. "
            "A release that is refused before it begins counts as rolled back."
        ),
    ] = "any"
    traffic: Annotated[WorldTraffic, Meta(description="How many requests come, and when.")] = WorldTraffic()
    keys: Annotated[WorldKeys | None, Meta(description="Keys of callers; `null`: requests have none.")] = None
    errors: Annotated[Errors, Meta(description="Requests that fail.")] = Errors()
    bursts: Annotated[Bursts | None, Meta(description="Failures that come together.")] = None
    outages: Annotated[list[Outage], Meta(description="Times in which one arm fails.")] = []
    latency: Annotated[Latency, Meta(description="How long answers take.")] = Latency()
    cold_start: Annotated[ColdStart | None, Meta(description="A candidate that begins slowly.")] = None
    quality: Annotated[
        Quality | None, Meta(description="Losses and labels; `null`: no label ever comes, in the past neither.")
    ] = Quality()
    scores: Annotated[Scores, Meta(description="The candidate's answers against the champion's.")] = Scores()
    split: Annotated[WorldSplit, Meta(description="Requests that the log lacks.")] = WorldSplit()
    policy: Annotated[
        dict[str, Any],
        Meta(description="Keys of the section `release` that replace those of the project, key by key."),
    ] = {}
