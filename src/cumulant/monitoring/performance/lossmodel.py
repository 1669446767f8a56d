"""A regression's loss without labels, by a model of the loss from the inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

from cumulant.core.errors import DataError, missing_part
from cumulant.monitoring.performance.kinds import Kind
from cumulant.monitoring.performance.rows import PredictionRows
from cumulant.monitoring.performance.unlabelled import EstimatedFigure, bonferroni_factor, decide_word
from cumulant.statistics import Estimate
from cumulant.statistics.performance.assumptions import LEAST_ROWS, MOST_UNSEEN, blind
from cumulant.statistics.performance.losses import LEAST_REFERENCE, LossReference, expected_loss, mean_loss
from cumulant.statistics.rows import Floats, cluster_codes

Measure = Literal["mae", "mse", "rmse"]

_FOLDS = 5
#: standard errors above 0 that chance exceeds once in twenty
_SURELY = 1.645
_TREES = 120
_SETTINGS: dict[str, object] = {
    "objective": "regression",
    "num_leaves": 15,
    "learning_rate": 0.06,
    "min_data_in_leaf": 40,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
    "verbose": -1,
}


@dataclass(frozen=True, kw_only=True)
class LossModel:
    """A fitted model of the loss, its result on held-out rows, and the inputs of its rows.

    before: low, value and high of the loss of the reference itself. loss, expected: [n] of each of its rows in order of
    time, and its estimate by models of the other parts of time.
    """

    measure: Measure
    booster: Any
    reference: LossReference
    before: tuple[float, float, float]
    loss: Floats
    expected: Floats
    names: tuple[str, ...]
    lowest: Floats
    highest: Floats


class EstimatedLoss(msgspec.Struct, frozen=True, kw_only=True):
    """The loss of one window without labels, or why there is none."""

    rows: int
    measure: Measure
    figure: EstimatedFigure | None
    refused: str | None


def learn_loss(inputs: Floats, predictions: PredictionRows, *, names: Sequence[str], measure: Measure) -> LossModel:
    """A model of the loss from labelled rows of a time when the regression was good, tested on parts of time.

    Args:
        inputs: [n, features] numbers, NaN where missing; those of the regression do well.
        predictions: [n] the same rows; those without a label are left out.
        names: [features] for messages.
        measure: `mae`, `mse`, or `rmse` (estimated as the root of the mean squared error).

    Raises:
        DataError: not as many inputs as predictions, too few rows with a label, or all of them of one cluster.
        MissingPartError: LightGBM is not installed.
    """
    if inputs.shape != (len(predictions), len(names)):
        raise DataError(
            f"inputs of shape {inputs.shape} do not fit {len(predictions)} predictions of {len(names)} features",
            subject="inputs",
        )
    order = np.argsort(predictions.time, kind="stable")
    order = order[predictions.labelled[order]]
    known, seen = predictions.where(order), _with_score(inputs, predictions.score)[order]
    if len(known) < LEAST_REFERENCE:
        raise DataError(
            f"{len(known)} rows with labels are too few to learn a loss from; {LEAST_REFERENCE} are needed",
            subject="reference",
        )
    loss = _loss(measure, known)
    expected = _estimated_by_others(seen, loss)
    cluster = None if known.cluster is None else cluster_codes(known.cluster)
    if cluster is not None and not cluster.any():
        raise DataError(
            "all rows with labels are of one cluster (a day): how far an estimate may be off is unknown",
            subject="reference",
            hint="give rows of several",
        )
    return LossModel(
        measure=measure,
        booster=_fit(seen, loss),
        reference=LossReference.of(loss, expected, cluster),
        before=_ends(measure, mean_loss(loss, cluster)),
        loss=loss,
        expected=expected,
        names=(*names, "prediction"),
        lowest=np.nanmin(seen, axis=0),
        highest=np.nanmax(seen, axis=0),
    )


def row_losses(model: LossModel, inputs: Floats, score: Floats) -> Floats:
    """[n] the expected loss of rows by `inputs` [n, features] and `score` [n]; squared for measures of squares."""
    losses: Floats = np.asarray(model.booster.predict(_with_score(inputs, score), num_threads=1), dtype=np.float64)
    return losses


def tells_rows_apart(model: LossModel) -> bool:
    """Whether estimates by the others' models explain the losses of the reference better than a constant (95%)."""
    gain = (model.loss - model.loss.mean()) ** 2 - (model.loss - model.expected) ** 2
    error = float(gain.std(ddof=1)) / math.sqrt(len(gain))
    return float(gain.mean()) > _SURELY * error


