"""`compute: subprocess://`: the same results, events and progress as in the command's process, and its end by a kill."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import e2e_shop
import pytest
from e2e_support import attempts, check_whole, finishes, kill, opened, outcome, run, start, wait_for

from cumulant.core.errors import RetryableError, UsageError
from cumulant.core.progress import silent
from cumulant.data.checks.verdict import SourceBreachError
from cumulant.drivers.local.compute import SubprocessCompute
from cumulant.flows.data.validate import refused_snapshot, snapshots_of, validate
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.ledger_records import STEP, read_step
from cumulant.flows.ledger.processes import is_gone, process_of
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.monitoring.reference import served_reference
from cumulant.flows.project.planning import plan
from cumulant.flows.review.review_reference import reference_of
from cumulant.flows.serving.serve import materialize
from cumulant.flows.training.train import train
from cumulant.project.file.loading import load
from cumulant.training.events import FoldFinished, TrialFinished

pytestmark = pytest.mark.slow

INLINE = e2e_shop.PROJECT.replace("  trials: 3\n", "  trials: 3\n  final_fit: all\n")
ISOLATED = INLINE + "environments:\n  local: {compute: subprocess://}\n"
STEPS = ["run_ingest", "run_ingest", "run_features", "run_search", "run_evaluation", "run_final_fit", "run_package"]


def trained(folder, project):
    """A training with an override, as a result, the steps that another process called, and reports of progress."""
    calls, reports = [], []
    run_step = SubprocessCompute.run

    def counted(self, call, **options):
        calls.append(call.arguments["step"]["function"].partition(":")[2])
        return run_step(self, call, **options)

    e2e_shop.make(folder, project=project)
    with pytest.MonkeyPatch.context() as patch, load(folder, overrides=["training.trials=8"]) as loaded:
        patch.setattr(SubprocessCompute, "run", counted)
        result = train(
            loaded, principal=loaded.principal(), progress=lambda text, share=None: reports.append((text, share))
        )
    return result, calls, reports


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compute")
    return {
        name: (folder / name / "shop", *trained(folder / name / "shop", project))
        for name, project in (("inline", INLINE), ("isolated", ISOLATED))
    }


def test_the_same_results_as_in_the_process_of_the_command(both):
    inline, isolated = both["inline"], both["isolated"]
    assert inline[2] == []
    assert isolated[2] == STEPS
    with opened(inline[0]) as one, opened(isolated[0]) as other:
        assert outcome(one) == outcome(other)
        steps = [{read_step(row).name: row.key for row in project.journal().rows(STEP)} for project in (one, other)]
        for name in ("features", "search", "evaluate", "final fit"):
            assert steps[0][name] == steps[1][name]
        check_whole(other)


def test_the_same_events_in_the_same_order_and_of_the_same_run(both):
    events = {}
    for name, (folder, result, *_) in both.items():
        with opened(folder) as project:
            # How many folds are reported depends on how long they take.
            mine = [
                event
                for event in project.journal().events()
                if event.run == result.run and event.kind != FoldFinished.kind
            ]
            assert {event.actor for event in mine} == {project.principal().id}
            place = {event.id: number for number, event in enumerate(mine)}
            events[name] = [
                (event.kind, event.data.get("name"), event.data.get("number"), place.get(event.cause)) for event in mine
            ]
    # Trials run beside each other, so that any of them may end first.
    trials = {name: sorted(row[2] for row in rows if row[0] == TrialFinished.kind) for name, rows in events.items()}
    assert trials["inline"] == trials["isolated"] == list(range(len(trials["inline"])))
    assert len(trials["inline"]) >= 8
    for rows in events.values():
        rows[:] = [(kind, name, None, cause) for kind, name, _, cause in rows]
    assert events["inline"] == events["isolated"]


def test_the_same_progress(both):
    texts = {name: list(dict.fromkeys(text for text, _ in reports)) for name, (*_, reports) in both.items()}
    assert texts["inline"] == texts["isolated"]


def test_again_nothing_is_computed_and_nothing_started(both):
    folder = both["isolated"][0]
    with pytest.MonkeyPatch.context() as patch, load(folder, overrides=["training.trials=8"]) as project:
        patch.setattr(SubprocessCompute, "run", lambda *_, **__: pytest.fail("a step was started"))
        again = train(project, principal=project.principal())
    assert again.model.version == both["isolated"][1].model.version


def other_steps(folder):
    """The steps of other commands than `train`: their results by name, and the functions that a process called."""
    calls, run_step = [], SubprocessCompute.run

    def counted(self, call, **options):
        calls.append(call.arguments["step"]["function"].partition(":")[2])
        return run_step(self, call, **options)

    with pytest.MonkeyPatch.context() as patch, load(folder, overrides=["training.trials=8"]) as project:
        patch.setattr(SubprocessCompute, "run", counted)
        principal = project.principal()
        version = project.registry().resolve(f"{project.name}@champion")
        plan(project, principal=principal)
        with served_reference(project, principal=principal) as served:
            reference = hashlib.sha256(served.path.read_bytes()).hexdigest()
        with open_run(project, "test", principal=principal, progress=silent) as context:
            review, notes = reference_of(context, version)
            assert review is not None, notes
            snapshots, _ = snapshots_of(context)
            task = resolve_task(project, snapshots)
            entities = materialize(context, task.plan, snapshots, as_of=None)[1]
        steps = {read_step(row).name: read_step(row) for row in project.journal().rows(STEP)}
        results = {name: steps[name].result for name in ("check rows", "monitoring reference", "review reference")}
        return {**results, "file": reference, "entities": entities}, calls


def test_steps_of_other_commands(both):
    (inline, none), (isolated, called) = other_steps(both["inline"][0]), other_steps(both["isolated"][0])
    assert none == []
    assert called == ["run_row_facts", "run_reference", "run_reference", "run_online_state"]
    assert isolated["entities"] == inline["entities"] > 0
    assert isolated["check rows"] == inline["check rows"]
    # Keys hold the salt, which each of the two projects has for itself.
    assert isolated.keys() == inline.keys()


def children(process):
    """Process numbers of the workers of a command."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(maxsplit=2) for line in listed.splitlines()]
    return [int(pid) for pid, parent, args in lines if int(parent) == process.pid and "local.worker" in args]


