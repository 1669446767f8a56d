"""Commands as forks of a process that has imported what takes longest.

Importing MLflow, SciPy and what trains takes a command up to 5 s of processor time, and what it does in an end-to-end
test often less than one. A fork is a process, with a session, a working directory and an environment of its own, as
one of `python -m cumulant.cli` is. What a command imports, and no more, is tested in `test_cli_imports.py`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from pathlib import Path

import cumulant.cli

#: one server for each process of pytest; what it imports starts no threads but those of allocators and of Polars' removal
#: of temporary files, and a fork does without them
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [
        "mlflow.pyfunc",
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.store.model_registry.sqlalchemy_store",
        "lightgbm",
        "onnx",
        "optuna",
        "polars",
        "pyarrow.compute",
        "scipy.stats",
        "sklearn.linear_model",
        "cumulant.cli.app",
        "cumulant.flows.monitoring.retraining",
        "cumulant.flows.monitoring.run",
        "cumulant.flows.training.train",
    ]
)
#: what an interpreter reads where it starts, which a fork does not
_READ_AT_START = ("LD_PRELOAD", "PYTHONPATH")
_STARTED = {name: os.environ.get(name) for name in _READ_AT_START}


def start_fork(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """A process that calls `target`, which stands in a module."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read where MLflow is imported
    process = _PROCESSES.Process(target=_call, args=(target, arguments))
    process.start()
    return process


def _call(target: Callable[..., None], arguments: Sequence[object]) -> None:
    """As after `python -m`: PySpark, where it is installed, ends a process whose main module has no name."""
    sys.modules["__main__"].__spec__ = find_spec("cumulant.cli.__main__")
    target(*arguments)


def call_command(words: list[str], *, seconds: float) -> tuple[int, str, str]:
    """Exit code, output and errors of `cumulant WORDS`; the negative number of a signal that ended it.

    Where the environment has what an interpreter reads when it starts, such as a clock of the test's own, it is no fork.

    Raises:
        TimeoutError, subprocess.TimeoutExpired: it did not end within so many seconds; it is killed then.
    """
    if {name: os.environ.get(name) for name in _READ_AT_START} != _STARTED:
        line = [sys.executable, "-m", "cumulant.cli", *words]
        ended = subprocess.run(line, capture_output=True, text=True, timeout=seconds, check=False)
        return ended.returncode, ended.stdout, ended.stderr
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        process = start_fork(_become, words, dict(os.environ), str(Path.cwd()), str(out), str(err))
        process.join(seconds)
        if process.exitcode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            raise TimeoutError(f"{words} did not end within {seconds:g} s: {err.read_text()[-2000:]}")
        return process.exitcode, out.read_text(), err.read_text()


def _become(words: list[str], environ: dict[str, str], folder: str, *files: str) -> None:
    """Run the command in this process."""
    os.setsid()
    for number, file in enumerate(files, start=1):
        with Path(file).open("wb") as stream:
            os.dup2(stream.fileno(), number)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.argv = ["cumulant", *words]
    cumulant.cli.main()
