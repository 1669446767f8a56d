"""A multilayer perceptron of scikit-learn: numbers as normal scores, early stopping, and the searched space."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from cumulant.training.payloads.encoding import Matrix
from cumulant.training.payloads.payload import Floats, Payload
from cumulant.training.payloads.perceptron import DenseLayer, NormalScores, Perceptron, Perceptrons
from cumulant.training.spec import Parameter
from cumulant.training.trainers.linear_trainer import Design
from cumulant.training.trainers.trainer import FitResult, Params, Problem, TrainingSample, ValidationResult, shares

if TYPE_CHECKING:
    import optuna

#: passes over the rows at most, and those without a better answer before a fit ends
_MOST_ROUNDS, _PATIENCE = 80, 8
#: where no search has found how many
_DEFAULT_ROUNDS = 15
#: rows of one step of the gradient: this share of all within these bounds
_BATCH_SHARE, _BATCHES = 1 / 64, (32, 1024)
#: scores are divided by their spread, but by no less: the few rows of a rare flag would become huge
_LEAST_SCALE = 0.1
#: digits of a weight that are kept: float32 has no more
_DIGITS = "%.8g"
#: `width` units in the first hidden layer, half as many in the second
PLAIN: dict[str, Parameter] = {"width": 128, "layers": 2, "alpha": 1e-3, "learning_rate": 1e-3}


class MLP:
    """Averaged networks of one or two hidden layers of rectified linear units, fitted by Adam. Fits are equal for equal
    rows, params and seed. Numbers minimise the squared error, whatever the metric.
    """

    name = "mlp"
    searched = True
    grows = False
    parallel = True

    def judge(
        self, problem: Problem, params: Params, train: TrainingSample, validate: TrainingSample
    ) -> ValidationResult:
        network, best, since = _Network(problem, params, train), ValidationResult(answers=np.zeros(0)), 0
        least, cut, ran, table = np.inf, False, 0, network.table(validate.answered)
        for ran in range(1, _MOST_ROUNDS + 1):
            network.step()
            answers = network.answers(table)
            loss = _loss(problem, answers[: len(validate)], validate)
            if loss < least or ran == 1:
                least, since, best = loss, 0, ValidationResult(answers=answers, rounds=ran)
            else:
                since += 1
            cut = problem.seconds_left() <= 0
            if cut or since == _PATIENCE or not np.isfinite(loss):
                break
        return ValidationResult(answers=best.answers, rounds=best.rounds, ran=ran, cut=cut)

    def answers_again(
        self, problem: Problem, params: Params, train: TrainingSample, validate: TrainingSample, *, rounds: int
    ) -> Floats:
        """What `judge` answered when it ended with `rounds`."""
        network = _Network(problem, params, train)
        for _ in range(rounds):
            network.step()
        return network.answers(network.table(validate.answered))

    def fit(self, problem: Problem, params: Params, train: TrainingSample) -> FitResult:
        own, cut, ran = dict(params), False, 0
        rounds = int(own.pop("rounds", _DEFAULT_ROUNDS))  # type: ignore[arg-type]
        network = _Network(problem, own, train)
        for ran in range(1, rounds + 1):
            network.step()
            if cut := problem.seconds_left() <= 0 and ran < rounds:
                break
        text = msgspec.json.encode(network.perceptron()).decode()
        return FitResult(payload=Perceptrons((text,)), rounds=ran, cut=cut)

    def importance(self, problem: Problem, payload: Payload) -> dict[str, float]:
        """Absolute weights from a feature to the answer, in the mean of the networks."""
        assert isinstance(payload, Perceptrons)
        total = np.sum([part.importance for part in payload.models], axis=0)
        return shares([part.feature for part in problem.inputs], total)

    def space(self, trial: optuna.Trial, *, rows: int, categories: bool) -> dict[str, Parameter]:
        """One set of parameters."""
        del categories
        return {
            "width": trial.suggest_categorical("width", [32, 64, 128] if rows < 2000 else [64, 128, 256]),
            "layers": trial.suggest_int("layers", 1, 2),
            "alpha": trial.suggest_float("alpha", 1e-5, 1.0, log=True),
            "learning_rate": trial.suggest_float("learning_rate", 2e-4, 4e-3, log=True),
        }

    def first_points(self, *, rows: int, rate: float | None, categories: bool) -> list[dict[str, Parameter]]:
        """Two layers, one layer, and a wide one with a strong penalty."""
        del rate, categories
        plain = PLAIN | ({"width": 64} if rows < 2000 else {})
        return [plain, plain | {"layers": 1}, plain | {"width": 256, "alpha": 0.1}]

    def is_random(self, params: Params) -> bool:
        """Always: weights begin at random."""
        del params
        return True

    def forget(self) -> None:
        """Nothing is kept between trials."""


class _Network:
    """One network under training."""

    def __init__(self, problem: Problem, params: Params, train: TrainingSample) -> None:
        columns = [place for place, input_ in enumerate(problem.inputs) if input_.kind != "category"]
        categories = [place for place, input_ in enumerate(problem.inputs) if input_.kind == "category"]
        self._problem = problem
        self._numbers = NormalScores.of(train.matrix, columns=columns, categories=categories)
        inputs = [problem.inputs[place] for place in (*columns, *categories)]
        column = partial(self._numbers.column, train.matrix)
        self._design = Design(inputs, column, least_scale=_LEAST_SCALE)
        self._rows = self.table(train.matrix)
        self._offset, self._scale, self._target = _standard(problem, train)
        self._weight = None if train.weight is None else train.weight / train.weight.mean()
        self._estimator = _estimator(problem, PLAIN | dict(params), len(train))

    def step(self) -> None:
        """One pass over the rows."""
        if self._problem.task == "regression":
            self._estimator.partial_fit(self._rows, self._target, sample_weight=self._weight)
        else:
            classes = np.arange(max(2, len(self._problem.classes)))
            self._estimator.partial_fit(self._rows, self._target, sample_weight=self._weight, classes=classes)

    def table(self, matrix: Matrix) -> Any:
        """[n, columns] in float32."""
        return self._design.table(len(matrix), lambda rows: self._numbers.apply(matrix[rows]), np.float32)

    def answers(self, table: Any) -> Floats:
        """[n], or [n, classes]."""
        if self._problem.task == "regression":
            return np.asarray(self._offset + self._scale * self._estimator.predict(table), dtype=np.float64)
        answers = np.asarray(self._estimator.predict_proba(table), dtype=np.float64)
        return answers[:, 1] if self._problem.task == "binary" else answers

    def perceptron(self) -> Perceptron:
        weights = [_rounded(array) for array in self._estimator.coefs_]
        biases = [_rounded(array) for array in self._estimator.intercepts_]
        links: dict[str, Literal["identity", "sigmoid", "softmax"]] = {"binary": "sigmoid", "multiclass": "softmax"}
        return Perceptron(
            numbers=self._numbers,
            first=self._design.weights(weights[0].T, biases[0], None),
            layers=tuple(
                DenseLayer(weight=tuple(map(tuple, weight.tolist())), bias=tuple(bias.tolist()))
                for weight, bias in zip(weights[1:], biases[1:], strict=True)
            ),
            scale=self._scale,
            offset=self._offset,
            link=links.get(self._problem.task, "identity"),
        )


def _rounded(values: Any) -> Floats:
    return np.char.mod(_DIGITS, np.asarray(values, dtype=np.float64)).astype(np.float64)


def _standard(problem: Problem, train: TrainingSample) -> tuple[float, float, Any]:
    """Mean and spread of a number, and the target as it is fitted: scaled by them, or the codes of classes."""
    if problem.task != "regression":
        return 0.0, 1.0, train.target.astype(np.int64)
    mean, spread = float(train.target.mean()), float(train.target.std())
    scale = spread if spread > 0 else 1.0
    return mean, scale, (train.target - mean) / scale


def _estimator(problem: Problem, params: Params, rows: int) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind = MLPRegressor if problem.task == "regression" else MLPClassifier
    width, layers = int(params["width"]), int(params["layers"])  # type: ignore[arg-type]
    if layers not in (1, 2):
        raise ValueError(f"layers is 1 or 2, not {layers}")
    least, most = _BATCHES
    return kind(
        hidden_layer_sizes=(width, max(1, width // 2))[:layers],
        alpha=params["alpha"],
        learning_rate_init=params["learning_rate"],
        batch_size=min(rows, most, max(least, int(rows * _BATCH_SHARE))),
        random_state=problem.seed,
        shuffle=True,
    )


def _loss(problem: Problem, answers: Floats, rows: TrainingSample) -> float:
    """The mean loss of the judged rows that the network minimises."""
    if problem.task == "regression":
        losses = (answers - rows.target) ** 2
    else:
        place = rows.target.astype(np.int64)
        chance = (
            np.where(place == 1, answers, 1 - answers)
            if problem.task == "binary"
            else answers[np.arange(len(answers)), place]
        )
        losses = -np.log(np.maximum(chance, 1e-12))
    return float(np.average(losses, weights=rows.weight)) if len(losses) else 0.0
