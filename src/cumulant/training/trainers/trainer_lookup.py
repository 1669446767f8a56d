"""A trainer by its name in the project file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cumulant.core.errors import UsageError, did_you_mean
from cumulant.training.spec import BUILT_IN
from cumulant.training.trainers import scikit_trainer
from cumulant.training.trainers.baseline import Naive
from cumulant.training.trainers.catboost_trainer import CatBoost
from cumulant.training.trainers.lightgbm_trainer import LightGBM
from cumulant.training.trainers.linear_trainer import Linear
from cumulant.training.trainers.mlp_trainer import MLP
from cumulant.training.trainers.trainer import Trainer
from cumulant.training.trainers.user_trainer import UserTrainer
from cumulant.training.trainers.xgboost_trainer import XGBoost

WITH_ROUNDS: Mapping[str, Callable[[], Trainer]] = {
    "lightgbm": LightGBM,
    "xgboost": XGBoost,
    "catboost": CatBoost,
    "mlp": MLP,
}


def make_trainer(name: str, root: Path) -> Trainer:
    """The trainer called `name`.

    Raises:
        MissingPartError: what it needs is not installed.
        UsageError: there is none of that name, and it is no import path.
        DefinitionError: scikit-learn has no such estimator.
    """
    if name == "naive":
        return Naive()
    if name in ("linear", "logistic", "ridge"):
        return Linear(name)
    if name in WITH_ROUNDS:
        return WITH_ROUNDS[name]()
    if name.startswith(scikit_trainer.PREFIX):
        return scikit_trainer.ScikitTrainer(name)
    if ":" in name:
        return UserTrainer(name, root)
    hint = did_you_mean(name, BUILT_IN) or f"known: {', '.join(BUILT_IN)}; or a function as trainers.py:forest"
    raise UsageError(f'there is no trainer "{name}"', subject="training.trainers", hint=hint)
