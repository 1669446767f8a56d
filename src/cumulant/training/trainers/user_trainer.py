"""A trainer of the user's own, by import path."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cumulant.core.errors import DefinitionError, UserCodeError, missing_part
from cumulant.core.system.user_code import is_internal, next_step, python_message
from cumulant.core.system.user_modules import import_file, project_first
from cumulant.training.payloads.payload import Boosters, Floats, OnnxModel, Payload
from cumulant.training.trainers.trainer import FitResult, Params, Plain, Problem, TrainingSample

#: how far the converted graph may be from the estimator, on rows it was fitted on
_TOLERANCE = 1e-3
_CHECKED_ROWS = 500
#: a converter's message may hold the whole model
_LONGEST = 200


class UserTrainer(Plain):
    """Calls `fit(X, y, **context)` and turns what it returns into a payload.

    X is a pandas frame (or a Polars one, where the function's first parameter is annotated so) of the encoded features:
    float32, texts as codes, missing as NaN. y holds 0 and 1, class positions, or numbers. Of the
    context the function takes what it names: task, classes, categorical, weight, seed, threads, parameters.
    It returns an estimator with `predict_proba` or `predict` that converts to ONNX, a LightGBM model, or ONNX bytes
    that take one float32 matrix.
    """

    parallel = False  # nothing is known of its use of threads

    def __init__(self, path: str, root: Path) -> None:
        self.name = path
        self._path = path
        self._root = root

    def fit(self, problem: Problem, params: Params, train: TrainingSample) -> FitResult:
        function = load_function(self._path, self._root)
        check_signature(function, self._path)
        names = [input_.feature for input_ in problem.inputs]
        frame = _frame(function, train, names)
        context = {
            "task": problem.task,
            "classes": problem.classes,
            "categorical": [input_.feature for input_ in problem.inputs if input_.kind == "category"],
            "weight": train.weight,
            "seed": problem.seed,
            "threads": problem.threads,
            "parameters": dict(params),
        }
        target = train.target if problem.task == "regression" else train.target.astype(np.int64)
        try:
            returned = function(frame, target, **_wanted(function, context))
        except (Exception, SystemExit) as error:  # the edge to a user's code, which may raise anything
            raise user_error(error, self._path, "trainer") from error
        return FitResult(payload=payload_of(returned, problem, train, self._path))


_HINT = (
    "write naive, linear, lightgbm, sklearn:RandomForestClassifier, or a function: trainers.py:forest, "
    "package.module:forest"
)


def load_function(path: str, root: Path, what: str = "trainer") -> Callable[..., Any]:
    """The function at `file.py:name` (relative to `root`) or `package.module:name`.

    Raises:
        DefinitionError: there is no such file, module or function.
        UserCodeError: importing it raised.
    """
    place, _, name = path.partition(":")
    if not place or not name:
        raise DefinitionError(
            f'"{path}" is no {what}',
            subject=path,
            hint=_HINT if what == "trainer" else "write a function: file.py:name, package.module:name",
        )
    if place.endswith(".py") and not (root / place).is_file():
        raise DefinitionError(f"there is no file {place} for the {what}", subject=path)
    try:
        module = _import(place, root)
    except ModuleNotFoundError as error:
        if error.name and f"{place}.".startswith(f"{error.name}.") and not place.endswith(".py"):
            raise DefinitionError(f"there is no module {place} for the {what} {path}", subject=path) from None
        raise user_error(error, path, what) from error
    except (Exception, SystemExit) as error:  # importing a user's module runs their code
        raise user_error(error, path, what) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise DefinitionError(f"{place} has no function {name}", subject=path)
    return function  # type: ignore[no-any-return]


def _import(place: str, root: Path) -> ModuleType:
    """A module by its name, or a file of the project, which may import others from the project's folder."""
    if not place.endswith(".py"):
        return importlib.import_module(place)
    name = f"cumulant_user_{Path(place).stem}"
    with project_first(root, {}):  # the next project may have others of the same name
        module = import_file(name, root / place)
    sys.modules[name] = module  # pickles of what the file defines look it up
    return module


def user_error(error: BaseException, path: str, what: str) -> UserCodeError:
    """The error of a user's function, with the file and line of its own code that raised."""
    frames = [entry for entry in traceback.extract_tb(error.__traceback__) if not is_internal(entry.filename)]
    stem = path.partition(":")[0].rsplit("/", 1)[-1].removesuffix(".py").rsplit(".", 1)[-1]
    own = [frame for frame in frames if Path(frame.filename).stem == stem] or frames[-1:]
    at = f" at {Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
    if isinstance(error, SyntaxError) and error.lineno:
        at = f" at {Path(error.filename or path).name}, line {error.lineno}"
    kind, text = type(error).__name__, python_message(error)
    return UserCodeError(
        f"the {what} {path} raised {kind}{at}: {text.removeprefix(f'{kind}: ') if str(error) else 'without a text'}",
        subject=path,
        hint=next_step(error) or "correct the function and run the same command again: finished steps are reused",
    )


def check_returns(function: Callable[..., Any], path: str) -> None:
    """Raises DefinitionError where no statement of the function returns a value or raises; a decorator may."""
    if not inspect.isfunction(function) or hasattr(function, "__wrapped__"):
        return
    try:
        module = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError):  # made without a file, or part of a longer line
        return
    if isinstance(module.body[0], ast.FunctionDef) and not _returns(module.body[0].body):
        raise DefinitionError(
            f"the trainer {path} returns nothing",
            subject=path,
            hint="end it with `return` and what was fitted: an estimator, a LightGBM model, or ONNX bytes",
        )


