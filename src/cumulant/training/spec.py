"""The `training` and `evaluation` sections of the project file."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cumulant.core.servable import Task

#: the built-in trainers; `logistic` and `ridge` are what `linear` means for classes and for numbers
BUILT_IN = ("naive", "linear", "logistic", "ridge", "lightgbm", "xgboost", "catboost", "mlp")
#: those of them that need no package of their own
WITHOUT_PART = ("naive", "linear", "logistic", "ridge", "lightgbm", "mlp")
#: those of them whose parameters are searched
SEARCHED = ("lightgbm", "xgboost", "catboost", "mlp")

#: of the intervals of an evaluation
RESAMPLES = 1000
#: the fewest by which both ends of an interval have resamples beyond them; for versions that are never released
QUICK_RESAMPLES = 200

#: of `training.rows`: fewer save neither memory nor time
LEAST_ROWS = 1000
DEFAULT_TRAINERS = ("naive", "linear", "lightgbm")

Parameter = bool | int | float | str | list[int | float | str]


class DecisionCost(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a wrong decision of a binary model costs."""

    false_negative: Annotated[
        float | str, Meta(description="Cost of a missed positive: a number, or a column that holds it for each row.")
    ] = 1.0
    false_positive: Annotated[
        float | str, Meta(description="Cost of a false alarm: a number, or a column that holds it for each row.")
    ] = 1.0


class Threshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many rows a binary model may call positive; exactly one of `alerts` and `rate`."""

    alerts: Annotated[
        str | None, Meta(description="What a team can review, as `100/day`; also `/hour` and `/week`.")
    ] = None
    rate: Annotated[str | float | None, Meta(description="The share of rows called positive: `2%` or `0.02`.")] = None
    source_share: Annotated[
        str | float | None,
        Meta(
            description="Of `alerts`: the part of the traffic that the source holds, as `10%` of a sampled log."
            " Default: all of it; rows without a label count too."
        ),
    ] = None


class TrainingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is learned from which rows, and how long the search for a model may take."""

    target: Annotated[
        str, Meta(description="A column or an expression over columns, such as `arr_delay > 15`; its type is the task.")
    ]
    source: Annotated[
        str | None, Meta(description="The source whose rows are predicted; needed only where several have the target.")
    ] = None
    predict_at: Annotated[
        str | None, Meta(description="The moment of prediction: a time column, with an offset as in `sched_dep - 2h`.")
    ] = None
    since: Annotated[
        str | None, Meta(description="Rows before this date are not trained on; they still feed the windows.")
    ] = None
    rows: Annotated[
        int | str | None,
        Meta(
            description="At most so many rows of the source are trained and tested on, such as `2M`: those with the"
            " smallest hash of their key, the same ones on every machine. Default: all."
        ),
    ] = None
    half_life: Annotated[
        str | None,
        Meta(
            description="A row that is older by this counts half as much in the fit. Default: all rows count the same."
        ),
    ] = None
    task: Annotated[
        Literal["auto", "binary", "multiclass", "regression"],
        Meta(description="`auto`: two values are binary, few texts are classes, numbers are a regression."),
    ] = "auto"
    metric: Annotated[
        str,
        Meta(
            description="What the search improves. `auto`: average precision where positives are rarer than a tenth,"
            " log loss for other classes, root mean squared error for numbers."
        ),
    ] = "auto"
    cost: Annotated[DecisionCost | None, Meta(description="Costs of wrong decisions; they set the threshold.")] = None
    threshold: Annotated[
        Threshold | float | None,
        Meta(description="A probability, a capacity or a rate. Default: from the cost, else 0.5."),
    ] = None
    trainers: Annotated[
        list[str],
        Meta(
            description="`naive`, `linear` (or `logistic`, `ridge`), `lightgbm`, `mlp` (a multilayer perceptron),"
            " `xgboost` and `catboost` (extras of these names), an estimator of scikit-learn by name"
            " (`sklearn:RandomForestClassifier`), or a function of yours by import path: `trainers.py:forest` or"
            " `package.module:forest`."
        ),
    ] = msgspec.field(default_factory=lambda: list(DEFAULT_TRAINERS))
    parameters: Annotated[
        dict[str, dict[str, Parameter]],
        Meta(description="Trainer -> parameters fixed instead of searched, as in `{lightgbm: {num_leaves: 15}}`."),
    ] = {}
    trials: Annotated[
        int, Meta(ge=1, description="How many sets of parameters are tried at most, of each searched trainer.")
    ] = 30
    time: Annotated[
        str | None,
        Meta(description="How long search and final fit may take, whichever budget ends first; null: no limit."),
    ] = "60s"
    folds: Annotated[
        int, Meta(ge=2, le=20, description="Folds in time order with a gap of the label delay; random without times.")
    ] = 4
    ensemble: Annotated[
        int,
        Meta(ge=1, le=20, description="How many of the best tried boosters or perceptrons are averaged in the model."),
    ] = 3
    blend: Annotated[
        Literal["auto", "off"],
        Meta(
            description="`auto`: a weighted average of built-in trainers, as one model,"
            " where it is better out of fold than the best of them beyond noise; `off`: one trainer."
        ),
    ] = "auto"
    final_fit: Annotated[
        Literal["train", "all"],
        Meta(
            description="`all`: after the test the chosen configuration is fitted again on all rows, those of the test"
            " included, and served; the test figures are of the configuration, and a later gate compares the models as"
            " they were fitted without their test rows; `new --from` writes it. `train`: the tested model is served."
        ),
    ] = "train"
    seed: Annotated[int, Meta(ge=0, description="Equal seed, data, trial budget and threads give an equal model.")] = 0
    jobs: Annotated[int, Meta(ge=1, description="Trials at the same time; above 1 results are not repeatable.")] = 1
    threads: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Processor cores used in all. Default: those there are, at most 8."),
    ] = None
    target_means: Annotated[
        Literal["auto", "off"],
        Meta(
            description="`auto`: a text with more than 250 values is also read as the mean of the target for its value,"
            " learned inside the folds, where that predicts the target of its rarer values beyond noise; `off`: of such"
            " a text only the 250 most frequent values are distinguished."
        ),
    ] = "auto"
    calibration: Annotated[
        Literal["auto", "none", "sigmoid"],
        Meta(description="`auto`: a sigmoid over out-of-fold predictions where it lowers their log loss."),
    ] = "auto"
    allow: Annotated[
        list[str], Meta(description="Features that may determine the target; else such a one is refused as leakage.")
    ] = []
    leak_auc: Annotated[
        float,
        Meta(
            gt=0.5,
            le=1,
            description="A feature that alone has this area under the ROC curve, or of numbers this concordance, is"
            " named in a warning as possible leakage; one under `allow` is not.",
        ),
    ] = 0.95


class GateRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the gate requires of one metric: a margin, a limit, or both."""

    margin: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="How much worse than the champion is accepted; a first model must beat naive."),
    ] = None
    min: Annotated[float | None, Meta(description="The metric must reach this value.")] = None
    max: Annotated[float | None, Meta(description="The metric must not exceed this value.")] = None


class EvaluationSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a trained model is judged on rows that it never saw."""

    test: Annotated[
        str | float, Meta(description="The last part by time, untouched by training: `60d`, or a share of rows, `20%`.")
    ] = "20%"
    clusters: Annotated[
        str,
        Meta(
            description="What is drawn whole in the bootstrap, and without times in the split: `day`, `row`, or a"
            " column. `auto`: days; without times the first column of a `key` of several that repeats, else rows."
        ),
    ] = "auto"
    slices: Annotated[list[str], Meta(description="Columns by whose values the metrics are reported.")] = []
    reuse: Annotated[
        Literal["widen", "report"],
        Meta(
            description="What follows where the same test rows have judged other models before. `widen`: the gate's"
            " intervals are widened, so that of models without information at most one in twenty passes in all;"
            " `report`: a note."
        ),
    ] = "widen"
    gate: Annotated[
        dict[str, GateRule],
        Meta(
            description="Metric -> rule. Default: beat naive on the metric searched; be no worse than the champion in"
            " it by over a hundredth, and in a declared cost by over a tenth."
        ),
    ] = {}


def quick(spec: TrainingSpec) -> TrainingSpec:
    """`spec` for a first look: one set of parameters of the first searched trainer, two folds, no average; the test
    rows are kept apart.
    """
    later = [name for name in spec.trainers if name in SEARCHED][1:]
    trainers = [name for name in spec.trainers if name not in later]
    return msgspec.structs.replace(
        spec, trainers=trainers, trials=1, folds=2, ensemble=1, blend="off", final_fit="train"
    )


def linear_name(task: Task) -> str:
    """What `linear` is for `task`."""
    return "ridge" if task == "regression" else "logistic"
