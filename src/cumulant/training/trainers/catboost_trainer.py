"""CatBoost: symmetric trees, one test a category (no target statistics), early stopping, and the searched space."""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from cumulant.training.payloads.encoding import Matrix
from cumulant.training.payloads.engine_models import (
    CatboostModels,
    SymmetricTree,
    SymmetricTrees,
    TreeCondition,
    catboost_part,
)
from cumulant.training.payloads.payload import Floats, Payload
from cumulant.training.spec import Parameter
from cumulant.training.trainers.class_columns import only_class
from cumulant.training.trainers.lightgbm_trainer import DEFAULT_ROUNDS, MOST_ROUNDS, patience
from cumulant.training.trainers.trainer import FitResult, Params, Problem, TrainingSample, ValidationResult, shares

if TYPE_CHECKING:
    import optuna

#: rounds between two looks at the clock
_LOOK = 5
#: `times` of `patience`: all nodes of a level of a symmetric tree make the same test, so its gains come in steps
#: further apart than those of other trees
_PATIENCE = 5.0
#: values of a text that CatBoost tests one by one at most
_ONE_HOT = 255
_MISSING = -1
#: the score of a class that no row had: its probability is 0
_NEVER = -1000.0
#: fits of a process go one after the other: fits in several threads crash it (catboost issue 2620)
_FITTING = threading.Lock()
_PLAIN: dict[str, Parameter] = {
    "learning_rate": 0.1,
    "depth": 6,
    "l2_leaf_reg": 3.0,
    "random_strength": 1.0,
    "subsample": 0.8,
    "rsm": 1.0,
}


class CatBoost:
    """Boosted symmetric trees. Fits are equal for equal rows, params, seed and threads.

    Raises:
        MissingPartError: catboost is not installed.
    """

    name = "catboost"
    searched = True
    grows = True
    parallel = False  # one fit uses all cores: see `_FITTING`

    def __init__(self) -> None:
        catboost_part()

    def judge(
        self, problem: Problem, params: Params, train: TrainingSample, validate: TrainingSample
    ) -> ValidationResult:
        return self._judge(problem, params, train, validate, _Clock(problem))

    def _judge(
        self, problem: Problem, params: Params, train: TrainingSample, validate: TrainingSample, clock: _Clock
    ) -> ValidationResult:
        classes = _classes(problem, train)
        judging = _of_classes(validate, classes)
        if len(classes) == 1 or not len(judging):
            fit = self.fit(problem, params, train)
            return ValidationResult(answers=fit.payload.predict(validate.answered), rounds=fit.rounds, ran=fit.rounds)
        settings = _settings(problem, params, MOST_ROUNDS)
        wait = patience(float(settings["learning_rate"]), _PATIENCE)
        settings |= {"od_type": "Iter", "od_wait": wait, "use_best_model": True}
        model = catboost_part().CatBoost(settings)
        pool = _pool(problem, train, classes)
        with _FITTING:
            model.fit(pool, eval_set=_pool(problem, judging, classes), callbacks=[clock])
            trees = _trees(model, pool, problem, classes)
        answers = trees.predict(validate.answered)
        return ValidationResult(answers=answers, rounds=int(model.tree_count_), ran=clock.rounds, cut=clock.cut)

    def answers_again(
        self, problem: Problem, params: Params, train: TrainingSample, validate: TrainingSample, *, rounds: int
    ) -> Floats:
        """What `judge` answered when it ended with `rounds`: the draws of a fit depend on its rows that judge."""
        return self._judge(problem, params, train, validate, _Clock(problem, most=rounds)).answers

    def fit(self, problem: Problem, params: Params, train: TrainingSample) -> FitResult:
        classes = _classes(problem, train)
        if len(classes) == 1:
            return FitResult(payload=only_class(classes[0], problem), rounds=1)
        own, clock = dict(params), _Clock(problem)
        rounds = int(own.pop("rounds", DEFAULT_ROUNDS))  # type: ignore[arg-type]
        model, pool = catboost_part().CatBoost(_settings(problem, own, rounds)), _pool(problem, train, classes)
        with _FITTING:
            model.fit(pool, callbacks=[clock])
            text = msgspec.json.encode(_trees(model, pool, problem, classes)).decode()
        return FitResult(payload=CatboostModels((text,)), rounds=int(model.tree_count_), cut=clock.cut)

    def importance(self, problem: Problem, payload: Payload) -> dict[str, float]:
        """How much an answer changes with a feature, as CatBoost counts it, in the mean of the models."""
        assert isinstance(payload, CatboostModels)
        total = np.sum([part.importance for part in payload.models], axis=0)
        return shares([part.feature for part in problem.inputs], total)

    def space(self, trial: optuna.Trial, *, rows: int, categories: bool) -> dict[str, Parameter]:
        """One set of parameters. Depth grows with the data."""
        del categories
        return {
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
            "depth": trial.suggest_int("depth", 3, 6 if rows < 2000 else 8),
            "l2_leaf_reg": trial.suggest_float("l2_leaf_reg", 0.5, 50, log=True),
            "random_strength": trial.suggest_float("random_strength", 0.05, 5, log=True),
            "subsample": trial.suggest_float("subsample", 0.5, 1.0),
            "rsm": trial.suggest_float("rsm", 0.3, 1.0),
        }

    def first_points(self, *, rows: int, rate: float | None, categories: bool) -> list[dict[str, Parameter]]:
        """CatBoost's defaults at a step that ends in time, small trees, slow steps."""
        del rate, categories
        small = _PLAIN | {"depth": 4, "learning_rate": 0.15}
        return [_PLAIN, small, _PLAIN | {"learning_rate": 0.05, "rsm": 0.7, "depth": 5 if rows < 2000 else 7}]

    def is_random(self, params: Params) -> bool:
        """Always: the strength of randomness is above 0."""
        del params
        return True

    def forget(self) -> None:
        """Nothing is kept between trials."""


