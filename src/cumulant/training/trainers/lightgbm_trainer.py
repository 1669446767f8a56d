"""LightGBM: deterministic settings, native categories, early stopping, and the space that is searched."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cumulant.training.payloads.payload import Boosters, Floats, Payload
from cumulant.training.spec import Parameter
from cumulant.training.trainers.trainer import FitResult, Params, Problem, TrainingSample, ValidationResult, shares

if TYPE_CHECKING:
    import lightgbm
    import optuna

MOST_ROUNDS = 3000
DEFAULT_ROUNDS = 100
#: how much of a round's time grows with its rows
_GROWTH = 0.6
#: rounds without a better score before a fit ends: this over the learning rate, but some at least
_PATIENCE, _LEAST_PATIENCE = 2.0, 20
#: rounds between two looks at the clock
_LOOK = 5
_SEED = 1_000_003

#: LightGBM's own defaults as a point of the space: the search is never worse than they are on the folds
PLAIN: dict[str, Parameter] = {
    "learning_rate": 0.1,
    "num_leaves": 31,
    "min_data_in_leaf": 20,
    "min_sum_hessian_in_leaf": 1e-3,
    "lambda_l2": 1e-3,
    "feature_fraction": 1.0,
    "bagging_fraction": 1.0,
    "max_bin": 255,
    "extra_trees": False,
}


class LightGBM:
    """Boosted trees. Fits are equal for equal rows, params, seed and threads."""

    name = "lightgbm"
    searched = True
    grows = True
    parallel = True

    def __init__(self) -> None:
        self._binned: dict[tuple[int, int], tuple[TrainingSample, lightgbm.Dataset]] = {}

    def judge(
        self, problem: Problem, params: Params, train: TrainingSample, validate: TrainingSample
    ) -> ValidationResult:
        import lightgbm

        settings = _settings(problem) | dict(params)
        dataset = self._dataset(problem, train, settings)
        trees, clock, rounds = _Trees(), _Clock(problem), patience(float(settings["learning_rate"]))
        booster = lightgbm.train(
            settings,
            dataset,
            MOST_ROUNDS,
            valid_sets=[_judge(dataset, validate)],
            callbacks=[trees, clock, lightgbm.early_stopping(rounds, first_metric_only=True, verbose=False)],
        )
        rounds = booster.best_iteration if booster.best_iteration > 0 else trees.rounds
        answers = booster.predict(validate.answered, num_iteration=trees.after(rounds), num_threads=1)
        return ValidationResult(
            answers=np.asarray(answers, dtype=np.float64), rounds=rounds, ran=trees.rounds, cut=clock.cut
        )

    def answers_again(
        self, problem: Problem, params: Params, train: TrainingSample, validate: TrainingSample, *, rounds: int
    ) -> Floats:
        """What `judge` answered when it ended with `rounds`, whatever ended it: patience or the clock."""
        import lightgbm

        settings = _settings(problem) | dict(params)
        booster = lightgbm.train(settings, self._dataset(problem, train, settings), rounds)
        return np.asarray(booster.predict(validate.answered, num_threads=1), dtype=np.float64)

    def fit(self, problem: Problem, params: Params, train: TrainingSample) -> FitResult:
        import lightgbm

        own = dict(params)
        rounds = int(own.pop("rounds", DEFAULT_ROUNDS))  # type: ignore[arg-type]
        settings, clock = _settings(problem) | own, _Clock(problem)
        booster = lightgbm.train(settings, _binned(problem, train, settings), rounds, callbacks=[clock])
        return FitResult(
            payload=Boosters((booster.model_to_string(),)), rounds=booster.current_iteration(), cut=clock.cut
        )

    def space(self, trial: optuna.Trial, *, rows: int, categories: bool) -> dict[str, Parameter]:
        return space(trial, rows=rows, categories=categories)

    def first_points(self, *, rows: int, rate: float | None, categories: bool) -> list[dict[str, Parameter]]:
        return first_points(rows=rows, rate=rate, categories=categories)

    def is_random(self, params: Params) -> bool:
        return is_random(params)

    def forget(self) -> None:
        """Free the binned rows kept between trials."""
        self._binned.clear()

    def importance(self, problem: Problem, payload: Payload) -> dict[str, float]:
        """Gain, in the mean of the boosters."""
        import lightgbm

        assert isinstance(payload, Boosters)
        total = np.zeros(len(problem.inputs))
        for text in payload.texts:
            total += lightgbm.Booster(model_str=text).feature_importance(importance_type="gain")
        return shares([input_.feature for input_ in problem.inputs], total)

    def _dataset(self, problem: Problem, train: TrainingSample, settings: dict[str, Any]) -> lightgbm.Dataset:
        """The rows in bins, kept for the next trial on the same rows."""
        key = (id(train.matrix), int(settings["max_bin"]))
        if key not in self._binned:
            # the sample is kept too, so that its id is not given to another
            self._binned[key] = (train, _binned(problem, train, settings))
        return self._binned[key][1]


def _binned(problem: Problem, train: TrainingSample, settings: dict[str, Any]) -> lightgbm.Dataset:
    import lightgbm

    return lightgbm.Dataset(
        train.matrix,
        train.target,
        weight=train.weight,
        categorical_feature=[place for place, input_ in enumerate(problem.inputs) if input_.kind == "category"],
        params=_binning(settings),
    ).construct()


def _judge(dataset: lightgbm.Dataset, validate: TrainingSample) -> lightgbm.Dataset:
    return dataset.create_valid(validate.matrix, validate.target, weight=validate.weight)


class _Trees:
    """How many trees (of each class) there are after each round. A round whose draw of rows and features allows no
    split adds none, and a later one may: rounds say how often to train, and not which trees answer.
    """

    order = -1
    before_iteration = False

    def __init__(self) -> None:
        self._after: list[int] = []

    def __call__(self, env: Any) -> None:
        self._after.append(env.model.current_iteration())

    @property
    def rounds(self) -> int:
        return len(self._after)

    def after(self, rounds: int) -> int:
        return self._after[rounds - 1]


class _Clock:
    """Stops a fit with the rounds it has when the time is over."""

    order = 0
    before_iteration = False

    def __init__(self, problem: Problem) -> None:
        self._left = problem.seconds_left
        self.cut = False

    def __call__(self, env: Any) -> None:
        from lightgbm.callback import EarlyStopException

        if env.iteration % _LOOK or self._left() > 0:
            return
        self.cut = True
        raise EarlyStopException(env.iteration, env.evaluation_result_list or [])


def _settings(problem: Problem) -> dict[str, Any]:
    """What is fixed: the objective, and everything that makes a fit repeatable."""
    objective: dict[str, Any] = {"objective": "binary", "metric": "binary_logloss"}
    if problem.task == "multiclass":
        objective = {"objective": "multiclass", "metric": "multi_logloss", "num_class": len(problem.classes)}
    elif problem.task == "regression":
        absolute = problem.metric in ("mae", "pinball")
        objective = {"objective": "regression_l1" if absolute else "regression", "metric": "l1" if absolute else "rmse"}
        if problem.metric.startswith("pinball_"):
            quantile = int(problem.metric.removeprefix("pinball_")) / 100
            objective = {"objective": "quantile", "metric": "quantile", "alpha": quantile}
    fixed = {
        "seed": problem.seed,
        "deterministic": True,
        "force_row_wise": True,
        # several threads on one fit wait for each other whenever a core is busy with anything else
        "num_threads": 1,
        "feature_pre_filter": False,
        "bagging_freq": 1,
        "verbosity": -1,
    }
    return PLAIN | objective | fixed


def _binning(settings: dict[str, Any]) -> dict[str, Any]:
    names = ("max_bin", "seed", "deterministic", "force_row_wise", "num_threads", "feature_pre_filter", "verbosity")
    return {name: settings[name] for name in names}


def parameter_names() -> set[str]:
    """The parameters that LightGBM knows, each by all its names, and the number of rounds."""
    from lightgbm.basic import _ConfigAliases

    aliases = _ConfigAliases._get_all_param_aliases()  # noqa: SLF001 - LightGBM tells its names nowhere else
    return {"rounds", *aliases, *(other for names in aliases.values() for other in names)}


def space(trial: optuna.Trial, *, rows: int, categories: bool) -> dict[str, Parameter]:
    """One set of parameters. Leaves and their rows grow with the data; bins where rows can fill them."""
    params: dict[str, Parameter] = {
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.2, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 4, 31 if rows < 2000 else 127, log=True),
        "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 5, max(50, min(300, rows // 50)), log=True),
        "min_sum_hessian_in_leaf": trial.suggest_float("min_sum_hessian_in_leaf", 1e-3, 20, log=True),
        "lambda_l2": trial.suggest_float("lambda_l2", 1e-3, 50, log=True),
        "feature_fraction": trial.suggest_float("feature_fraction", 0.3, 1.0),
        "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
        "max_bin": trial.suggest_categorical("max_bin", bins(rows)),
        "extra_trees": trial.suggest_categorical("extra_trees", [False, True]),
    }
    if categories:
        params["cat_smooth"] = trial.suggest_float("cat_smooth", 1, 100, log=True)
        params["cat_l2"] = trial.suggest_float("cat_l2", 1, 100, log=True)
    return params


def patience(learning_rate: float, times: float = _PATIENCE) -> int:
    """Rounds without a better score before a fit ends: so many `times` those of one whole step."""
    return max(_LEAST_PATIENCE, round(times / learning_rate))


def bins(rows: int) -> list[int]:
    """How finely numbers may be cut; a rare outcome behind a sharp limit (an amount) needs fine cuts."""
    return [255] if rows < 20_000 else [255, 1023] if rows < 100_000 else [255, 1023, 4095]


def first_points(*, rows: int, rate: float | None, categories: bool) -> list[dict[str, Parameter]]:
    """Points tried first: a careful setting for this number of rows, LightGBM's defaults, small trees.

    `rate` is the share of the rarest class; rare ones want heavier leaves and slower steps.
    """
    texts: dict[str, Parameter] = {"cat_smooth": 10.0, "cat_l2": 10.0} if categories else {}
    rare = rate is not None and rate < 0.1
    careful: dict[str, Parameter] = {
        "learning_rate": 0.05,
        "num_leaves": 8 if rows < 2000 else 31,
        "min_data_in_leaf": 50 if rare else max(10, min(50, rows // 200)),
        "min_sum_hessian_in_leaf": 1.0 if rare else 1e-3,
        "lambda_l2": 10.0 if rare else 3.0,
        "feature_fraction": 0.7 if not rare else 1.0,
        "bagging_fraction": 0.8 if not rare else 1.0,
        "max_bin": bins(rows)[-1],
        "extra_trees": False,
    }
    small = careful | {"num_leaves": 5 if rows < 2000 else 12, "learning_rate": 0.08, "feature_fraction": 0.6}
    return [careful | texts, PLAIN | texts, small | texts]


def expected_seconds(fits: Sequence[tuple[int, int, float]], rows: int, rounds: int) -> float:
    """How long a fit of `rounds` on `rows` takes, by the middle one of `fits` (rows, rounds, seconds) seen.

    A round has costs that do not grow with rows, so time grows less than they do. A fit that takes longer
    is stopped by the clock.
    """
    rates = [(seconds / max(done, 1), size) for size, done, seconds in fits if size > 0]
    if not rates:
        return 0.0
    second, size = statistics.median(rate for rate, _ in rates), statistics.median(size for _, size in rates)
    return rounds * second * (rows / size if rows <= size else 1 + _GROWTH * (rows / size - 1))


def is_random(params: Params) -> bool:
    """Whether fits with another seed differ."""
    drawn = min(float(params.get(name, 1.0)) for name in ("feature_fraction", "bagging_fraction"))  # type: ignore[arg-type]
    return drawn < 1 or bool(params.get("extra_trees"))


def member_seed(seed: int, number: int) -> int:
    """The seed of one booster of an ensemble."""
    return (seed * _SEED + number * 7919) % (2**31 - 1)
