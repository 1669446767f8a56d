"""Models of XGBoost and CatBoost as payloads: JSON texts, which hold no code."""

from __future__ import annotations

import importlib
from typing import Any, Literal

import msgspec
import numpy as np

from cumulant.core.errors import MissingPartError, missing_part
from cumulant.training.payloads.encoding import Matrix
from cumulant.training.payloads.payload import Averaged, Floats, linked

#: of what a package says that cannot be imported
_LONGEST = 200


class XgboostModels(Averaged, frozen=True, dict=True):
    """XGBoost models."""

    kind = "xgboost"
    stem = "xgboost"

    @staticmethod
    def _read(text: str) -> Any:
        booster = xgboost_part().Booster(params={"nthread": 1})
        booster.load_model(bytearray(text.encode()))
        return booster

    @staticmethod
    def _answers(model: Any, matrix: Matrix) -> Floats:
        return xgboost_answers(model, matrix)


def xgboost_answers(booster: Any, matrix: Matrix, rounds: int = 0) -> Floats:
    """Answers of the first `rounds` rounds; 0: of all."""
    data = xgboost_part().DMatrix(matrix, feature_types=booster.feature_types, enable_categorical=True, nthread=1)
    return np.asarray(booster.predict(data, iteration_range=(0, rounds)), dtype=np.float64)


def imported(name: str) -> Any:
    """The package of a trainer, which has the trainer's name.

    Raises:
        MissingPartError: it is not installed, or cannot be imported: it was built for another NumPy, or a library of
            the system is missing.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise missing_part(error.name or name, name) from None
    except (ImportError, OSError, ValueError, AttributeError, TypeError) as error:
        message = " ".join(str(error).split())[:_LONGEST]
        raise MissingPartError(
            f"the Python package {name} is installed and cannot be imported: {message}",
            subject=name,
            hint=f'pip install --force-reinstall "cumulant[{name}]"',
        ) from error


def xgboost_part() -> Any:
    """The `xgboost` package, imported on first use. Raises MissingPartError as `imported`."""
    return imported("xgboost")


class TreeCondition(msgspec.Struct, frozen=True, array_like=True):
    """What a level of a tree tests in the matrix's `column`: above `border`, or equal to the category `code`.

    `missing`: what a missing value answers.
    """

    column: int
    missing: bool
    border: float = 0.0
    code: int | None = None


class SymmetricTree(msgspec.Struct, frozen=True, array_like=True):
    """One test a level; its answers are the bits, the first the lowest, of the row of `leaves` [2^levels, outputs]."""

    tests: tuple[TreeCondition, ...]
    leaves: tuple[tuple[float, ...], ...]


class SymmetricTrees(msgspec.Struct, frozen=True, kw_only=True):
    """A CatBoost model: the link of the sum of bias and trees. `importance`: of each column of the matrix."""

    link: Literal["identity", "sigmoid", "softmax"]
    bias: tuple[float, ...]
    trees: tuple[SymmetricTree, ...]
    importance: tuple[float, ...]

    def predict(self, matrix: Matrix) -> Floats:
        columns = np.ascontiguousarray(matrix.T)
        unknown = np.isnan(columns)
        score = np.tile(np.array(self.bias, dtype=np.float64), (len(matrix), 1))
        for tree in self.trees:
            place = np.zeros(len(matrix), dtype=np.int64)
            for level, test in enumerate(tree.tests):
                column = columns[test.column]
                passed = column > np.float32(test.border) if test.code is None else column == np.float32(test.code)
                place |= (passed | (unknown[test.column] & test.missing)).astype(np.int64) << level
            score += np.array(tree.leaves)[place]
        return linked(score, self.link)


class CatboostModels(Averaged, frozen=True, dict=True):
    """CatBoost models, each as JSON of `SymmetricTrees`."""

    kind = "catboost"
    stem = "catboost"

    @staticmethod
    def _read(text: str) -> SymmetricTrees:
        return msgspec.json.decode(text, type=SymmetricTrees)


def catboost_part() -> Any:
    """The `catboost` package, imported on first use. Raises MissingPartError as `imported`."""
    return imported("catboost")