def estimate_loss(
    model: LossModel,
    inputs: Floats,
    score: Floats,
    *,
    kind: Kind | None = None,
    margin: float = 0.05,
    horizon: int = 30,
    alpha: float = 0.05,
) -> EstimatedLoss:
    """The loss of the rows of one window, without their labels.

    Args:
        model: of the reference.
        inputs: [n, features] as in `learn_loss`.
        score: [n] predictions.
        kind: of the latest change by labels; under `concept` and `prior` estimates are refused.
        margin: part of the reference's loss that is accepted.
        horizon: windows over which `alpha` is the chance of any wrong word (Bonferroni).
        alpha: see `horizon`.
    """
    rows = _with_score(inputs, score)
    refused = blind(kind) or _refused(model, rows)
    figure = None
    if refused is None:
        expected = np.asarray(model.booster.predict(rows, num_threads=1))
        low, value, high = now = _ends(model.measure, expected_loss(model.reference, expected))
        word = decide_word(model.measure, now, model.before, margin, bonferroni_factor(horizon, alpha))
        figure = EstimatedFigure(value=value, low=low, high=high, word=word)
    return EstimatedLoss(rows=len(rows), measure=model.measure, figure=figure, refused=refused)


def _ends(measure: Measure, estimate: Estimate) -> tuple[float, float, float]:
    """Low, value and high, in the unit of the measure."""
    low, value, high = (end or 0.0 for end in (estimate.low, estimate.value, estimate.high))
    return (math.sqrt(low), math.sqrt(value), math.sqrt(high)) if measure == "rmse" else (low, value, high)


def _estimated_by_others(inputs: Floats, loss: Floats) -> Floats:
    """[n] each row's loss by a model of the other parts of time."""
    fold = np.arange(len(loss)) * _FOLDS // len(loss)
    expected = np.empty(len(loss))
    for number in range(_FOLDS):
        inside = fold == number
        expected[inside] = _fit(inputs[~inside], loss[~inside]).predict(inputs[inside], num_threads=1)
    return expected


def _refused(model: LossModel, rows: Floats) -> str | None:
    if len(rows) < LEAST_ROWS:
        return f"{len(rows)} rows are too few for an estimate; {LEAST_ROWS} are needed"
    beyond = ((rows < model.lowest) | (rows > model.highest)).mean(axis=0)
    worst = int(beyond.argmax())
    if beyond[worst] > MOST_UNSEEN:
        return (
            f'{beyond[worst]:.1%} of the rows have a "{model.names[worst]}" beyond every value of the reference, '
            f"where nothing is known of the loss; {MOST_UNSEEN:.0%} are allowed"
        )
    return None


def _loss(measure: Measure, known: PredictionRows) -> Floats:
    error = known.truth - known.score
    losses: Floats = np.abs(error) if measure == "mae" else error**2
    return losses


def _with_score(inputs: Floats, score: Floats) -> Floats:
    return np.column_stack([inputs, score]).astype(np.float64)


def _fit(inputs: Floats, loss: Floats) -> Any:
    try:
        import lightgbm
    except ImportError:
        raise missing_part("lightgbm", "train") from None
    return lightgbm.train(_SETTINGS, lightgbm.Dataset(inputs, loss), num_boost_round=_TREES)
