"""The section `monitoring` of the project file."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cumulant.alerting.alerts_spec import AlertsSpec
from cumulant.review.spec import ReviewSpec

Duration = Annotated[str, Meta(extra={"text": "duration"})]
Share = Annotated[str | float, Meta(extra={"text": "share"})]


class DriftSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which change of the rows raises an alarm: a significant one that is large enough to matter."""

    window: Annotated[
        Duration,
        Meta(description="Length of the windows that are compared. Rows of one window may depend on each other."),
    ] = "1d"
    false_alarms: Annotated[
        Share, Meta(description="Chance of any alarm in a month without change, over all features.")
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
            description="Least relative change of a window's row count that matters, against a forecast from the same "
            "weekdays before. 100%: only windows without rows. Its chance of false alarms is another `false_alarms`."
        ),
    ] = "33%"
    spans: Annotated[
        list[Annotated[int, Meta(ge=1)]],
        Meta(min_length=1, description="How many of the newest windows are evaluated together; one number per test."),
    ] = msgspec.field(default_factory=lambda: [1, 7])
    weights: Annotated[
        dict[str, Annotated[float, Meta(ge=0)]],
        Meta(description="Importance of a feature, 1 by default; one with 0 never raises an alarm."),
    ] = {}
    ignore: Annotated[list[str], Meta(description="Columns that are not compared.")] = []


class PerformanceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a served model counts as worse: its loss exceeds the expected one significantly, by enough to matter."""

    window: Annotated[
        Duration, Meta(description="Length of the windows of labels, each evaluated once all labels due have come.")
    ] = "1d"
    margin: Annotated[Share, Meta(description="Relative increase of the loss on the test rows that is not harm.")] = (
        "5%"
    )
    false_alarms: Annotated[
        Share, Meta(description="Chance that an unchanged model is called worse within `look_back`.")
    ] = "5%"
    look_back: Annotated[
        Duration, Meta(description="How old a change may be when it is detected; a longer time needs more evidence.")
    ] = "60d"
    independent: Annotated[
        bool,
        Meta(
            description="Treat windows as independent and near normal. Default: autocorrelation and skewness are "
            "estimated from the test rows, and the evidence is corrected for them."
        ),
    ] = False
    reference_calibration: Annotated[
        bool,
        Meta(
            description="Loss by a miscalibration that the test rows show already is no harm. `false`: it counts, as a "
            "model retrained on recent rows would not have it."
        ),
    ] = True
    label_delay: Annotated[
        Duration | None,
        Meta(description="Time until a label arrives. Default: the gap that training left for labels to become known."),
    ] = None
    refit: Annotated[
        Duration | None,
        Meta(
            description="How often the model is refitted on the rows known by then, to compare it with the served one. "
            "null: never; only calibration and skill are tested."
        ),
    ] = "7d"


class HistorySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rows of a retraining; `cumulant monitor backtest --history` compares the options."""

    window: Annotated[
        Duration | None,
        Meta(description="Use only rows whose moment of prediction is at most this old. Default: all rows."),
    ] = None
    half_life: Annotated[
        Duration | None,
        Meta(description="Age at which a row weighs half as much. Default: equal weights."),
    ] = None


class RetrainSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a model is retrained automatically."""

    when: Annotated[
        Literal["loss_confirmed", "never"],
        Meta(
            description="`loss_confirmed`: when labels show that the champion became worse. `never`: not for its loss; "
            "without `every` and `labels` only manually."
        ),
    ] = "never"
    every: Annotated[
        Duration | None,
        Meta(description="Also train when the model is this old, whatever its loss. Default: no schedule."),
    ] = None
    labels: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Also train when this many labels are new since the last training. Default: never."),
    ] = None
    hold: Annotated[
        int, Meta(ge=1, description="Consecutive evaluations that must confirm harm before a training.")
    ] = 1
    cool_down: Annotated[
        Duration, Meta(description="Time after a training in which only the schedule `every` starts another one.")
    ] = "7d"
    least_labels: Annotated[int, Meta(ge=0, description="Least number of new labels of a training.")] = 500
    at_most: Annotated[str, Meta(description="Most trainings, as a number per period.", extra={"text": "rate"})] = (
        "2/month"
    )
    history: Annotated[HistorySpec, Meta(description="The rows of a retraining. Default: all rows, equally.")] = (
        HistorySpec()
    )
    approval: Annotated[
        Literal["none", "release"],
        Meta(
            description="`release`: a new model needs an approval, even where `release.approval` requires none, and an "
            "alias is moved manually. `none`: only where `release.approval` requires one."
        ),
    ] = "none"


class MonitoringSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a served model is monitored."""

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
    alerts: Annotated[AlertsSpec, Meta(description="Rules of alerts, and limits on notifications.")] = AlertsSpec()
    drift: Annotated[DriftSpec, Meta(description="Which change of the rows raises an alarm.")] = DriftSpec()
    performance: Annotated[PerformanceSpec, Meta(description="When the served model counts as worse.")] = (
        PerformanceSpec()
    )
    retrain: Annotated[RetrainSpec, Meta(description="When to retrain.")] = RetrainSpec()
    review: Annotated[ReviewSpec | None, Meta(description="The review queue. Default: none.")] = None
