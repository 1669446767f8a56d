"""XGBoost: deterministic settings, native categories and missing values, early stopping, and the searched space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cumulant.training.payloads.engine_models import XgboostModels, xgboost_answers, xgboost_part
from cumulant.training.payloads.payload import Floats, Payload
from cumulant.training.spec import Parameter
from cumulant.training.trainers.lightgbm_trainer import DEFAULT_ROUNDS, MOST_ROUNDS, bins, patience
from cumulant.training.trainers.trainer import FitResult, Params, Problem, TrainingSample, ValidationResult, shares

if TYPE_CHECKING:
    import optuna

#: rounds between two looks at the clock
_LOOK = 5
#: XGBoost's own defaults as a point of the space
PLAIN: dict[str, Parameter] = {
    "learning_rate": 0.3,
    "max_depth": 6,
    "min_child_weight": 1.0,
    "reg_lambda": 1.0,
    "subsample": 1.0,
    "colsample_bytree": 1.0,
    "max_bin": 256,
}


class XGBoost:
    """Boosted trees of float32. Fits are equal for equal rows, params and seed.

    Raises:
        MissingPartError: xgboost is not installed.
    """

    name = "xgboost"
    searched = True
    grows = True
    parallel = True

    def __init__(self) -> None:
        xgboost_part()

    def judge(
        self, problem: Problem, params: Params, train: TrainingSample, validate: TrainingSample
    ) -> ValidationResult:
        xgboost = xgboost_part()
        settings, own = _settings(problem, params), _data(problem, train, params)
        clock = _clock(problem)
        booster = xgboost.train(
            settings,
            own,
            MOST_ROUNDS,
            evals=[(_data(problem, validate, params, of=own), "validate")],
            # before the clock, which ends the round for those after it
            callbacks=[xgboost.callback.EarlyStopping(rounds=patience(float(settings["learning_rate"]))), clock],
            verbose_eval=False,
        )
        rounds, ran = booster.best_iteration + 1, booster.num_boosted_rounds()
        answers = xgboost_answers(booster, validate.answered, rounds)
        return ValidationResult(answers=answers, rounds=rounds, ran=ran, cut=clock.cut)

    def answers_again(
        self, problem: Problem, params: Params, train: TrainingSample, validate: TrainingSample, *, rounds: int
    ) -> Floats:
        """What `judge` answered when it ended with `rounds`."""
        booster = xgboost_part().train(_settings(problem, params), _data(problem, train, params), rounds)
        return xgboost_answers(booster, validate.answered)

    def fit(self, problem: Problem, params: Params, train: TrainingSample) -> FitResult:
        own, clock = dict(params), _clock(problem)
        rounds = int(own.pop("rounds", DEFAULT_ROUNDS))  # type: ignore[arg-type]
        settings = _settings(problem, own)
        booster = xgboost_part().train(settings, _data(problem, train, own), rounds, callbacks=[clock])
        text = bytes(booster.save_raw("json")).decode()
        return FitResult(payload=XgboostModels((text,)), rounds=booster.num_boosted_rounds(), cut=clock.cut)

    def importance(self, problem: Problem, payload: Payload) -> dict[str, float]:
        """Gain, in the mean of the models."""
        assert isinstance(payload, XgboostModels)
        total = np.zeros(len(problem.inputs))
        for text in payload.texts:
            booster = xgboost_part().Booster()
            booster.load_model(bytearray(text.encode()))
            for name, gain in booster.get_score(importance_type="total_gain").items():
                total[int(name.removeprefix("f"))] += gain
        return shares([input_.feature for input_ in problem.inputs], total)

    def space(self, trial: optuna.Trial, *, rows: int, categories: bool) -> dict[str, Parameter]:
        """One set of parameters. Depth, the weight of a leaf and bins grow with the data."""
        params: dict[str, Parameter] = {
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
            "max_depth": trial.suggest_int("max_depth", 2, 6 if rows < 2000 else 10),
            "min_child_weight": trial.suggest_float("min_child_weight", 0.1, max(20, min(200, rows // 100)), log=True),
            "reg_lambda": trial.suggest_float("reg_lambda", 1e-2, 50, log=True),
            "subsample": trial.suggest_float("subsample", 0.5, 1.0),
            "colsample_bytree": trial.suggest_float("colsample_bytree", 0.3, 1.0),
            "max_bin": trial.suggest_categorical("max_bin", [edge + 1 for edge in bins(rows)]),
        }
        if categories:
            params["max_cat_to_onehot"] = trial.suggest_int("max_cat_to_onehot", 2, 64, log=True)
        return params

    def first_points(self, *, rows: int, rate: float | None, categories: bool) -> list[dict[str, Parameter]]:
        """A careful setting for this number of rows, XGBoost's defaults, small trees."""
        texts: dict[str, Parameter] = {"max_cat_to_onehot": 4} if categories else {}
        rare = rate is not None and rate < 0.1
        careful: dict[str, Parameter] = {
            "learning_rate": 0.05,
            "max_depth": 4 if rows < 2000 else 6,
            "min_child_weight": 2.0 if rare else 4.0,
            "reg_lambda": 5.0 if rare else 2.0,
            "subsample": 0.8,
            "colsample_bytree": 0.7,
            "max_bin": bins(rows)[-1] + 1,
        }
        small = careful | {"max_depth": 3, "learning_rate": 0.12}
        return [careful | texts, PLAIN | texts, small | texts]

    def is_random(self, params: Params) -> bool:
        return min(float(params.get(name, 1.0)) for name in ("subsample", "colsample_bytree")) < 1  # type: ignore[arg-type]

    def forget(self) -> None:
        """Nothing is kept between trials."""


def _data(problem: Problem, rows: TrainingSample, params: Params, *, of: Any = None) -> Any:
    """The rows in bins: those of training, or where `of` is given its bins."""
    return xgboost_part().QuantileDMatrix(
        rows.matrix,
        rows.target,
        weight=rows.weight,
        feature_types=["c" if input_.kind == "category" else "q" for input_ in problem.inputs],
        enable_categorical=True,
        nthread=1,
        max_bin=int((PLAIN | dict(params))["max_bin"]),  # type: ignore[arg-type]
        ref=of,
    )


def _clock(problem: Problem) -> Any:
    """Stops a fit with the rounds it has when the time is over."""

    class Clock(xgboost_part().callback.TrainingCallback):  # type: ignore[misc]
        cut = False

        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            del model, evals_log
            self.cut = epoch % _LOOK == 0 and problem.seconds_left() <= 0
            return self.cut

    return Clock()


def _settings(problem: Problem, params: Params) -> dict[str, Any]:
    """What is fixed: the objective, and everything that makes a fit repeatable."""
    objective: dict[str, Any] = {"objective": "binary:logistic", "eval_metric": "logloss"}
    if problem.task == "multiclass":
        objective = {"objective": "multi:softprob", "eval_metric": "mlogloss", "num_class": len(problem.classes)}
    elif problem.task == "regression":
        absolute = problem.metric in ("mae", "pinball")
        name = "reg:absoluteerror" if absolute else "reg:squarederror"
        objective = {"objective": name, "eval_metric": "mae" if absolute else "rmse"}
        if problem.metric.startswith("pinball_"):
            quantile = int(problem.metric.removeprefix("pinball_")) / 100
            objective = {"objective": "reg:quantileerror", "eval_metric": "quantile", "quantile_alpha": quantile}
    fixed = {"tree_method": "hist", "seed": problem.seed, "nthread": 1, "verbosity": 0}
    return PLAIN | objective | fixed | dict(params)