def _returns(statements: Sequence[ast.AST]) -> bool:
    """Whether one of them, or one within them, returns a value, or raises; functions and classes within are others."""
    for statement in statements:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            continue
        if isinstance(statement, ast.Return):
            if statement.value is not None and not (
                isinstance(statement.value, ast.Constant) and statement.value.value is None
            ):
                return True
        elif isinstance(statement, (ast.Raise, ast.Yield, ast.YieldFrom)) or _returns(
            list(ast.iter_child_nodes(statement))
        ):
            return True
    return False


def check_signature(function: Callable[..., Any], path: str) -> None:
    """Raises DefinitionError where the function cannot be called with the rows and the target."""
    signature = inspect.signature(function)
    try:
        signature.bind_partial(None, None)
    except TypeError:
        name = path.partition(":")[2]
        raise DefinitionError(
            f"the trainer {path} is {name}{signature}, and is called with the rows and the target",
            subject=path,
            hint=f"write def {name}(X, y): ...",
        ) from None


def _wanted(function: Callable[..., Any], context: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return context
    return {name: value for name, value in context.items() if name in list(parameters)[2:]}


def _frame(function: Callable[..., Any], train: TrainingSample, names: list[str]) -> Any:
    first = next(iter(inspect.signature(function).parameters.values()), None)
    annotation = str(first.annotation) if first is not None else ""
    if "polars" in annotation or "pl." in annotation:
        import polars as pl

        return pl.DataFrame(train.matrix, schema=names)
    import pandas as pd

    return pd.DataFrame(train.matrix, columns=names)


def payload_of(returned: Any, problem: Problem, train: TrainingSample, path: str) -> Payload:
    """What the trainer `path` returned, as a payload that answers as it does on the rows it was fitted on.

    Raises:
        DefinitionError: it has no such form.
    """
    outputs = len(problem.classes) if problem.task == "multiclass" else 1
    if isinstance(returned, (bytes, bytearray)):
        graph = OnnxModel(bytes(returned), outputs)
        _check_graph(graph, train, problem, path)
        return graph
    booster = getattr(returned, "booster_", returned)
    if type(booster).__module__.startswith("lightgbm") and hasattr(booster, "model_to_string"):
        return Boosters((booster.model_to_string(),))
    if not hasattr(returned, "predict"):
        raise DefinitionError(
            f"the trainer {path} returned {type(returned).__name__}, which is no estimator and no ONNX bytes",
            subject=path,
        )
    graph = OnnxModel(_converted(returned, problem, path), outputs)
    _check_graph(graph, train, problem, path)
    _compare(graph, returned, train, problem, path)
    return graph


def _converted(estimator: Any, problem: Problem, path: str) -> bytes:
    try:
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError:
        raise missing_part("skl2onnx", "train") from None
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    kind = [("X", FloatTensorType([None, len(problem.inputs)]))]
    try:
        return to_onnx(estimator, initial_types=kind, options=options).SerializeToString()  # type: ignore[no-any-return]
    except Exception as error:  # converters raise many kinds, each meaning that this estimator has no ONNX form
        raise DefinitionError(
            f"what the trainer {path} returned ({type(estimator).__name__}) has no ONNX form: {_one_line(error)}",
            subject=path,
            hint="return a scikit-learn estimator of its own kinds, a LightGBM model, or ONNX bytes",
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error)[: 4 * _LONGEST].split())[:_LONGEST]


def _check_graph(graph: OnnxModel, train: TrainingSample, problem: Problem, path: str) -> None:
    """That the graph takes the matrix and answers one number a row, or one a class."""
    rows = train.matrix[:2]
    wanted = (2, len(problem.classes)) if problem.task == "multiclass" else (2,)
    try:
        shape = graph.predict(rows).shape
    except Exception as error:  # onnxruntime raises its own kinds for a graph that is not what is required
        raise DefinitionError(
            f"the ONNX graph of the trainer {path} does not run: {_one_line(error)}", subject=path
        ) from error
    if shape != wanted:
        raise DefinitionError(
            f"the ONNX graph of the trainer {path} answers {shape} where {wanted} is needed", subject=path
        )


def _compare(graph: OnnxModel, estimator: Any, train: TrainingSample, problem: Problem, path: str) -> None:
    rows = train.matrix[:_CHECKED_ROWS]
    names = [input_.feature for input_ in problem.inputs]
    import pandas as pd

    frame: Any = pd.DataFrame(rows, columns=names) if hasattr(estimator, "feature_names_in_") else rows
    if problem.task == "regression":
        expected: Floats = np.asarray(estimator.predict(frame), dtype=np.float64).reshape(-1)
    else:
        expected = np.asarray(estimator.predict_proba(frame), dtype=np.float64)
        expected = expected if problem.task == "multiclass" else expected[:, 1]
    scale = max(1.0, float(np.abs(expected).max()))
    gap = float(np.abs(graph.predict(rows) - expected).max()) / scale
    if gap > _TOLERANCE:
        raise DefinitionError(
            f"the ONNX form of what {path} returned answers differently, by up to {gap:.2g}",
            subject=path,
            hint="what happens to X before the fit must be part of the estimator (a Pipeline); or return ONNX bytes",
        )
