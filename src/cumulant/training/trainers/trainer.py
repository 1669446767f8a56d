"""What a trainer is: it fits on rows, and tells how it answers others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from cumulant.core.servable import Input, Task
from cumulant.training.payloads.encoding import Matrix
from cumulant.training.payloads.payload import Floats, Payload
from cumulant.training.spec import Parameter

if TYPE_CHECKING:
    import optuna

    from cumulant.training.dataset import TrainingSet

Params = Mapping[str, Parameter]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What stays the same over all fits of one search."""

    task: Task
    classes: tuple[str, ...]
    inputs: tuple[Input, ...]
    metric: str
    seed: int = 0
    threads: int = 1
    #: seconds until the budget ends; infinite without one
    seconds_left: Callable[[], float] = lambda: float("inf")


@dataclass(frozen=True, kw_only=True)
class TrainingSample:
    """Encoded rows: matrix [n, k], target [n], and weights [n] where rows stand for several.

    unjudged: [m, k] rows that are answered too, and judge nothing.
    groups, at, known: [n] as in `TrainingSet`, where rows are fitted on.
    """

    matrix: Matrix
    target: Floats
    weight: Floats | None = None
    unjudged: Matrix | None = None
    groups: NDArray[np.int64] | None = None
    at: NDArray[np.int64] | None = None
    known: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, rows: TrainingSet, matrix: Matrix) -> TrainingSample:
        """All rows with their `matrix`, as they are fitted on."""
        return cls(
            matrix=matrix, target=rows.target, weight=rows.weight, groups=rows.groups, at=rows.at, known=rows.known
        )

    def __len__(self) -> int:
        return len(self.target)

    @property
    def answered(self) -> Matrix:
        """[n + m, k] all rows that are answered: first those that judge."""
        return self.matrix if self.unjudged is None else np.concatenate([self.matrix, self.unjudged])

    def take(self, index: NDArray[np.int64]) -> TrainingSample:
        return TrainingSample(
            matrix=self.matrix[index],
            target=self.target[index],
            weight=None if self.weight is None else self.weight[index],
            groups=None if self.groups is None else self.groups[index],
            at=None if self.at is None else self.at[index],
            known=None if self.known is None else self.known[index],
        )


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A model, how many rounds it took, and whether time ran out before it was done."""

    payload: Payload
    rounds: int = 0
    cut: bool = False


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    """Answers for rows not fitted on, [n] or [n, classes], and after them for those that judge nothing; the best number
    of rounds, and how many were run.
    """

    answers: Floats
    rounds: int = 0
    ran: int = 0
    cut: bool = False


class Trainer(Protocol):
    """One way to fit. `searched` trainers get new params each trial, others are tried once. `parallel` ones
    use one core a fit, so that folds run beside each other.
    """

    name: str
    searched: bool
    parallel: bool

    def judge(
        self, problem: Problem, params: Params, train: TrainingSample, validate: TrainingSample
    ) -> ValidationResult:
        """Fit on `train`, stopping where it no longer gets better on `validate`, and answer all of its rows."""
        ...

    def fit(self, problem: Problem, params: Params, train: TrainingSample) -> FitResult:
        """Fit on `train`, as many rounds as `params["rounds"]` says."""
        ...

    def importance(self, problem: Problem, payload: Payload) -> dict[str, float]:
        """Feature -> share of the model's work, largest first; empty where it is not known."""
        ...


class Searched(Trainer, Protocol):
    """A trainer that fits in rounds: parameters are searched, and the models of several fits are averaged.

    grows: more rows want more rounds, as of trees; not of passes over the rows, which have more steps then.
    """

    grows: bool

    def space(self, trial: optuna.Trial, *, rows: int, categories: bool) -> dict[str, Parameter]:
        """One set of parameters."""
        ...

    def first_points(self, *, rows: int, rate: float | None, categories: bool) -> list[dict[str, Parameter]]:
        """Points tried first; `rate` is the share of the rarest class."""
        ...

    def is_random(self, params: Params) -> bool:
        """Whether fits with another seed differ."""
        ...

    def answers_again(
        self, problem: Problem, params: Params, train: TrainingSample, validate: TrainingSample, *, rounds: int
    ) -> Floats:
        """What `judge` answered when it ended with `rounds`, whatever ended it: patience or the clock."""
        ...

    def forget(self) -> None:
        """Free what is kept between trials."""
        ...


class Plain:
    """A trainer without rounds: judging is fitting and answering."""

    searched = False
    parallel = True

    def judge(
        self, problem: Problem, params: Params, train: TrainingSample, validate: TrainingSample
    ) -> ValidationResult:
        return ValidationResult(answers=self.fit(problem, params, train).payload.predict(validate.answered))

    def fit(self, problem: Problem, params: Params, train: TrainingSample) -> FitResult:
        raise NotImplementedError

    def importance(self, problem: Problem, payload: Payload) -> dict[str, float]:
        del problem, payload
        return {}


def shares(names: list[str], amounts: Floats) -> dict[str, float]:
    """Amounts by name as shares of their sum, largest first, without those that are 0."""
    total = float(amounts.sum())
    pairs = sorted(zip(names, amounts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    return {name: amount / total for name, amount in pairs if amount > 0} if total > 0 else {}