def _classes(problem: Problem, train: TrainingSample) -> list[int]:
    """Classes among these rows: early folds may lack some, which CatBoost does not answer for. None of numbers."""
    return [] if problem.task == "regression" else [int(value) for value in np.unique(train.target)]


def _of_classes(rows: TrainingSample, classes: list[int]) -> TrainingSample:
    """The rows whose class is among `classes`: others cannot say when a fit should stop."""
    return rows.take(np.flatnonzero(np.isin(rows.target, classes))) if classes else rows


def _columns(problem: Problem) -> tuple[list[int], list[int]]:
    """Places of numbers and of categories in the matrix."""
    texts = [place for place, input_ in enumerate(problem.inputs) if input_.kind == "category"]
    return [place for place in range(len(problem.inputs)) if place not in texts], texts


def _pool(problem: Problem, rows: TrainingSample, classes: list[int]) -> Any:
    """The rows as CatBoost takes them: numbers, then the codes of categories as texts."""
    catboost, (numbers, texts) = catboost_part(), _columns(problem)
    data = catboost.FeaturesData(
        num_feature_data=np.ascontiguousarray(rows.matrix[:, numbers]) if numbers else None,
        cat_feature_data=_words(rows.matrix[:, texts]) if texts else None,
    )
    target = np.searchsorted(classes, rows.target) if classes else rows.target
    return catboost.Pool(data, target, weight=rows.weight)


def _words(codes: Matrix) -> Any:
    most = int(np.max(codes, initial=0, where=~np.isnan(codes)))
    words = np.array([str(code).encode() for code in range(_MISSING, most + 1)], dtype=object)
    texts = np.empty(codes.shape, dtype=object)
    for place in range(codes.shape[1]):
        known = np.where(np.isnan(codes[:, place]), _MISSING, codes[:, place]).astype(np.int64)
        texts[:, place] = words[known - _MISSING]
    return texts


