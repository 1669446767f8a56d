"""Rows of queued steps: what a worker runs of those that nobody should have written, what a caller imports, what of a
command's overrides is in them, and what a clean-up keeps for them.
"""

import json
import sys
import threading
from datetime import UTC, datetime, timedelta

import msgspec
import polars as pl
import pytest

from cumulant.core.errors import CumulantError, DataError, IntegrityError, RefusedError, StepFailedError, UsageError
from cumulant.core.events import Actor
from cumulant.core.version import __version__
from cumulant.flows.features.feature_table import featurize
from cumulant.flows.ledger.code_bundle import store_code
from cumulant.flows.ledger.step_function import RUN_STEP
from cumulant.flows.ledger.stored_overrides import delete_overrides, overrides_for_step, read_overrides, store_overrides
from cumulant.flows.maintenance.cleanup import clean
from cumulant.flows.worker import worker
from cumulant.flows.worker.run_worker import machine_offer, run_worker
from cumulant.ports.compute import Resources, StepCall
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


OVERRIDE = "ann.planted@person.example"
FEATURES = """\
from cumulant.features import source

visits = source("visits")
count = visits.by("who").count(window="7d")
"""


@pytest.fixture
def queued(tmp_path):
    """A project whose steps wait for a worker, loaded with an override that its file does not have."""
    (tmp_path / "cumulant.yaml").write_text(
        "version: 1\nmodel: {name: shop}\n"
        "data: {visits: {path: visits.csv, key: id, event_time: {column: at, zone: UTC}}}\n"
        "training: {target: bought}\nenvironments: {local: {compute: 'worker://'}}\n"
    )
    (tmp_path / "features.py").write_text(FEATURES)
    at = [datetime(2026, 1, 1) + timedelta(hours=number) for number in range(40)]
    rows = {"id": range(40), "at": at, "who": [n % 3 for n in range(40)], "bought": [n % 2 == 0 for n in range(40)]}
    pl.DataFrame(rows).with_columns(pl.col("at").dt.to_string()).write_csv(tmp_path / "visits.csv")
    with load(tmp_path, overrides={"model.owner": OVERRIDE}) as loaded:
        yield loaded


def work_until(project, stop):
    """Run the project's queued steps, as another process does, until `stop` is set."""
    with load(project.root) as own:
        list(run_worker(own, principal=own.principal(), offer=machine_offer(), stop=stop))


@pytest.mark.skipif(sys.platform == "win32", reason="workers need symbolic links")
def test_overrides_reach_a_step_and_are_deleted_with_it_and_are_not_in_the_journal(queued):
    stop = threading.Event()
    thread = threading.Thread(target=work_until, args=(queued, stop))
    thread.start()
    try:
        # A step that is loaded without the override is refused: it would go by other settings.
        features = featurize(queued, principal=queued.principal())
    finally:
        stop.set()
        thread.join(60)
    assert features.rows == 40
    (row,) = queued.journal().rows(QUEUED_STEP)
    assert read_queued(row).status == "collected"
    written = json.dumps(row.value) + json.dumps([event.data for event in queued.journal().events()])
    assert OVERRIDE not in written
    assert "overrides/" in written
    assert queued.objects().keys("overrides/") == []


@pytest.mark.skipif(sys.platform == "win32", reason="workers need symbolic links")
def test_a_worker_deletes_what_a_killed_command_left_with_its_step(project, monkeypatch):
    objects, kept = project.objects(), store_overrides(project.objects(), {"model.owner": OVERRIDE})
    stored = store_overrides(objects, {"model.owner": OVERRIDE})
    call = StepCall(RUN_STEP, arguments(stored_overrides=stored), code=store_code(project))
    step = QueuedStep(call=call, request="r", caller="c", version=__version__, queued=datetime.now(UTC))
    waiting = StepCall(RUN_STEP, arguments(stored_overrides=kept), Resources(gpu=9), code=call.code)
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.put(QUEUED_STEP, "k", msgspec.to_builtins(msgspec.structs.replace(step, status="collected")))
        transaction.put(QUEUED_STEP, "l", msgspec.to_builtins(msgspec.structs.replace(step, call=waiting)))
    monkeypatch.setattr(worker, "_KEPT", timedelta())
    offer = machine_offer()
    assert not list(run_worker(project, principal=project.principal(), offer=offer, stop=threading.Event(), once=True))
    assert [row.key for row in project.journal().rows(QUEUED_STEP)] == ["l"]
    assert objects.keys("overrides/") == [kept]
    assert read_overrides(objects, kept) == {"model.owner": OVERRIDE}


@pytest.mark.parametrize(("status", "needed"), [("running", True), ("collected", False), ("cancelled", False)])
def test_overrides_stay_while_another_command_waits_for_the_step(project, status, needed):
    objects, journal = project.objects(), project.journal()
    with overrides_for_step(objects, journal, {"model.owner": OVERRIDE}, step="k") as stored:
        call = StepCall(RUN_STEP, arguments(stored_overrides=stored))
        step = QueuedStep(call=call, request="r", caller="c", version="0", queued=datetime.now(UTC), status=status)
        with journal.transaction(actor=Actor("user:ada")) as transaction:
            transaction.put(QUEUED_STEP, "k", msgspec.to_builtins(step))
    assert objects.keys("overrides/") == ([stored] if needed else [])
    with overrides_for_step(objects, journal, {"model.owner": OVERRIDE}, step="k") as adopted:
        assert adopted in objects.keys("overrides/")
    assert objects.keys("overrides/") == ([stored] if needed else [])


def test_a_row_reads_and_deletes_no_object_but_overrides(project):
    objects, code = project.objects(), store_code(project)
    assert store_overrides(objects, {}) == ""
    assert read_overrides(objects, "") == {}
    for call in (read_overrides, delete_overrides):
        with pytest.raises(IntegrityError, match="cannot be read"):
            call(objects, code)
    assert objects.keys() == [code]
    key = store_overrides(objects, {"training.trials": 3})
    assert key != store_overrides(objects, {"training.trials": 3})


def test_a_clean_up_keeps_what_steps_of_another_version_need(project):
    objects, code = project.objects(), store_code(project)
    kept, left = store_overrides(objects, {"training.trials": 3}), store_overrides(objects, {"training.trials": 4})
    later = {"step": {"bundle": {"name": code}, "settings": kept}, "status": "asleep"}
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.put(QUEUED_STEP, "k", later)
    reports = []
    removed = clean(
        project, principal=project.principal(), dry_run=False, progress=lambda text, *_: reports.append(text)
    )
    assert [item.key for item in removed] == [left]
    assert sorted(objects.keys()) == sorted([code, kept])
    assert [text for text in reports if "another version" in text] == [
        "1 queued steps are of another version of Cumulant: their code is kept"
    ]
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.delete(QUEUED_STEP, "k")
    clean(project, principal=project.principal(), dry_run=False)
    assert objects.keys() == []
