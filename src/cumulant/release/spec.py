"""The section `release` of the project file: how a candidate takes over from the champion."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Duration = Annotated[str, Meta(extra={"text": "duration"})]
Quantile = Annotated[float, Meta(gt=0, lt=1)]
Share = Annotated[str | float, Meta(extra={"text": "share"})]


class ApprovalSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who must agree to a release, and before which stage."""

    before: Annotated[
        Literal["canary", "promote"],
        Meta(description="What waits for the approval: the first canary or the promotion."),
    ] = "promote"
    by: Annotated[
        list[str], Meta(description="Groups whose members may approve; `*`: anybody, of any group.", min_length=1)
    ]
    excluded: Annotated[
        Literal["author", "nobody"],
        Meta(description="Who may not approve, whatever their groups: `author` is whoever started the training."),
    ] = msgspec.field(default="author", name="not")


class ShadowSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Requests of the champion are sent to the candidate too; its answers are compared and never returned."""

    mirror: Annotated[Share, Meta(description="Share of the champion's requests that the candidate sees too.")] = "100%"
    at_least: Annotated[Duration, Meta(description="Shortest time of the stage.")] = "10m"
    at_most: Annotated[Duration, Meta(description="Longest time; then the release ends as inconclusive.")] = "2d"
    samples: Annotated[int, Meta(ge=0, description="Fewest mirrored requests.")] = 500


class AbSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A small share of callers is answered by the candidate, for effects that only show when answers are used."""

    weight: Annotated[Share, Meta(description="Share of the keys that the candidate answers.")] = "10%"
    at_least: Annotated[Duration, Meta(description="Shortest time of the stage.")] = "30m"
    at_most: Annotated[Duration, Meta(description="Longest time; then the release ends as inconclusive.")] = "7d"
    samples: Annotated[int, Meta(ge=0, description="Fewest requests that the candidate answers.")] = 1000
    mirror: Annotated[
        Share, Meta(description="Share of the champion's requests that the candidate sees too, for pairs.")
    ] = "10%"


class CanarySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The candidate's share grows in steps; the rest stays on the champion, so that there is something to compare."""

    weights: Annotated[
        list[Share], Meta(min_length=1, description="Shares of the keys, growing; the last leaves a holdback.")
    ] = msgspec.field(default_factory=lambda: ["10%", "50%", "95%"])
    at_least: Annotated[Duration, Meta(description="Shortest time of each step.")] = "10m"
    soak: Annotated[Duration, Meta(description="Shortest time of the last step.")] = "1h"
    at_most: Annotated[Duration, Meta(description="Longest time of a step; then it ends as inconclusive.")] = "7d"
    samples: Annotated[int, Meta(ge=0, description="Fewest requests of each arm in each step.")] = 500
    mirror: Annotated[
        Share, Meta(description="Share of the champion's requests that the candidate sees too, for pairs.")
    ] = "10%"


class StagesSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a release goes through, in this order. `null` leaves a stage out; the canary stays."""

    shadow: Annotated[ShadowSpec | None, Meta(description="Mirrored requests.")] = ShadowSpec()
    ab: Annotated[AbSpec | None, Meta(description="A fixed small share.")] = AbSpec()
    canary: Annotated[CanarySpec, Meta(description="A growing share.")] = CanarySpec()


class MetricSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing that a candidate must not make worse."""

    margin: Annotated[
        float | str | None,
        Meta(description="How much worse is accepted: in the metric's unit, for latency a share of the champion's."),
    ] = None
    share: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="Its part of alpha, against the others' parts. Default: errors 2, timeouts 0.5, others 1."),
    ] = None
    required: Annotated[
        bool | None,
        Meta(description="A promotion waits until it is shown to be no worse. Default: as the metric needs."),
    ] = None
    quantile: Annotated[Quantile | None, Meta(description="Of latency: which quantile.")] = None
    prometheus: Annotated[
        str | None, Meta(description="A query with `{arm}` in it, which gives one number an arm each look.")
    ] = None
    call: Annotated[
        str | None, Meta(description="A function of the project, `file.py:name`, which takes an arm's predictions.")
    ] = None
    bounds: Annotated[
        tuple[float, float] | None, Meta(description="Of a metric of your own: its least and greatest value.")
    ] = None
    better: Annotated[Literal["lower", "higher"], Meta(description="Of a metric of your own.")] = "lower"
    block: Annotated[
        Duration | None,
        Meta(
            description="Of what is compared in pairs and of your own: how long values may depend on each other, such "
            "as a day of flights or a batch of labels. Default: `release.block`, or longer where earlier pairs need it."
        ),
    ] = None


class CeilingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Failures so large that seconds suffice: above these the candidate is rolled back by the next check."""

    errors: Annotated[
        Share,
        Meta(
            description="Share of failed requests of the last seconds, from which the arms are compared each second; "
            "the candidate is rolled back where it surely fails more than the champion, now and in its worst moment."
        ),
    ] = "20%"
    requests: Annotated[int, Meta(ge=1, description="Fewest requests that this is judged on.")] = 20
    not_ready: Annotated[Duration, Meta(description="How long no server of the candidate may be ready.")] = "3s"
    restarts: Annotated[int, Meta(ge=1, description="Restarts of the candidate's servers within a minute.")] = 3


class PairedSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Both versions score labelled rows of the recent past before a release begins; they give margins and evidence."""

    days: Annotated[Duration, Meta(description="How far back rows are taken.")] = "60d"
    rows: Annotated[int, Meta(ge=200, description="Most rows, the newest ones.")] = 100_000
    gain: Annotated[
        Share,
        Meta(
            description="How much of the champion's loss a candidate may save there: beyond it, it is taken to know "
            "what no request holds, and the release does not begin."
        ),
    ] = "50%"


class HoldbackSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """After the canary the candidate serves all but a share of the callers until labels decide its quality."""

    until: Annotated[
        Literal["labels"], Meta(description="The promotion waits for labels of the release's own requests.")
    ] = "labels"
    share: Annotated[Share, Meta(description="Share of the keys that stays on the champion.")] = "5%"
    mirror: Annotated[
        Share, Meta(description="Share of the champion's requests that the candidate sees too, for pairs.")
    ] = "100%"
    at_most: Annotated[Duration, Meta(description="Longest time; then the release ends as inconclusive.")] = "30d"


class ReleaseSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a candidate takes over from the champion."""

    approval: Annotated[
        Literal["none"] | ApprovalSpec,
        Meta(description="`none`, or who must agree before which stage. With `risk: high` it may not be `none`."),
    ] = "none"
    key: Annotated[
        str | None,
        Meta(description="A request column: rows with the same value stay on one version during a release."),
    ] = None
    slo: Annotated[
        Literal["budget", "page", "none"],
        Meta(
            description="With `serving.slo`, what stops a release from beginning or going on to its next step: "
            "`budget`, an error budget that is spent or burns so fast that it pages; `page`, only the latter; `none`."
        ),
    ] = "budget"
    alpha: Annotated[
        Share, Meta(description="How often a candidate that is no worse may be rolled back, in a whole release.")
    ] = "5%"
    stages: Annotated[StagesSpec, Meta(description="What a release goes through.")] = StagesSpec()
    holdback: Annotated[
        Literal["none", "until_labels"] | HoldbackSpec,
        Meta(
            description="What follows the canary: `none`, the promotion; `until_labels`, all but 5% of the callers get "
            "the candidate until labels of the release's own requests show its quality, which may be weeks."
        ),
    ] = "none"
    metrics: Annotated[
        dict[str, MetricSpec],
        Meta(
            description="Changes of `errors`, `timeouts`, `latency`, `prediction` (mean score), `distance` (mean "
            "absolute difference of scores), `disagreement` and `quality`; any other name is a metric of your own."
        ),
    ] = {}
    evaluation: Annotated[
        PairedSpec | None,
        Meta(description="Both versions on labelled rows of the recent past, before the release begins; null: none."),
    ] = PairedSpec()
    ceilings: Annotated[CeilingSpec, Meta(description="Failures that need no statistics.")] = CeilingSpec()
    authority: Annotated[
        str | None,
        Meta(
            description="Of servers that are not ours, by https: a PEM file of those who may have signed their "
            "certificates, relative to the project. Default: those that the system trusts."
        ),
    ] = None
    warm_up: Annotated[
        Duration,
        Meta(
            description="How long after the candidate first answers callers its figures are left out: caches of a new "
            "process are cold. Hard failures count at once."
        ),
    ] = "60s"
    newer: Annotated[
        Literal["supersedes", "waits"], Meta(description="What a newer candidate does while a release runs.")
    ] = "supersedes"
    keep_warm: Annotated[Duration, Meta(description="How long the former champion stays ready after a promotion.")] = (
        "24h"
    )
    look: Annotated[Duration, Meta(description="Time between two looks at the figures.")] = "10s"
    block: Annotated[
        Duration, Meta(description="Requests closer than this may depend on each other; it is the unit of evidence.")
    ] = "10s"
