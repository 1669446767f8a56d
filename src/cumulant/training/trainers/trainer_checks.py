"""Whether each trainer has and takes its parameters and fits the task, seen without the project's rows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cumulant.core.errors import DefinitionError, did_you_mean
from cumulant.core.servable import Input, Task
from cumulant.training.payloads.engine_models import catboost_part
from cumulant.training.policy import TrainingPolicy
from cumulant.training.trainers import lightgbm_trainer, linear_trainer, mlp_trainer, scikit_trainer
from cumulant.training.trainers.trainer import Params, Problem, TrainingSample
from cumulant.training.trainers.trainer_lookup import WITH_ROUNDS
from cumulant.training.trainers.user_trainer import check_returns, check_signature, load_function

_ROWS = 60
#: engines that name a parameter that they do not know when they fit: CatBoost by an error, XGBoost by a warning
_NAMED_BY_FIT = frozenset({"xgboost", "catboost"})
_UNUSED = "are not used"
_TALKATIVE: Mapping[str, Params] = {"xgboost": {"verbosity": 1, "validate_parameters": True}}
_SHOWN = 40


def check_trainers(spec: TrainingPolicy, task: Task, classes: tuple[str, ...], *, root: Path) -> None:
    """Refuse parameters that a trainer does not have or does not take, and trainers that do not fit the task.

    Functions of the project are not called: what they return for made-up rows says nothing.

    Raises:
        DefinitionError: a name or value under `training.parameters`, or a trainer, cannot be used.
        UserCodeError: importing a function of the project raised.
    """
    problem = Problem(
        task=task,
        classes=classes,
        inputs=(Input("a", "number"), Input("b", "number")),
        metric="rmse" if task == "regression" else "log_loss",
        seed=spec.seed,
    )
    for name in spec.trainers:
        params = spec.parameters.get(name, {})
        if name.startswith(scikit_trainer.PREFIX):
            scikit_trainer.ScikitTrainer(name).check(problem, params)
        elif ":" in name:
            function = load_function(name, root)
            check_signature(function, name)
            check_returns(function, name)
        elif params:
            if name not in _NAMED_BY_FIT:
                _check_names(name, set(params))
            _check_values(name, problem, params)


def _check_names(name: str, given: set[str]) -> None:
    """The library would ignore a name that it does not know."""
    known = _known(name)
    for unknown in sorted(given - known):
        takes = f"parameters: {', '.join(sorted(known))}" if 0 < len(known) < _SHOWN else "leave it out"
        raise DefinitionError(
            f'{name} has no parameter "{unknown}"',
            subject=f"training.parameters.{name}",
            hint=did_you_mean(unknown, known) or takes,
        )


def _known(name: str) -> set[str]:
    if name == "lightgbm":
        return lightgbm_trainer.parameter_names()
    if name == "mlp":
        return {*mlp_trainer.PLAIN, "rounds"}
    return set() if name == "naive" else set(linear_trainer.DEFAULTS)


def _check_values(name: str, problem: Problem, params: Params) -> None:
    """Lists, also as one text, are left to the training: their length is that of the features."""
    plain = {key: value for key, value in params.items() if not _is_list(value)}
    engine = WITH_ROUNDS.get(name)
    errors: tuple[type[Exception], ...] = (ValueError, TypeError, *_errors(name))
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            if engine is not None:
                engine().fit(problem, {**_TALKATIVE.get(name, {}), **plain, "rounds": 1}, _sample(problem))
            else:
                linear_trainer.check(problem, plain)
    except errors as error:
        raise _refused(name, str(error)) from error
    unused = next((str(warning.message) for warning in warned if _UNUSED in str(warning.message)), None)
    if unused is not None:
        raise _refused(name, unused[unused.find("Parameters") :])


def _is_list(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and "," in value)


def _errors(name: str) -> tuple[type[Exception], ...]:
    """What the engine raises; XGBoost's error is a ValueError."""
    if name == "lightgbm":
        from lightgbm.basic import LightGBMError

        return (LightGBMError,)
    if name == "catboost":
        error: type[Exception] = catboost_part().CatBoostError
        return (error,)
    return ()


def _refused(name: str, why: str) -> DefinitionError:
    return DefinitionError(
        f"{name} does not take its parameters: {' '.join(why.split())}",
        subject=f"training.parameters.{name}",
        hint="correct the value under training.parameters, or leave it out",
    )


def _sample(problem: Problem) -> TrainingSample:
    """Random numbers, with every class in turn; numbers between 0 and 1 suit every objective of a regression."""
    matrix = np.random.default_rng(0).normal(size=(_ROWS, 2)).astype(np.float32)
    places = np.arange(_ROWS, dtype=np.float64)
    if problem.task == "regression":
        return TrainingSample(matrix=matrix, target=(places + 1) / (_ROWS + 1))
    return TrainingSample(
        matrix=matrix, target=places % (2 if problem.task == "binary" else max(2, len(problem.classes)))
    )