def _trees(model: Any, pool: Any, problem: Problem, classes: list[int]) -> SymmetricTrees:
    """The fitted model's trees, from CatBoost's own JSON."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.json"
        model.save_model(str(file), format="json", pool=pool)
        document = json.loads(file.read_text())
    numbers, texts = _columns(problem)
    columns = classes if problem.task == "multiclass" else [0]
    tests = _Tests(document["features_info"], numbers, texts)
    importance = np.zeros(len(problem.inputs))
    importance[[*numbers, *texts]] = model.get_feature_importance()
    scale, bias = document["scale_and_bias"]
    assert scale == 1
    outputs = len(problem.classes) if problem.task == "multiclass" else 1
    return SymmetricTrees(
        link={"binary": "sigmoid", "multiclass": "softmax", "regression": "identity"}[problem.task],  # type: ignore[arg-type]
        bias=_spread(bias, columns, outputs, absent=_NEVER),
        trees=tuple(tests.tree(tree, columns, outputs) for tree in document["oblivious_trees"]),
        importance=tuple(importance.tolist()),
    )


def _spread(values: list[float], columns: list[int], outputs: int, *, absent: float) -> tuple[float, ...]:
    """`values` at the places `columns` of all outputs."""
    row = dict(zip(columns, values, strict=True))
    return tuple(float(row.get(place, absent)) for place in range(outputs))


class _Tests:
    """CatBoost's splits as tests of the matrix."""

    def __init__(self, info: dict[str, Any], numbers: list[int], texts: list[int]) -> None:
        self._numbers, self._texts = numbers, texts
        # a number that is missing counts as below or as above all others
        self._above = [entry["nan_value_treatment"] == "AsTrue" for entry in info.get("float_features", ())]
        self._codes = {int(entry["hash"]): int(entry["value"]) for entry in info.get("cat_features_hash") or ()}

    def tree(self, tree: dict[str, Any], columns: list[int], outputs: int) -> SymmetricTree:
        rows = np.reshape(tree["leaf_values"], (-1, len(columns))).tolist()
        leaves = tuple(_spread(row, columns, outputs, absent=0.0) for row in rows)
        return SymmetricTree(tests=tuple(self._test(split) for split in tree["splits"] or ()), leaves=leaves)

    def _test(self, split: dict[str, Any]) -> TreeCondition:
        if split["split_type"] == "FloatFeature":
            place = split["float_feature_index"]
            return TreeCondition(column=self._numbers[place], missing=self._above[place], border=split["border"])
        code = self._codes[int(split["value"]) % 2**32]
        column = self._texts[split["cat_feature_index"]]
        return TreeCondition(column=column, missing=code == _MISSING, code=code)


class _Clock:
    """Stops a fit with the rounds it has when the time is over, or after `most`."""

    def __init__(self, problem: Problem, most: int = MOST_ROUNDS) -> None:
        self._left, self._most = problem.seconds_left, most
        self.rounds, self.cut = 0, False

    def after_iteration(self, info: Any) -> bool:
        """Whether the fit continues."""
        self.rounds = int(info.iteration)
        self.cut = self.rounds % _LOOK == 0 and self._left() <= 0
        return not self.cut and self.rounds < self._most


def _settings(problem: Problem, params: Params, rounds: int) -> dict[str, Any]:
    """What is fixed: the loss, and everything that makes a fit repeatable."""
    loss: dict[str, Any] = {"loss_function": "Logloss"}
    if problem.task == "multiclass":
        loss = {"loss_function": "MultiClass"}
    elif problem.task == "regression":
        loss = {"loss_function": "MAE" if problem.metric in ("mae", "pinball") else "RMSE"}
        if problem.metric.startswith("pinball_"):
            loss = {"loss_function": f"Quantile:alpha={int(problem.metric.removeprefix('pinball_')) / 100}"}
    fixed = {
        "iterations": rounds,
        "random_seed": problem.seed,
        "thread_count": problem.threads,
        "grow_policy": "SymmetricTree",
        "boosting_type": "Plain",
        "bootstrap_type": "MVS",
        "one_hot_max_size": _ONE_HOT,
        "allow_writing_files": False,
        "logging_level": "Silent",
    }
    return _PLAIN | loss | fixed | dict(params)
