"""`prepare` functions: the user's own cleaning of a source, run from the project's folder."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import polars as pl

from cumulant.core.errors import DefinitionError, UserCodeError, did_you_mean
from cumulant.core.ids import digest, short
from cumulant.core.system.user_modules import import_file, project_first
from cumulant.data.code_hash import code_digest, defined_names, file_of
from cumulant.data.files.user_frames import to_polars

FrameKind = Literal["lazy", "polars", "pandas"]


@dataclass(frozen=True)
class Prepare:
    """A loaded function. `digest` changes with its code and with whatever of the project it uses."""

    name: str
    file: Path
    root: Path
    function: Callable[[Any], Any]
    frame_kind: FrameKind
    digest: str
    #: what of the project the function's file imported, for imports while it runs
    modules: dict[str, ModuleType] = field(compare=False, repr=False)
    #: leave the exception's own text out of errors: it may quote personal values
    quiet: bool = False

    def __call__(self, raw: pl.DataFrame) -> pl.DataFrame:
        """The function's result for `raw` as a Polars frame.

        Raises:
            UserCodeError: the function raised; names its file and line.
            DefinitionError: it returned no table.
        """
        with _in_project(self.root, self.modules), _user_code(self):
            answer = self.function(self._convert(raw))
            if isinstance(answer, pl.LazyFrame):
                answer = answer.collect()
        if answer is None:
            raise DefinitionError(
                f"prepare {self.name} returned nothing", subject=self.name, hint="end it with `return` and the frame"
            )
        return to_polars(answer, source=self.name)

    def _convert(self, raw: pl.DataFrame) -> Any:
        if self.frame_kind == "lazy":
            return raw.lazy()
        return raw.to_pandas() if self.frame_kind == "pandas" else raw


def load(reference: str, root: Path, *, quiet: bool = False) -> Prepare:
    """The function named by `file.py:function`, relative to `root`.

    Raises:
        DefinitionError: no such file or function.
        UserCodeError: importing the file raised.
    """
    file, name = file_of(reference, root), reference.rpartition(":")[2]
    draft = Prepare(reference, file, root, _nothing, "lazy", code_digest(file, name, root), {}, quiet)
    with _in_project(root, draft.modules), _user_code(draft):
        module = _import_module(file)
    function = getattr(module, name, None)
    if not callable(function):
        near = did_you_mean(name, defined_names(file))
        raise DefinitionError(
            f"prepare {reference}: {file.name} has no function {name}",
            subject=reference,
            hint=near or "define it at the top level of the file",
        )
    return Prepare(reference, file, root, function, _frame_kind(function, file), draft.digest, draft.modules, quiet)


def _nothing(frame: object) -> object:
    return frame


def _import_module(file: Path) -> object:
    """The file as a fresh module of its own, so that edits count at once."""
    name = f"cumulant_prepare_{short(digest([str(file), file.read_text(encoding='utf-8')]))}"
    if file.suffix != ".py":
        raise DefinitionError(f"{file.name} is no Python file", subject=file.name, hint="name a .py file")
    return import_file(name, file)


def _frame_kind(function: Callable[[Any], Any], file: Path) -> FrameKind:
    """Which frame the function takes: by its annotation, else by what its file imports."""
    parameters = list(inspect.signature(function).parameters.values())
    note = parameters[0].annotation if parameters else inspect.Parameter.empty
    text = note if isinstance(note, str) else f"{getattr(note, '__module__', '')}.{getattr(note, '__name__', '')}"
    if "LazyFrame" in text:
        return "lazy"
    if text.startswith(("pd.", "pandas")):
        return "pandas"
    if "polars" in text or text.startswith("pl."):
        return "polars"
    source = file.read_text(encoding="utf-8")
    return "pandas" if "import pandas" in source and "import polars" not in source else "polars"


@contextlib.contextmanager
def _in_project(root: Path, modules: dict[str, ModuleType]) -> Iterator[None]:
    """Run with the project as working directory and first on the module path, and with its `modules`."""
    with project_first(root, modules):
        here = Path.cwd()
        os.chdir(root)
        try:
            yield
        finally:
            os.chdir(here)


@contextlib.contextmanager
def _user_code(prepare: Prepare) -> Iterator[None]:
    """Exceptions of the user's code, as one error with its file and line."""
    try:
        yield
    except (KeyboardInterrupt, MemoryError):
        raise
    except (Exception, SystemExit, pl.exceptions.PanicException) as error:  # the edge to user code: anything may come
        where = _place_of(error, prepare)
        reason = "" if prepare.quiet else f": {str(error).strip().splitlines()[0]}" if str(error).strip() else ""
        raise UserCodeError(
            f"prepare {prepare.name} raised {type(error).__name__}{reason} ({where})",
            subject=prepare.name,
            hint="fix the function; the source was not changed",
        ) from error


def _place_of(error: BaseException, prepare: Prepare) -> str:
    """`file.py, line 12`: the innermost line of the user's project, or the function's first."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        path = Path(frame.filename)
        if path == prepare.file or (path.is_relative_to(prepare.root) and "site-packages" not in path.parts):
            shown = path.relative_to(prepare.root) if path.is_relative_to(prepare.root) else path.name
            return f"{shown}, line {frame.lineno}"
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{Path(error.filename or prepare.file).name}, line {error.lineno}"
    code = getattr(prepare.function, "__code__", None)
    line = code.co_firstlineno if code is not None and prepare.function is not _nothing else 1
    return f"{prepare.file.name}, line {line}"
