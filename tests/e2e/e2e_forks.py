"""Commands as forks of a process that has imported what takes longest.

Importing MLflow, SciPy and what trains takes a command up to 5 s of processor time, and what it does in an end-to-end
test often less than one. A fork is a process, with a session, a working directory and an environment of its own, as
one of `python -m cumulant.cli` is. What a command imports, and no more, is tested in `test_cli_imports.py`.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
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
    gc.freeze()  # what was imported before is no garbage
    gc.set_threshold(20_000, 20, 20)  # as in the tests' own processes
    target(*arguments)


def call_command(words: list[str], *, seconds: float) -> tuple[int, str, str]:
    """Exit code, output and errors of `cumulant WORDS`; the negative number of a signal that ended it.

    Where the environment has what an interpreter reads when it starts, such as a clock of the test's own, it is no fork.

    Raises:
        TimeoutError, subprocess.TimeoutExpired: it did not end within so many seconds; it is killed then.
    """
    if not _can_fork(os.environ):
        line = [sys.executable, "-m", "cumulant.cli", *words]
        ended = subprocess.run(line, capture_output=True, text=True, timeout=seconds, check=False)
        return ended.returncode, ended.stdout, ended.stderr
    command = ForkedCommand(words, os.environ)
    try:
        out, err = command.communicate(seconds)
    except subprocess.TimeoutExpired as expired:
        command.kill_group()
        raise TimeoutError(f"{words} did not end within {seconds:g} s: {command.errors[-2000:]}") from expired
    return command.wait(), out, err


def start_command(words: list[str], environ: Mapping[str, str] | None = None) -> subprocess.Popen[str] | ForkedCommand:
    """`cumulant WORDS` as a fork, in a process group of its own; no fork under the same conditions as `call_command`.

    Its output is there when it has ended: whoever reads lines of it while it runs starts a process by other means.
    """
    environ = os.environ if environ is None else environ
    if _can_fork(environ):
        return ForkedCommand(words, environ)
    return subprocess.Popen(
        [sys.executable, "-m", "cumulant.cli", *words],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _can_fork(environ: Mapping[str, str]) -> bool:
    return {name: environ.get(name) for name in _READ_AT_START} == _STARTED


class ForkedCommand:
    """`cumulant WORDS` as a fork, in a process group of its own; used as a `subprocess.Popen`."""

    def __init__(self, words: list[str], environ: Mapping[str, str]) -> None:
        self._words, self._folder = words, Path(tempfile.mkdtemp())
        files = [self._folder / name for name in ("out", "err")]
        self._texts: tuple[str, str] | None = None
        self._process = start_fork(_become, words, dict(environ), str(Path.cwd()), *map(str, files))
        self.pid = self._process.pid or 0
        while not files[-1].exists() and self.poll() is None:  # its process group is there before this file
            time.sleep(0.002)

    @property
    def returncode(self) -> int | None:
        """The exit code; the negative number of a signal that ended it; None while it runs."""
        return self._process.exitcode

    @property
    def errors(self) -> str:
        """What it has written to its standard error so far."""
        return self._read()[1]

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self.returncode) is None:
            raise subprocess.TimeoutExpired(self._words, timeout or 0.0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Its output and its errors, once it has ended."""
        self.wait(timeout)
        if self._texts is None:
            self._texts = self._read()
            shutil.rmtree(self._folder)
        return self._texts

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill_group(self) -> None:
        """Kill it and whatever it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _read(self) -> tuple[str, str]:
        out, err = (path.read_text() if path.exists() else "" for path in (self._folder / "out", self._folder / "err"))
        return out, err


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
