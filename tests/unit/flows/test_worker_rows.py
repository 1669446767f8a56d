"""Rows of the journal that nobody should have written: what a worker runs of them, and what a caller imports."""

import sys
import threading
from datetime import UTC, datetime

import msgspec
import pytest

from cumulant.core.errors import CumulantError, DataError, RefusedError, StepFailedError, UsageError
from cumulant.core.events import Actor
from cumulant.core.version import __version__
from cumulant.flows.ledger.code_bundle import store_code
from cumulant.flows.ledger.step_function import RUN_STEP
from cumulant.flows.worker.run_worker import machine_offer, run_worker
from cumulant.ports.compute import StepCall
from cumulant.ports.step_outcome import StepError, rebuild
from cumulant.ports.step_queue import QUEUED_STEP, QueuedStep, read_queued
from cumulant.project.file.loading import load

OWN_STEP = "cumulant.flows.training.train:anything"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: shop}\nenvironments: {prod: {}}\n")
    (tmp_path / "features.py").write_text("features = []\n")
    with load(tmp_path) as loaded:
        yield loaded


def arguments(function=OWN_STEP, **changes):
    run = {
        "root": "/",
        "environment": "local",
        "overrides": {},
        "settings": "",
        "run": "r",
        "cause": None,
        "principal": {"id": "user:eve"},
        "begun": "2026-01-01T00:00:00Z",
    }
    return {"run": run | changes, "step": {"function": function, "arguments": {}}}


def run_row(project, call):
    """Queue a call as whoever can write to the journal would, and let a worker take it."""
    step = QueuedStep(call=call, request="r", caller="c", version=__version__, queued=datetime.now(UTC))
    with project.journal().transaction(actor=Actor("user:eve")) as transaction:
        transaction.put(QUEUED_STEP, "k", msgspec.to_builtins(step))
    offer, stop = machine_offer(), threading.Event()
    (run,) = run_worker(project, principal=project.principal(), offer=offer, stop=stop, once=True)
    assert run.ending == "failed"
    outcome = read_queued(project.journal().get(QUEUED_STEP, "k")).outcome
    with pytest.raises(RefusedError) as caught:
        outcome.unwrap()
    return caught.value.message


@pytest.mark.skipif(sys.platform == "win32", reason="workers need symbolic links")
@pytest.mark.parametrize(
    ("function", "given", "reason"),
    [
        ("os:makedirs", {"name": "OUT"}, "its arguments cannot be read"),
        ("os:makedirs", arguments(), "it calls os:makedirs"),
        (RUN_STEP, arguments("os:makedirs"), "it calls os:makedirs"),
        (RUN_STEP, arguments(environment="prod"), "it is of the environment prod"),
        (RUN_STEP, {}, "its arguments cannot be read"),
    ],
)
def test_a_worker_runs_only_steps_of_commands_of_its_environment(project, tmp_path, function, given, reason):
    given = {name: str(tmp_path / "out") if value == "OUT" else value for name, value in given.items()}
    message = run_row(project, StepCall(function, given, code=store_code(project)))
    assert reason in message
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="workers need symbolic links")
def test_a_worker_runs_no_step_without_the_code_of_its_project(project):
    assert "is none" in run_row(project, StepCall(RUN_STEP, arguments()))


@pytest.mark.parametrize("kind", ["", ":", ".errors:X", "this:X", "os:system", "cumulant.cli.__main__:X", "a/b:X"])
def test_an_outcome_imports_nothing_but_modules_of_cumulant(kind):
    module = kind.partition(":")[0]
    loaded = module in sys.modules
    assert type(rebuild(StepError(kind, "it failed"))) is StepFailedError
    assert (module in sys.modules) == loaded


class OwnError(UsageError):
    """As a project's code, or a driver, may have one."""


def test_an_outcome_is_of_its_own_class_where_that_is_known():
    own = rebuild(StepError(f"{__name__}:{OwnError.__qualname__}", "it failed", {"hint": "try"}))
    assert (type(own), own.hint) == (OwnError, "try")
    late = rebuild(StepError("cumulant.data.text.csv_text:DialectError", "it failed"))
    assert type(late).__name__ == "DialectError"
    assert isinstance(late, DataError)
    assert isinstance(late, CumulantError)
