"""What is due is done once: by one of several, again after a kill, never twice at once."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from cumulant.core.errors import (
    DataError,
    DefinitionError,
    EngineUnavailableError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from cumulant.core.events import Actor
from cumulant.core.traffic import Arm
from cumulant.flows.ledger.lease import LeaseWatch, take_lease
from cumulant.flows.ledger.processes import Process, process_of
from cumulant.flows.maintenance.schedule import DUE, JOBS, JobRecord, ScheduledJob, tick
from cumulant.flows.release import store
from cumulant.ports.access import Decision, Principal
from cumulant.ports.log import PartInfo
from cumulant.project.file.loading import load
from cumulant.project.release_section import release_policy
from cumulant.release.spec import ReleaseSpec
from cumulant.release.state import Release
from cumulant.testing.log import DAY, append_lines

WHO = Principal("user:ada")
START = datetime(2026, 11, 24, tzinfo=UTC)


class Hands:
    """A clock that is set by hand."""

    def __init__(self):
        self.at = START

    def now(self):
        return self.at

    def sleep(self, seconds):
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: late}\n")
    with load(tmp_path) as found:
        yield found


def job(run, every=timedelta(hours=1), name="job"):
    return ScheduledJob(name=name, every=every, run=run)


def outcomes(project, *jobs, clock=None):
    found, error = tick(project, principal=WHO, jobs=jobs, clock=clock or Hands())
    return [one.outcome for one in found], error


def claim(project, holder):
    """The job's lease as another process holds it, silent from now on."""
    actor = Actor("user:bob")
    assert take_lease(project.journal(), "job/job", ttl=0.5, actor=actor, watch=LeaseWatch(), holder=holder)


def test_it_is_done_when_it_is_due_and_not_before(project):
    ran, clock = [], Hands()
    one = job(lambda _: ran.append(1) or "done it")
    assert outcomes(project, one, clock=clock) == (["done"], None)
    clock.at += timedelta(minutes=59)
    assert outcomes(project, one, clock=clock) == (["not_due"], None)
    clock.at += timedelta(minutes=1)
    assert outcomes(project, one, clock=clock) == (["done"], None)
    # A clock that was an hour ahead and is set back holds nothing up.
    clock.at -= timedelta(days=1)
    assert outcomes(project, one, clock=clock) == (["done"], None)
    assert len(ran) == 3


def test_of_several_at_once_one_does_it(project, tmp_path):
    ran, begun, go = [], threading.Event(), threading.Event()

    def slow(_):
        ran.append(1)
        begun.set()
        assert go.wait(60)
        return ""

    first = threading.Thread(target=outcomes, args=(project, job(slow)))
    first.start()
    assert begun.wait(60)
    with load(tmp_path) as other:
        assert outcomes(other, job(slow)) == (["elsewhere"], None)
    go.set()
    first.join()
    assert ran == [1]


def test_what_a_killed_process_had_claimed_is_done(project):
    gone = msgspec.structs.replace(process_of(os.getpid()), born="1")
    claim(project, gone)
    assert outcomes(project, job(lambda _: "")) == (["done"], None)


def test_the_lease_of_another_machine_that_is_gone_is_taken_over_when_it_ends(project):
    claim(project, Process("elsewhere", 1, "1"))
    begun = time.monotonic()
    assert outcomes(project, job(lambda _: "")) == (["done"], None)
    assert time.monotonic() - begun >= 0.5


def test_a_job_that_lost_its_lease_writes_no_record(project):
    def slow(project):
        with project.journal().transaction(actor=Actor("user:bob")) as transaction:
            transaction.delete("lease", "job/job")
        claim(project, Process("elsewhere", 1, "1"))
        return ""

    assert outcomes(project, job(slow)) == (["done"], None)
    assert project.journal().get(DUE, "job") is None


def test_a_job_that_fails_stops_no_other_and_is_told(project):
    def fails(_):
        raise EngineUnavailableError("the registry sleeps")

    found, error = outcomes(project, job(fails), job(lambda _: "", name="next"))
    assert found == ["failed", "done"]
    assert error.message == "the registry sleeps"
    row = msgspec.convert(project.journal().get(DUE, "job").value, JobRecord)
    assert (row.sentence, row.ended) == ("the registry sleeps", START)


def test_who_may_not_is_refused(project, monkeypatch):
    class Closed:
        def check(self, principal, action, resource):
            return Decision(allowed=False)

    monkeypatch.setattr(project, "access", Closed)
    with pytest.raises(RefusedError, match=r"user:ada may not do project\.tick"):
        tick(project, principal=WHO, jobs=())


def test_without_a_release_there_is_nothing_to_do(project):
    found, error = tick(project, principal=WHO)
    assert [one.job for one in found] == [one.name for one in JOBS]
    assert (found[0].outcome, found[0].sentence, error) == ("done", "there is no release", None)


def test_each_tick_is_one_look_of_a_release(project):
    spec = release_policy(ReleaseSpec(look="1s"))
    arms = [Arm(name=name, version=name, endpoints=("http://127.0.0.1:1",)) for name in ("champion", "candidate")]
    begun = Release(id="r1", model="theirs", champion=arms[0], candidate=arms[1], policy=spec, begun=START)
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        store.write(transaction, None, begun, expect=0)
    seconds = []
    for _ in range(2):
        [found], error = tick(project, principal=WHO, jobs=JOBS[:1])
        assert (found.outcome, error) == ("done", None)
        assert found.sentence == "shadow: 0 requests"
        seconds.append(store.read_required(project.journal(), "theirs")[0].seconds)
    assert 0 < seconds[0] < seconds[1] <= 12
    assert project.gateway().in_force("theirs").mirror == 100


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UsageError("no version is registered"), "done"),
        (DataError("the log holds no prediction of late/2"), "done"),
        (NotFoundError("what late/1 was trained on is no longer stored"), "failed"),
        (DefinitionError("features.py names no source"), "failed"),
    ],
)
def test_a_fault_that_ends_watching_is_not_called_nothing_to_watch(project, monkeypatch, error, outcome):
    def look(*_, **__):
        raise error

    monkeypatch.setattr("cumulant.flows.monitoring.run.run_monitoring", look)
    append_lines(project.log(), PartInfo(DAY, "a", 1, 1), [])
    found, first = tick(project, principal=WHO, jobs=[one for one in JOBS if one.name == "monitoring"], clock=Hands())
    assert [one.outcome for one in found] == [outcome]
    assert error.message in found[0].sentence
    assert first is (error if outcome == "failed" else None)
