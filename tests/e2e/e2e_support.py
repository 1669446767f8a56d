"""What the end-to-end tests share: command lines in processes of their own, and what a project holds."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from e2e_forks import ForkedCommand, call_command, start_command

from cumulant.drivers.mlflow.engine import load_mlflow
from cumulant.flows.ledger.ledger_records import STEP, read_step
from cumulant.flows.ledger.run_events import StepFinished, StepStarted, verify
from cumulant.flows.registry.lineage import record_of
from cumulant.project.file.loading import load
from cumulant.project.project import Project


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """`cumulant WORDS --project FOLDER --json` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "cumulant.cli", *words, "--project", str(folder), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def start_fork(folder: Path, *words: str) -> subprocess.Popen[str] | ForkedCommand:
    """As `start`, without the time that imports take; its output can be read once it has ended."""
    return start_command([*words, "--project", str(folder), "--json"])


def run(folder: Path, *words: str, codes: tuple[int, ...] = (0,)) -> Any:
    """The document that the command printed, once it has ended with one of `codes`."""
    code, out, err = call_command([*words, "--project", str(folder), "--json"], seconds=300)
    assert code in codes, f"ended with {code}: {out[-2000:]}{err[-2000:]}"
    return json.loads(out) if out.strip() else None


def kill(process: subprocess.Popen[str] | ForkedCommand, number: int = signal.SIGKILL) -> None:
    """Send the signal to the process and whatever it started, if it still runs, and wait."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    process.communicate(timeout=60)


@contextmanager
def opened(folder: Path, environment: str = "local") -> Iterator[Project]:
    with load(folder, environment=environment) as project:
        yield project


def outcome(project: Project) -> dict[str, Any]:
    """What a training left, without times and names of runs: equal for equal trainings, wherever they ran."""
    (version,) = project.registry().versions(project.name)
    record = record_of(project, version)
    assert version.run_id is not None
    metrics = project.registry().metrics(version.run_id)
    with project.objects().open(record.servable.key) as folder:
        files = hashes(folder)
    return {
        "aliases": version.aliases,
        "servable": record.servable.key,
        "files": files,
        "metrics": record.judgement.evaluation.values(),
        "verdict": msgspec.to_builtins(record.judgement.verdict),
        "logged": {name: value for name, value in metrics.items() if name != "seconds"},
        "trials": [msgspec.structs.replace(trial, seconds=0.0) for trial in record.fitted.trials],
        "snapshots": record.snapshots,
        "table": record.table,
    }


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def finishes(project: Project) -> Counter[str]:
    """How often each step was finished, by its identity."""
    return Counter(str(event.data["step"]) for event in project.journal().events(kinds=(StepFinished.kind,)))


def check_whole(project: Project) -> None:
    """Whatever is visible is whole: tables, objects, results of steps, the chain of events."""
    tables, objects, journal = project.tables(), project.objects(), project.journal()
    for key in tables.keys(""):
        ref = tables.find(key)
        assert ref is not None, key
        assert len(tables.scan(ref).collect()) == ref.rows, key
    for key in objects.keys(""):
        ref = objects.find(key)
        assert ref is not None, key
        with objects.open(key) as path:
            assert path.exists(), key
    for row in journal.rows(STEP):
        step = read_step(row)
        assert (step.result is not None) == (step.status == "done"), step
    assert verify(journal).breaks == []


def attempts(project: Project, name: str) -> int:
    """How often the step of that name was begun."""
    return sum(event.data["name"] == name for event in project.journal().events(kinds=(StepStarted.kind,)))


def wait_for(
    process: subprocess.Popen[str] | ForkedCommand, condition: Callable[[], bool], seconds: float = 120
) -> None:
    """Wait until `condition` comes true while the process runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def mlflow_runs(project: Project) -> list[Any]:
    """Every run of the project's experiment, as stock MLflow sees them."""
    mlflow = load_mlflow()
    client = mlflow.MlflowClient(project.registry().tracking_uri)
    experiment = client.get_experiment_by_name(project.name)
    return list(client.search_runs([experiment.experiment_id]))
