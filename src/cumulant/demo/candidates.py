"""The demo's candidates: a good one, and three that are broken in ways that tests before a release do not find."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import cumulant
from cumulant.core.errors import EngineUnavailableError
from cumulant.core.progress import Progress
from cumulant.demo.data_fault import Fault

if TYPE_CHECKING:
    from cumulant.api.results import TrainResult
    from cumulant.api.views import TrainingView

LEAKY = "leaky.py"
_START_SECONDS = 30.0


def train_good(project: cumulant.Project, as_of: datetime) -> str:
    """The URI of the same model with the rows up to `as_of`; a release, not the gate, makes it champion."""
    return _uri(project.train(as_of=as_of, promote=False))


def train_leaked(project: cumulant.Project, as_of: datetime, progress: Progress) -> str:
    """The URI of a model trained with `dep_delay`, which the project file here wrongly declares as known."""
    root = project.root
    text = (root / "features.py").read_text(encoding="utf-8")
    (root / LEAKY).write_text(text.replace('"distance")', '"distance", "dep_delay")', 1), encoding="utf-8")
    known = ["dep_time", "arr_time", "arr_delay", "air_time"]
    wrong = {"features": LEAKY, "data.flights.known_time": {"landed": known}}
    with cumulant.open(root, env=project.env, overrides=wrong, progress=progress) as other:
        return _uri(other.train(as_of=as_of, quick=True))


def _uri(trained: TrainingView[TrainResult]) -> str:
    return f"{trained.model.name}/{trained.model.version}"


@contextmanager
def faulty_server(url: str, fault: Fault, *, gateway_key: Path) -> Iterator[str]:
    """The URL of a server that answers as the one at `url` does, but for the fault. It ends with the block.

    `gateway_key` is the file of the stack's key.

    Raises:
        EngineUnavailableError: it does not start.
    """
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "url"
        line = [sys.executable, "-m", "cumulant.demo.data_fault", url, "--ready-file", str(ready)]
        line += ["--gateway-key-file", str(gateway_key)]
        line += ["--slow", str(fault.slow), "--failing", str(fault.failing), "--parent", str(os.getpid())]
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            yield _url(process, ready)
        finally:
            process.terminate()
            process.wait()


def _url(process: subprocess.Popen[bytes], ready: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise EngineUnavailableError("the demo's faulty server did not start", hint="see `cumulant doctor`")
        time.sleep(0.02)
    return ready.read_text(encoding="utf-8")
