"""A scikit-learn estimator as a trainer, by its name: `sklearn:RandomForestClassifier`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cumulant.core.errors import DefinitionError, did_you_mean
from cumulant.training.payloads.payload import Boosters, Payload
from cumulant.training.trainers import hist_boosting
from cumulant.training.trainers.class_columns import all_classes, only_class
from cumulant.training.trainers.lightgbm_trainer import LightGBM
from cumulant.training.trainers.trainer import FitResult, Params, Problem, TrainingSample
from cumulant.training.trainers.user_trainer import UserTrainer, payload_of, user_error

PREFIX = "sklearn:"
#: where estimators of a table of numbers are; others need data of another form
_MODULES = ("ensemble", "linear_model", "tree", "neighbors", "neural_network", "naive_bayes", "svm")
#: rows that the served form is compared on with the estimator
_CHECKED_ROWS = 500
_UNSCALED = ("sklearn.ensemble", "sklearn.tree")
_NO_ONNX, _COUNTS = "training cannot convert it to ONNX", "it needs counts or codes, and numbers are scaled"
_SEVERAL = "it fits several targets at once"
#: estimators that no table can be fitted with, and why
_EXCLUDED = {
    **dict.fromkeys(("NearestCentroid", "RadiusNeighborsClassifier", "RadiusNeighborsRegressor"), _NO_ONNX),
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

    def fit(self, problem: Problem, params: Params, train: TrainingSample) -> FitResult:
        if self._class.__name__.startswith("HistGradientBoosting"):
            return FitResult(payload=self._trees(problem, params, train))
        pipeline = self._pipeline(problem, params)
        if problem.task == "regression":
            return FitResult(payload=payload_of(self._fitted(pipeline, train, train.target), problem, train, self.name))
        # an early fold may lack a class, of which the estimator then has no column
        present, target = np.unique(train.target.astype(np.int64), return_inverse=True)
        if len(present) == 1:
            return FitResult(payload=only_class(int(present[0]), problem))
        own = replace(problem, classes=tuple(problem.classes[place] for place in present))
        payload = payload_of(self._fitted(pipeline, train, target), own, train, self.name)
        return FitResult(payload=all_classes(payload, present, problem))

    def importance(self, problem: Problem, payload: Payload) -> dict[str, float]:
        """Gain where the model is one of boosted trees; else none."""
        return LightGBM().importance(problem, payload) if isinstance(payload, Boosters) else {}

    def _trees(self, problem: Problem, params: Params, train: TrainingSample) -> Payload:
        """HistGradientBoosting, which reads missing values itself."""
        several, present, target = problem.task == "multiclass", np.zeros(0, dtype=np.int64), train.target
        if problem.task != "regression":
            present = np.unique(train.target.astype(np.int64))
            if len(present) == 1:
                return only_class(int(present[0]), problem)
            target = train.target.astype(np.int64)
        rows = hist_boosting.expanded(train.matrix, problem.inputs)
        weights = {} if train.weight is None else {"sample_weight": train.weight}
        model = self._called(lambda: self._estimator(problem, params).fit(rows, target, **weights))
        classes = len(problem.classes) if several else 0
        payload = Boosters(
            (hist_boosting.lightgbm_text(model, problem.inputs, classes=classes, present=present.tolist()),)
        )
        self._check_equal(model, payload, train, rows)
        return payload

    def _check_equal(self, model: Any, payload: Payload, train: TrainingSample, rows: Any) -> None:
        """Raises DefinitionError where the trees in LightGBM's form answer otherwise."""
        few = slice(0, _CHECKED_ROWS)
        answers, expected = payload.predict(train.matrix[few]), np.asarray(model.predict(rows[few]), dtype=np.float64)
        if hasattr(model, "predict_proba"):
            chances = np.asarray(model.predict_proba(rows[few]), dtype=np.float64)
            expected = chances[:, -1] if answers.ndim == 1 else chances
            answers = answers if answers.ndim == 1 else answers[:, model.classes_]
        if not np.allclose(answers, expected, rtol=1e-9, atol=1e-9):
            raise DefinitionError(
                f"the trees of {self.name} answer otherwise in the form that is served",
                subject="training.trainers",
                hint="write lightgbm, and report the versions of scikit-learn and lightgbm",
            )

    def _fitted(self, pipeline: Any, train: TrainingSample, target: Any) -> Any:
        return self._called(lambda: pipeline.fit(train.matrix, target, **self._weights(train)))

    def _called(self, fit: Callable[[], Any]) -> Any:
        try:
            return fit()
        except (TypeError, ValueError) as error:  # what scikit-learn raises for parameters and rows that do not fit
            if type(error).__name__ != "InvalidParameterError":
                raise user_error(error, self.name, "trainer") from error
            raise self._refused(error) from None

    def _pipeline(self, problem: Problem, params: Params) -> Any:
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        texts = [place for place, input_ in enumerate(problem.inputs) if input_.kind == "category"]
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
        self._refuse_without_probabilities(estimator)
        return estimator

    def check_probabilities(self, params: Params) -> None:
        """Refuse, before any data are read, an estimator that no rows could be fitted with.

        Raises:
            DefinitionError: a classifier without probabilities.
        """
        try:
            estimator = self._class(**params)
        except TypeError:
            return  # the fit names the parameter, with those that there are
        self._refuse_without_probabilities(estimator)

    def _refuse_without_probabilities(self, estimator: Any) -> None:
        from sklearn.base import is_classifier

        if is_classifier(estimator) and not hasattr(estimator, "predict_proba"):
            raise DefinitionError(
                f"{self.name} predicts classes without probabilities",
                subject="training.trainers",
                hint="name one with predict_proba, such as sklearn:LogisticRegression",
            )

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

    def _weights(self, train: TrainingSample) -> dict[str, Any]:
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
            hint="name another one",
        )
    known = [
        class_name for module in _MODULES for class_name in _module(module).__all__ if _find(class_name) is not None
    ]
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
            needed = [
                parameter
                for parameter in inspect.signature(candidate).parameters.values()
                if parameter.default is parameter.empty
            ]
            return None if needed else candidate
    return None