def during_the_search(folder, process):
    """Wait until a trial of the search has been stored; the number of the process that does it."""
    search = Path(folder, ".cumulant", "search")
    wait_for(process, lambda: any(files for _, _, files in os.walk(search)))
    wait_for(process, lambda: bool(children(process)))
    return children(process)[0]


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_a_killed_step_is_reported_and_the_next_command_resumes(tmp_path, both):
    folder = e2e_shop.make(tmp_path / "shop", project=ISOLATED)
    process = start(folder, "train", "--trials", "8")
    os.kill(during_the_search(folder, process), signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3, (out, err)
    assert "the process of step search was killed (SIGKILL)" in out
    with opened(folder) as project:
        check_whole(project)
        (step,) = [read_step(row) for row in project.journal().rows(STEP) if read_step(row).name == "search"]
        assert step.status == "failed"
    run(folder, "train", "--trials", "8")
    with opened(folder) as project, opened(both["inline"][0]) as undisturbed:
        assert outcome(project) == outcome(undisturbed)
        check_whole(project)
        assert set(finishes(project).values()) == {1}
        assert attempts(project, "search") == 2


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_the_step_of_a_killed_command_ends_with_it_and_is_taken_over(tmp_path):
    folder = e2e_shop.make(tmp_path / "shop", project=ISOLATED.replace("trials: 3", "trials: 40"))
    process = start(folder, "train")
    worker = process_of(during_the_search(folder, process))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while not is_gone(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert is_gone(worker)
    again = start(folder, "train", "--trials", "40")
    try:
        during_the_search(folder, again)
        with opened(folder) as project:
            assert attempts(project, "search") == 2
    finally:
        kill(again)


def test_errors_are_those_of_the_command_s_process(tmp_path):
    folder = e2e_shop.make(tmp_path / "shop", project=ISOLATED.replace("quarantine: 5%", "quarantine: 0%"))
    with load(folder) as project:
        with pytest.raises(SourceBreachError, match="orders") as caught:
            validate(project, principal=project.principal())
        stored = refused_snapshot(project, "orders")
        assert stored is not None
        assert caught.value.snapshot.id == stored.id
        assert caught.value.as_dict()["breaches"]


def test_a_project_file_that_was_changed_meanwhile_is_refused(tmp_path):
    folder = e2e_shop.make(tmp_path / "shop", project=ISOLATED)
    with load(folder) as project:
        (folder / "cumulant.yaml").write_text(ISOLATED.replace("min: 0", "min: 1"))
        with pytest.raises(UsageError, match="changed while a command ran") as caught:
            validate(project, principal=project.principal())
        assert not isinstance(caught.value, RetryableError)
