"""`kill -9` in the middle of a look or of a training that the rule asked for: the next process goes on, and nothing is
lost or done twice."""

import json
import shutil
import signal
import uuid
from datetime import timedelta

import e2e_watcher
import pytest
from e2e_forks import start_fork
from e2e_stack import until
from e2e_support import opened
from test_e2e_kinds import visits
from test_e2e_watch_kinds import ASKED, served

from cumulant.core.events import Actor
from cumulant.flows.alerting.store import read
from cumulant.flows.monitoring.state import TRAINING, RetrainRequest, read_request, read_state, write

pytestmark = pytest.mark.slow

LOOKED, ASKED_FOR, MOVED = (
    f"monitoring.{name}" for name in ("performance_evaluated", "retraining_requested", "retraining_progressed")
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A served model, and when all labels of it are known."""
    folder = tmp_path_factory.mktemp("recovery") / "kind"
    return folder, served(folder, visits(1500), "score", timed=True)


@pytest.fixture
def kind(made, tmp_path):
    """A copy, in which so many labels ask for a training that somebody must agree to."""
    folder = tmp_path / "kind"
    shutil.copytree(made[0], folder)
    text = json.loads((folder / "cumulant.yaml").read_text())
    retrain = {"approval": "release", "labels": 100, "least_labels": 10, "history": {"half_life": "9d"}}
    text["monitoring"] = {"retrain": retrain, "performance": {"refit": None}}
    text["evaluation"] = {"gate": {"rmse": {"max": 100, "margin": 5}}}
    (folder / "cumulant.yaml").write_text(json.dumps(text))
    return folder


def begun(folder, what, at, where, *more):
    """A process that was started, and the file that has what it prints."""
    out = folder.parent / f"out-{uuid.uuid4().hex}"
    process = start_fork(e2e_watcher.main, str(out), str(folder), what, at.isoformat(), where, *map(str, more))
    return process, out


def ended(process, out):
    """What it printed."""
    process.join(120)
    assert process.exitcode is not None
    return out.read_text()


def done(folder, what, at, where="-"):
    process, out = begun(folder, what, at, where)
    said = ended(process, out)
    if where != "-":
        assert (process.exitcode, said) == (-signal.SIGKILL, "")
        return None
    assert process.exitcode == 0
    return json.loads(said)


def told(folder):
    """How often each event of the watch was told, and the alerts that fire."""
    with opened(folder) as project:
        facts = list(project.journal().events(kinds=(LOOKED, ASKED_FOR, MOVED, "alert.fired")))
        fires = [one.finding.rule for one in read(project.journal())[0].alerts.values()]
        versions = [one.version for one in project.registry().versions(project.name)]
    found = [(one.kind, one.data.get("stage") or one.data.get("rule") or one.data.get("action")) for one in facts]
    return found, fires, sorted(versions)


def asked_for(folder, at):
    with opened(folder) as project, project.journal().transaction(actor=Actor("user:ada")) as transaction:
        wanted = RetrainRequest(requested=at, champion="1", trigger="labels", sentence="Labels are new.")
        write(transaction, TRAINING, project.name, wanted, expect=0)


@pytest.mark.parametrize("where", ["within:2", "after:2"])
def test_a_look_that_was_cut_off_is_done_once(kind, made, where):
    """Its first write is of what was counted, its second of the training that it asks for."""
    at = made[1]
    done(kind, "look", at, where)
    again = done(kind, "look", at)
    assert (again["fresh"] == 0) == (where == "after:2")
    events, fires, _ = told(kind)
    assert events.count((ASKED_FOR, None)) == 1
    assert events.count((LOOKED, "train")) == 1
    assert fires == []
    with opened(kind) as project:
        standing, _ = read_state(project.journal(), "kind")
        assert standing.labels == ASKED
        assert read_request(project.journal(), "kind")[0].stage == "requested"


@pytest.mark.parametrize("where", ["within:1", "after:1", "within:2", "after:2"])
def test_a_training_that_was_cut_off_goes_on_and_is_told(kind, made, where):
    at = made[1]
    asked_for(kind, at)
    done(kind, "train", at, where)
    found = done(kind, "train", at)
    assert found["stage"] == "offered", found["said"]
    events, fires, versions = told(kind)
    assert [stage for name, stage in events if name == MOVED] == ["trained", "offered"]
    assert [rule for name, rule in events if name == "alert.fired"] == fires == ["retraining"]
    assert versions == ["1", "2"]


def test_what_came_to_nothing_is_told_whoever_is_killed(kind, made):
    at = made[1]
    asked_for(kind, at)
    text = json.loads((kind / "cumulant.yaml").read_text())
    text["data"]["visits"]["rules"] = {"size": {"max": 0}}
    (kind / "cumulant.yaml").write_text(json.dumps(text))
    done(kind, "train", at, "within:1")
    done(kind, "train", at, "after:1")
    assert done(kind, "train", at)["stage"] == "failed"
    events, fires, versions = told(kind)
    assert events == [(MOVED, "failed"), ("alert.fired", "retraining")]
    assert fires == ["retraining"]
    assert versions == ["1"]
    # The look says so too, at each look, and keeps the alert from ending by itself.
    done(kind, "look", at)
    assert "retraining" in told(kind)[1]


@pytest.mark.parametrize("what", ["look", "train"])
def test_of_two_at_once_one_is_told_that_it_came_second(kind, made, tmp_path, what):
    at, go = made[1], tmp_path / "go"
    if what == "train":
        asked_for(kind, at)
    second, out = begun(kind, what, at, "waits", go)
    until(lambda: out.exists() and out.read_text() == "waits\n")
    first = done(kind, what, at)
    go.touch()
    said = json.loads(ended(second, out).removeprefix("waits\n"))
    assert said["error"] == "LeaseHeldError", said
    assert "another process has" in said["message"]
    assert "the next evaluation continues" in said["hint"]
    events, _, versions = told(kind)
    if what == "train":
        assert first["stage"] == "offered"
        assert [stage for name, stage in events if name == MOVED] == ["trained", "offered"]
        assert versions == ["1", "2"]
    else:
        assert events.count((LOOKED, "train")) == events.count((ASKED_FOR, None)) == 1


def test_a_look_that_sees_nothing_new_tells_nothing(kind, made):
    at = made[1]
    done(kind, "look", at)
    done(kind, "look", at)  # now the training is on its way
    with opened(kind) as project:
        before, runs = project.journal().head().seq, len(project.journal().rows("run"))
    for later in (timedelta(), timedelta(hours=1)):
        assert done(kind, "look", at + later)["do"] == "nothing"
    with opened(kind) as project:
        assert [one.kind for one in project.journal().events(after=before)] == []
        assert len(project.journal().rows("run")) == runs
