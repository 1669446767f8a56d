"""The section `monitoring` of the project file."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cumulant.alerting.alerts_spec import AlertsSpec
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
    volume: Annotated[
        Share,
        Meta(
            description="Least change of the number of rows of a window that matters: the share that is missing of "
            "what the weekdays before let expect, or that lies beyond it. 100%: only windows without any row. Its rate "
            "of false alarms is `false_alarms`, beside that of the columns."
        ),
    ] = "33%"
    spans: Annotated[
        list[Annotated[int, Meta(ge=1)]],
        Meta(min_length=1, description="How many of the newest windows are looked at together, at each look."),
    ] = msgspec.field(default_factory=lambda: [1, 7])
    weights: Annotated[
        dict[str, Annotated[float, Meta(ge=0)]],
        Meta(description="What a feature counts against the others, 1 where nothing is said; 0 never alarms."),
    ] = {}
    ignore: Annotated[list[str], Meta(description="Columns that are not watched.")] = []


class PerformanceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a served model has become worse: it loses more than it should, by enough to matter, and it is not chance."""

    window: Annotated[
        Duration, Meta(description="Labels are looked at in windows of this length, once all that are due have come.")
    ] = "1d"
    margin: Annotated[
        Share, Meta(description="Part of the loss on the test rows that may be lost without being called harm.")
    ] = "5%"
    false_alarms: Annotated[
        Share, Meta(description="How often a model that is as good as ever may be called worse within `look_back`.")
    ] = "5%"
    look_back: Annotated[
        Duration, Meta(description="How long a change may have been going on when it is found; longer ones need more.")
    ] = "60d"
    independent: Annotated[
        bool,
        Meta(
            description="Windows count as independent and near normal. Default: how the windows of the test rows "
            "follow each other and are skewed is learned, and the evidence that shows by chance is taken off."
        ),
    ] = False
    reference_calibration: Annotated[
        bool,
        Meta(
            description="What the model loses because its scores were miscalibrated on its test rows already is no "
            "harm. `false`: it counts, as a recent refit would not lose it."
        ),
    ] = True
    label_delay: Annotated[
        Duration | None,
        Meta(description="How long a label may take. Default: the gap that training left for labels to become known."),
    ] = None
    refit: Annotated[
        Duration | None,
        Meta(
            description="How often a light model is fitted on what is known by then, which the served one is held "
            "against. null: not at all; then only calibration and skill are asked."
        ),
    ] = "7d"


class HistorySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a training that the rule starts learns from; `cumulant monitor backtest --history` says what pays."""

    window: Annotated[
        Duration | None, Meta(description="Only rows whose moment of prediction is at most as old. Default: all rows.")
    ] = None
    half_life: Annotated[
        Duration | None,
        Meta(description="A row that is older by this counts half as much. Default: all rows count the same."),
    ] = None


class RetrainSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a new model is trained without a person asking."""

    when: Annotated[
        Literal["loss_confirmed", "never"],
        Meta(
            description="`loss_confirmed`: labels show that the champion became worse. `never`: not for its loss; "
            "without `every` and `labels` only by hand."
        ),
    ] = "never"
    every: Annotated[
        Duration | None,
        Meta(description="Train also when the model is as old, whatever its loss. Default: no schedule."),
    ] = None
    labels: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="Train also when as many labels are new since the last training. Default: not for their number."
        ),
    ] = None
    hold: Annotated[
        int, Meta(ge=1, description="Looks in a row that must confirm harm before it is a reason to train.")
    ] = 1
    cool_down: Annotated[
        Duration, Meta(description="Time after a training in which no other begins; the schedule `every` goes on.")
    ] = "7d"
    least_labels: Annotated[
        int, Meta(ge=0, description="New labels without which there is nothing to learn from, and no training.")
    ] = 500
    at_most: Annotated[str, Meta(description="An upper bound, as a number a period.", extra={"text": "rate"})] = (
        "2/month"
    )
    history: Annotated[HistorySpec, Meta(description="What such a training learns from. Default: all rows alike.")] = (
        HistorySpec()
    )
    approval: Annotated[
        Literal["none", "release"],
        Meta(
            description="`release`: an approval is needed before the new model takes over, also where "
            "`release.approval` asks for none, and an alias moves by hand. `none`: only where `release.approval` asks."
        ),
    ] = "none"


class MonitoringSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a served model is watched."""

    labels: Annotated[
        str | None,
        Meta(description="Where labels arrive later: a path, glob or URL with the key, the target and `known_time`."),
    ] = None
    notify: Annotated[
        list[str],
        Meta(
            description="Receivers of alerts and releases, by URL: `slack+https://`, `webhook+https://` (also plain "
            "`https://`), `smtp://`, `smtps://`, `alertmanager://`; `${secret:NAME}` is filled in on use."
        ),
    ] = []
    alerts: Annotated[AlertsSpec, Meta(description="What becomes an alert, and how many messages are sent.")] = (
        AlertsSpec()
    )
    drift: Annotated[DriftSpec, Meta(description="When a change of the rows is an alarm.")] = DriftSpec()
    performance: Annotated[PerformanceSpec, Meta(description="When the served model counts as worse.")] = (
        PerformanceSpec()
    )
    retrain: Annotated[RetrainSpec, Meta(description="When to train again.")] = RetrainSpec()
    review: Annotated[ReviewSpec | None, Meta(description="The review queue; left out, nothing is queued.")] = None
