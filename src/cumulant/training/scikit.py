"""A scikit-learn estimator as a trainer, by its name: `sklearn:RandomForestClassifier`."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cumulant.core.errors import DefinitionError, did_you_mean
from cumulant.training.class_columns import all_classes, only_class
from cumulant.training.trainers import Fit, Params, Problem, Sample
from cumulant.training.user import UserTrainer, payload_of, user_error

PREFIX = "sklearn:"
#: where estimators of a table of numbers are; others need data of another form
_MODULES = ("ensemble", "linear_model", "tree", "neighbors", "neural_network", "naive_bayes", "svm")
_UNSCALED = ("sklearn.ensemble", "sklearn.tree")
_NO_ONNX, _COUNTS = "training cannot convert it to ONNX", "it needs counts or codes, and numbers are scaled"
_SEVERAL = "it fits several targets at once"
#: estimators that no table can be fitted with, and why
_EXCLUDED = {
    **dict.fromkeys(("NearestCentroid", "RadiusNeighborsClassifier", "RadiusNeighborsRegressor"), _NO_ONNX),
    **dict.fromkeys(("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"), _NO_ONNX),
    **dict.fromkeys(("CategoricalNB", "ComplementNB", "MultinomialNB"), _COUNTS),
    **dict.fromkeys(("MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV"), _SEVERAL),
}


class ScikitTrainer(UserTrainer):
    """Numbers: missing as the median, scaled to one unless the estimator is made of trees; texts: one column a value,
    one for missing. The estimator gets what stands under `training.parameters`, the seed and the threads.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, Path())
        self._class = estimator_class(name)

    def fit(self, problem: Problem, params: Params, train: Sample) -> Fit:
        pipeline = self._pipeline(problem, params)
        if problem.task == "regression":
            return Fit(payload=payload_of(self._fitted(pipeline, train, train.target), problem, train, self.name))
        # an early fold may lack a class, of which the estimator then has no column
        present, target = np.unique(train.target.astype(np.int64), return_inverse=True)
        if len(present) == 1:
            return Fit(payload=only_class(int(present[0]), problem))
        own = replace(problem, classes=tuple(problem.classes[place] for place in present))
        payload = payload_of(self._fitted(pipeline, train, target), own, train, self.name)
        return Fit(payload=all_classes(payload, present, problem))

    def _fitted(self, pipeline: Any, train: Sample, target: Any) -> Any:
        try:
            return pipeline.fit(train.matrix, target, **self._weights(train))
        except (TypeError, ValueError) as error:  # what scikit-learn raises for parameters and rows that do not fit
            if type(error).__name__ != "InvalidParameterError":
                raise user_error(error, self.name, "trainer") from error
            raise self._refused(error) from None

    def _pipeline(self, problem: Problem, params: Params) -> Any:
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        texts = [place for place, one in enumerate(problem.inputs) if one.kind == "category"]
        numbers = [place for place in range(len(problem.inputs)) if place not in texts]
        filled = [SimpleImputer(strategy="median", keep_empty_features=True)]
        scaled = [] if self._class.__module__.startswith(_UNSCALED) else [StandardScaler()]
        missing = SimpleImputer(strategy="constant", fill_value=-1.0)
        columns = [("numbers", make_pipeline(*filled, *scaled), numbers)] if numbers else []
        if texts:
            coded = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
            columns.append(("texts", make_pipeline(missing, coded), texts))
        return make_pipeline(ColumnTransformer(columns), self._estimator(problem, params))

    def _estimator(self, problem: Problem, params: Params) -> Any:
        self._check_task(problem)
        known = self._class().get_params()
        fixed: dict[str, Any] = {"random_state": problem.seed} if "random_state" in known else {}
        if "n_jobs" in known and self._class.__module__.startswith("sklearn.ensemble"):
            fixed["n_jobs"] = problem.threads  # elsewhere it has no use for one table, or is deprecated
        wanted = {**fixed, **params}
        unknown = next((name for name in wanted if name not in known), None)
        if unknown is not None:
            raise DefinitionError(
                f'{self.name} has no parameter "{unknown}"',
                subject=f"training.parameters.{self.name}",
                hint=did_you_mean(unknown, known) or f"parameters: {', '.join(sorted(known))}",
            )
        estimator = self._class(**wanted)
        if problem.task != "regression" and not hasattr(estimator, "predict_proba"):
            raise DefinitionError(
                f"{self.name} predicts classes without probabilities",
                subject="training.trainers",
                hint="name one with predict_proba, such as sklearn:LogisticRegression",
            )
        return estimator

    def _check_task(self, problem: Problem) -> None:
        from sklearn.base import is_classifier

        if is_classifier(self._class()) == (problem.task != "regression"):
            return
        kind = "numbers" if problem.task == "regression" else "classes"
        stem = self.name.removesuffix("Classifier").removesuffix("Regressor")
        other = stem + ("Regressor" if problem.task == "regression" else "Classifier")
        hint = f"write {other}" if _find(other.removeprefix(PREFIX)) else f"name an estimator of {kind}"
        raise DefinitionError(f"{self.name} does not predict {kind}", subject="training.trainers", hint=hint)

    def check(self, problem: Problem, params: Params) -> None:
        """Refuse what no fit could use. Raises DefinitionError."""
        estimator = self._estimator(problem, params)
        try:
            estimator._validate_params()  # noqa: SLF001 - what each fit begins with
        except ValueError as error:
            raise self._refused(error) from None

    def _refused(self, error: Exception) -> DefinitionError:
        return DefinitionError(
            f"{self.name}: {' '.join(str(error).split())}",
            subject=f"training.parameters.{self.name}",
            hint="correct the value, or leave it out",
        )

    def _weights(self, train: Sample) -> dict[str, Any]:
        from sklearn.utils.validation import has_fit_parameter

        if train.weight is None:
            return {}
        if not has_fit_parameter(self._class(), "sample_weight"):
            raise DefinitionError(
                f"{self.name} takes no weights, and the rows have some",
                subject="training.trainers",
                hint="leave it out, or leave out training.half_life",
            )
        return {f"{self._class.__name__.lower()}__sample_weight": train.weight}


def estimator_class(name: str) -> Any:
    """The class of `sklearn:NAME`.

    Raises:
        DefinitionError: scikit-learn has no such estimator of a table of numbers.
    """
    wanted = name.removeprefix(PREFIX)
    if (match := _find(wanted)) is not None:
        return match
    if (reason := _EXCLUDED.get(wanted)) is not None:
        raise DefinitionError(
            f"{name} cannot be a trainer: {reason}",
            subject="training.trainers",
            hint="write lightgbm, which is of the same kind" if wanted.startswith("HistGrad") else "name another one",
        )
    known = [one for module in _MODULES for one in _module(module).__all__ if _find(one) is not None]
    raise DefinitionError(
        f'scikit-learn has no estimator "{wanted}"',
        subject="training.trainers",
        hint=did_you_mean(wanted, known) or "write one of its classes: sklearn:RandomForestClassifier",
    )


def _module(name: str) -> Any:
    return importlib.import_module(f"sklearn.{name}")


def _find(name: str) -> Any:
    """The class of that name which can be made without arguments and fits a table; None where there is none."""
    from sklearn.base import ClassifierMixin, RegressorMixin

    if name in _EXCLUDED:
        return None
    for module in _MODULES:
        candidate = getattr(_module(module), name, None)
        if isinstance(candidate, type) and issubclass(candidate, (ClassifierMixin, RegressorMixin)):
            needed = [one for one in inspect.signature(candidate).parameters.values() if one.default is one.empty]
            return None if needed else candidate
    return None
