"""Where jobs of another engine go on, and which are stopped: with an engine and brokers that answer as real ones do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count

import msgspec
import pytest

from cumulant.core.errors import (
    DataError,
    DefinitionError,
    EngineUnavailableError,
    LeaseHeldError,
    NotFoundError,
    StorageError,
    UsageError,
)
from cumulant.core.events import Actor
from cumulant.core.progress import silent
from cumulant.features.flink.job import FeatureJob
from cumulant.flows.alerting.store import read as read_alerts
from cumulant.flows.features.jobs import supervise_job as supervision
from cumulant.flows.features.jobs.job_control import JobControl
from cumulant.flows.features.jobs.job_record import job_records, newest_record, own_jobs, record_job
from cumulant.flows.features.jobs.job_status import JobStatus, job_statuses
from cumulant.flows.features.jobs.run_job import check_place, run_job
from cumulant.flows.features.jobs.submission import Submission
from cumulant.flows.features.jobs.supervise_job import is_supervised, supervise_job
from cumulant.flows.ledger.lease import await_lease
from cumulant.flows.ledger.run_context import open_run
from cumulant.ports.access import Principal
from cumulant.ports.compute import JobState, StreamJob
from cumulant.ports.streams import Bounds
from cumulant.project.file.loading import load
from cumulant.testing.clock import ManualClock

ME = Principal("user:ada")
AT = datetime(2026, 12, 1, tzinfo=UTC)
OLD, NEW = "cumulant.default.cards.prod.old", "cumulant.default.cards.prod.new"


class World:
    """Jobs of a session cluster, and the topics that they write to. A position is a number of results."""

    encrypted = False

    def __init__(self) -> None:
        self.known: dict[str, StreamJob] = {}
        self.states: dict[str, JobState] = {}
        self.resumed: list[str | None] = []
        self.topics: dict[str, int] = {}
        self._numbers = count(1)
        self.brokers_away = False
        self.refuses_start: Exception | None = None
        self.refuses_savepoint: Exception | None = None
        #: what a call changes before it answers
        self.on_jobs = self.on_submit = lambda: None

    def version(self) -> str:
        return "0"

    def submit(self, name, statements, settings, *, resume=None) -> str:
        if isinstance(self.refuses_start, EngineUnavailableError):
            raise self.refuses_start
        id_ = f"{next(self._numbers):032x}"
        self.resumed.append(resume)
        failed = self.refuses_start is not None
        self.put(id_, name, "FAILED" if failed else "RUNNING")
        self.states[id_] = JobState(path=None if failed else resume, at=None)
        if self.refuses_start is not None:
            raise self.refuses_start
        self.on_submit()
        return id_

    def put(self, id_: str, name: str, state: str) -> None:
        ended = state in {"FAILED", "FINISHED", "CANCELED"}
        running = state == "RUNNING"
        ending = state == "CANCELLING"
        self.known[id_] = StreamJob(
            id=id_, name=name, state=state, ended=ended, ending=ending, running=running, started=AT
        )

    def jobs(self) -> list[StreamJob]:
        self.on_jobs()
        return list(self.known.values())

    def job_state(self, job: str) -> JobState:
        if job not in self.known:
            raise NotFoundError("no such job")
        return self.states.get(job, JobState())

    def stop(self, job: str) -> str:
        if self.refuses_savepoint is not None:
            raise self.refuses_savepoint
        place = f"s3://a/savepoint-{job[-1]}"
        self.put(job, self.known[job].name, "FINISHED")
        self.states[job] = JobState(path=place, at=AT)
        return place

    def cancel(self, job: str) -> None:
        self.put(job, self.known[job].name, "CANCELED")

    def forget(self) -> None:
        """The JobManager is lost, with all that it knew."""
        self.known, self.states = {}, {}

    def close(self) -> None: ...

    def create_topic(self, topic: str, partitions: int) -> bool:
        created = topic not in self.topics
        self.topics.setdefault(topic, 0)
        return created

    def ends(self, topic: str) -> dict[int, int]:
        if self.brokers_away:
            raise EngineUnavailableError("no broker answers")
        if topic not in self.topics:
            raise NotFoundError("no such topic")
        return {0: self.topics[topic]}

    def bounds(self, topic: str) -> dict[int, Bounds]:
        return {0: Bounds(0, self.topics[topic])}


class Site:
    """A project, and what its commands do in a world."""

    def __init__(self, project, world: World) -> None:
        self.project, self.world = project, world

    @contextmanager
    def control(self) -> Iterator[JobControl]:
        with open_run(self.project, "job", principal=ME, progress=silent) as context:
            lease = await_lease(self.project.journal(), "feature-job", ttl=20.0, actor=Actor(ME.id))
            with lease.renewed():
                self.lease = lease
                yield JobControl(context, lease, self.world, self.world, sleep=lambda seconds: None)

    def start(self, name: str = NEW, *, resume: str = "", sources: str = "sources", record=None):
        job = FeatureJob(name=name, definition=name, fingerprint="f", statements=("s",), settings={})
        with self.control() as control:
            return run_job(control, job, sources=sources, partitions=1, resume=resume, record=record)

    def stop(self):
        with self.control() as control:
            return [*control.stop_all(), *control.note_ended()]

    def supervise(self, clock: ManualClock) -> list[tuple[str, str]]:
        """What an evaluation finds, as alerts."""
        supervise_job(self.project, principal=ME, clock=clock)
        firing = read_alerts(self.project.journal())[0].firing
        return [(alert.finding.moved, alert.finding.next) for alert in firing]

    def record(self, name: str = NEW):
        return job_records(self.project)[name]

    def statuses(self) -> dict[str, list[JobStatus]]:
        records, jobs = job_records(self.project), own_jobs(self.project, self.world)
        newest = newest_record(records)
        return {
            name: job_statuses(
                self.world,
                name,
                records.get(name),
                [job for job in jobs if job.name == name],
                AT,
                current=newest is None or name == newest.name,
            )
            for name in records
        }


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    (tmp_path / "cumulant.yaml").write_text(
        "version: 1\nmodel: {name: cards}\ndata: {tx: {path: tx.csv}}\nenvironments: {prod: {}}\n", encoding="utf-8"
    )
    with load(tmp_path, environment="prod") as project:
        yield Site(project, World())


def stopped(site: Site, results: int = 5000) -> str:
    """The savepoint of a job that wrote so many results."""
    assert site.start().resumed is None
    site.world.topics[NEW] = results
    (job,) = site.stop()
    assert site.record().place.ends == {0: results}
    return job.savepoint


def test_a_start_that_failed_loses_no_savepoint(site):
    savepoint = stopped(site)
    for failure in (DataError("the bucket refuses"), EngineUnavailableError("503")):
        site.world.refuses_start = failure
        for place in ("", "s3://a/misspelt", "beginning"):
            with pytest.raises(type(failure)):
                site.start(resume=place)
            (status,) = site.statuses()[NEW]
            assert status.faulty
    site.world.refuses_start = None
    assert site.start(resume="s3://a/elsewhere").resumed == "s3://a/elsewhere"
    site.world.forget()
    assert site.start().resumed == savepoint, "nothing was written since"


def test_a_savepoint_is_not_resumed_after_somebody_has_written(site):
    stopped(site)
    site.world.topics[NEW] += 1
    for change in (lambda: None, site.world.forget):
        change()
        with pytest.raises(StorageError, match="has results of a job since the savepoint, and nothing says how far"):
            site.start()


def test_a_job_that_wrote_before_it_was_recorded_is_found_or_refused(site):
    savepoint = stopped(site)

    def killed() -> None:
        raise KeyboardInterrupt

    site.world.on_submit = killed
    with pytest.raises(KeyboardInterrupt):
        site.start()
    assert (site.record().state, site.record().place.path) == ("starting", savepoint)
    again = site.start()
    assert (again.started, again.resumed, site.record().job) == (False, savepoint, again.job)

    site.stop()
    with pytest.raises(KeyboardInterrupt):
        site.start()
    site.world.topics[NEW] += 10
    site.world.forget()
    with pytest.raises(StorageError, match="has results of a job since the savepoint, and nothing says how") as refused:
        site.start()
    assert "--from s3://a/savepoint-" in refused.value.hint
    assert "--from beginning" in refused.value.hint
    site.world.on_submit = lambda: None
    assert site.start(resume="beginning").resumed is None


def planned_after(site: Site, questions: int) -> None:
    """The engine has a job of the name only after so many questions for its jobs."""
    left = iter(range(questions))

    def plan() -> None:
        if next(left, None) is None and "late" not in site.world.known:
            site.world.put("late", NEW, "RUNNING")

    site.world.on_jobs = plan


def test_a_submission_without_an_answer_gives_one_job(site):
    site.world.refuses_start = EngineUnavailableError("timed out")
    planned_after(site, 4)
    started = site.start()
    assert (started.job, started.state, site.record().state, site.record().job) == (
        "late",
        "RUNNING",
        "started",
        "late",
    )
    assert site.world.resumed == [], "nothing else was submitted"


def test_a_start_waits_for_what_the_one_before_it_may_have_submitted(site):
    site.world.refuses_start = EngineUnavailableError("timed out")
    with pytest.raises(EngineUnavailableError):
        site.start()  # nothing of it comes in time
    site.world.refuses_start = None
    planned_after(site, 3)
    again = site.start()
    assert (again.started, again.job, site.world.resumed) == (False, "late", [])

    # what the engine has refused is not waited for
    site.stop()
    site.world.forget()
    questions = 0

    def counted() -> None:
        nonlocal questions
        questions += 1

    site.world.on_jobs = counted
    site.world.refuses_start = DataError("no slot")
    with pytest.raises(DataError):
        site.start()
    assert site.record().refused
    site.world.refuses_start = None
    site.world.forget()
    questions = 0
    assert site.start().started
    assert questions < 5


def test_a_topic_that_was_made_again_is_not_filled_from_a_savepoint(site):
    savepoint = stopped(site)
    del site.world.topics[NEW]
    site.world.refuses_start = EngineUnavailableError("503")
    for place in ("", "beginning", ""):
        with pytest.raises(EngineUnavailableError if place else StorageError) as refused:
            site.start(resume=place)
    assert f"--from {savepoint}" in refused.value.hint
    assert "deleted or made again" in refused.value.message
    site.world.refuses_start = None
    first = site.start(resume="beginning")
    assert (first.resumed, site.record().place) == (None, None)


def test_where_a_job_goes_on_that_nobody_stopped(site):
    first = site.start()
    site.world.put(first.job, NEW, "FAILED")
    assert site.start().resumed is None, "the topic is empty"
    second = site.record().job
    site.world.topics[NEW] = 7
    site.world.put(second, NEW, "FAILED")
    with pytest.raises(StorageError, match=r"the topic .* has results of a job, and nothing says how far it came"):
        site.start()
    site.world.states[second] = JobState(path="s3://a/chk-7", at=AT)
    third = site.start()
    assert third.resumed == "s3://a/chk-7"
    site.world.forget()
    assert site.start().resumed == "s3://a/chk-7", "nothing was written since"
    site.world.topics[NEW] = 8
    site.world.forget()
    with pytest.raises(StorageError, match="since the savepoint"):
        site.start()


def test_a_job_that_fails_again_and_again_is_shown_and_cancelled(site):
    old = site.start(OLD)
    site.world.topics[OLD] = 3
    site.world.states[old.job] = JobState(path="s3://a/chk-1", at=AT)
    site.world.put(old.job, OLD, "RESTARTING")
    assert [status.faulty for status in site.statuses()[OLD]] == [True]
    assert site.start(OLD).state == "RESTARTING"
    site.world.refuses_savepoint = DataError("Checkpoint triggering task is not being executed")
    site.start(NEW)
    assert site.world.known[old.job].state == "CANCELED"
    (status,) = site.statuses()[OLD]
    assert (status.state, status.checkpoint, status.faulty) == ("stopped", "s3://a/chk-1", False)
    site.world.topics[OLD] += 2  # marks of transactions that were aborted
    site.world.forget()
    assert site.start(OLD).resumed == "s3://a/chk-1"


def test_a_savepoint_is_recorded_while_the_brokers_are_away(site):
    first = site.start()
    site.world.topics[NEW] = 3
    site.stop()
    site.start()
    site.world.topics[NEW] = 5
    site.world.brokers_away = True
    (job,) = site.stop()
    site.world.brokers_away = False
    site.world.forget()
    assert site.start().resumed == job.savepoint
    assert job.job != first.job
    site.stop()
    site.world.topics[NEW] = 2
    with pytest.raises(StorageError, match="deleted or made again"):
        site.start()


def test_a_job_that_cannot_be_stopped_holds_up_no_other(site):
    first = site.start(OLD)
    site.world.refuses_savepoint = DataError("the bucket refuses")
    with pytest.raises(DataError, match=r"prod\.old is not stopped: the bucket refuses"):
        site.start(NEW)
    second = site.record(NEW).job
    site.world.put(second, NEW, "RESTARTING")
    with pytest.raises(DataError, match=r"prod\.old is not stopped"):
        site.stop()
    assert (site.world.known[first.job].state, site.world.known[second].state) == ("RUNNING", "CANCELED")


def test_a_failed_job_of_a_former_definition_is_noted_and_no_fault(site):
    old = site.start(OLD)
    site.world.topics[OLD] = 3
    site.world.states[old.job] = JobState(path="s3://a/chk-1", at=AT)
    site.world.put(old.job, OLD, "FAILED")
    assert [status.faulty for status in site.statuses()[OLD]] == [True]
    site.world.refuses_start = EngineUnavailableError("503")
    with pytest.raises(EngineUnavailableError):
        site.start(NEW)
    assert {name: (status.state, status.faulty) for name, (status,) in site.statuses().items()} == {
        OLD: ("FAILED", False),
        NEW: ("not started", True),
    }
    site.world.refuses_start = None
    new = site.start(NEW)
    assert [(status.state, status.faulty) for status in site.statuses()[OLD]] == [("stopped", False)]
    site.world.put(new.job, NEW, "FAILED")
    assert [status.faulty for status in site.statuses()[NEW]] == [True]
    site.world.forget()
    assert {name: status.faulty for name, (status,) in site.statuses().items()} == {OLD: False, NEW: True}
    assert site.start(OLD).resumed == "s3://a/chk-1", "that the JobManager has forgotten"


def test_two_jobs_of_a_definition_are_a_fault(site):
    def late() -> None:
        site.world.put("f" * 32, NEW, "RUNNING")

    site.world.on_submit = late
    with pytest.raises(StorageError, match="2 jobs of one definition run"):
        site.start()
    assert [status.faulty for status in site.statuses()[NEW]] == [True, True]
    with pytest.raises(StorageError, match="2 jobs of one definition run"):
        site.start()


def test_a_start_whose_lease_was_lost_submits_nothing(site):
    def lapsed() -> None:
        site.lease.release()

    site.world.on_jobs = lapsed
    with pytest.raises(LeaseHeldError):
        site.start()
    assert site.world.resumed == []


def test_a_job_that_is_ending_is_awaited_and_one_that_runs_takes_no_place(site):
    first = site.start()
    with pytest.raises(UsageError, match="runs, and cannot go on from s3://a/chk-1"):
        site.start(resume="s3://a/chk-1")
    site.world.put(first.job, NEW, "CANCELLING")
    calls = count()

    def ends() -> None:
        if next(calls) == 2:
            site.world.put(first.job, NEW, "CANCELED")

    site.world.on_jobs = ends
    assert site.start().started
    for place in ("begining", "/mnt/chk-1", "chk-1"):
        with pytest.raises(UsageError, match="is no checkpoint or savepoint"):
            check_place(place)
    for place in ("", "beginning", "file:/mnt/chk-1", "s3://a/chk-1"):
        check_place(place)


def test_a_job_of_other_topics_is_refused(site):
    stopped(site)
    site.world.refuses_start = EngineUnavailableError("503")
    with pytest.raises(EngineUnavailableError):
        site.start(sources="other brokers", resume="beginning")
    site.world.refuses_start = None
    with pytest.raises(StorageError, match="the topics that the job has read are not those of now"):
        site.start(sources="other brokers")
    assert site.start().resumed is not None
    with pytest.raises(StorageError, match="the topics that the job has read are not those of now"):
        site.start(sources="other brokers")


def restarting(site: Site, before=lambda: None):
    """`restart_job` of a site; `before`: what happens until it has the lease."""

    def restart_job(project, *, principal, record):
        before()
        return site.start(record.name, record=record)

    return restart_job


def kinds(site: Site) -> Counter[str]:
    return Counter(event.kind for event in site.project.journal().events())


@pytest.fixture
def supervised(site, monkeypatch) -> Site:
    """A site whose supervision sees its engine, and starts jobs as its commands do."""
    monkeypatch.setattr(site.project, "stream_engine", lambda: site.world)
    monkeypatch.setattr(supervision, "restart_job", restarting(site))
    return site


def test_a_job_that_nobody_stopped_is_started_again_with_one_alert(supervised):
    site, clock = supervised, ManualClock(AT)
    assert site.supervise(clock) == []  # nothing was started
    first = site.start()
    site.world.states[first.job] = JobState(path="s3://a/chk-1", at=AT, restores=0)
    events = len(list(site.project.journal().events()))
    for _ in range(3):
        clock.move(timedelta(seconds=30))
        assert site.supervise(clock) == []
    assert [event.kind for event in site.project.journal().events()][events:] == []

    site.world.topics[NEW] = 5000
    site.world.put(first.job, NEW, "FAILED")
    ((moved, advice),) = site.supervise(clock)
    assert moved == f"the job {first.job} of features has failed"
    assert advice.startswith("it is started again")
    assert site.world.resumed == [None, "s3://a/chk-1"]
    assert site.record().job != first.job
    for _ in range(3):  # it runs, and a minute later the alert is over
        clock.move(timedelta(seconds=30))
        left = site.supervise(clock)
    assert left == []
    count = kinds(site)
    assert (count["features.job_fault"], count["features.job_recovered"], count["features.job_started"]) == (1, 1, 2)
    assert (count["alert.fired"], count["alert.resolved"]) == (1, 1)


def test_what_the_start_refuses_is_an_alert_that_says_what_to_do(supervised):
    site, clock = supervised, ManualClock(AT)
    job = site.start().job
    site.world.topics[NEW] = 5000
    site.world.states[job] = JobState(path="s3://a/1/chk-9", at=AT)
    assert site.supervise(clock) == []
    site.world.forget()
    for _ in range(8):
        ((moved, advice),) = site.supervise(clock)
        clock.move(timedelta(minutes=1))
    assert moved.endswith("is not known to Flink any more")
    assert "it is not started again by itself" in advice
    assert "--from beginning" in advice
    assert "--from s3://a/1/chk-N" in advice, "the folder of its checkpoints is remembered"
    assert site.world.resumed == [None], "nothing was submitted"
    site.start(resume="beginning")
    for _ in range(3):
        clock.move(timedelta(minutes=1))
        left = site.supervise(clock)
    assert left == []


def test_a_job_that_was_cancelled_by_tools_of_flink_is_reported_and_left(supervised):
    site, clock = supervised, ManualClock(AT)
    job = site.start().job
    site.world.cancel(job)
    for minute in range(5):
        if minute == 2:
            site.world.forget()  # as Flink does after an hour
        ((moved, advice),) = site.supervise(clock)
        clock.move(timedelta(minutes=1))
    assert (moved, site.world.resumed) == (f"the job {job} of features was cancelled in Flink", [None])
    assert "record that it is stopped: `cumulant features stop-job`" in advice
    (noted,) = site.stop()
    assert (noted.job, noted.ended, site.record().stopped) == (job, True, True)
    for _ in range(3):
        clock.move(timedelta(minutes=1))
        left = site.supervise(clock)
    assert left == []
    count = kinds(site)
    assert (count["features.job_fault"], count["alert.fired"], count["alert.resolved"]) == (1, 1, 1)


def test_an_engine_that_does_not_answer_is_an_alert_of_its_own_and_nothing_is_started(supervised):
    site, clock = supervised, ManualClock(AT)
    job = site.start().job
    assert site.supervise(clock) == []

    def away() -> None:
        raise EngineUnavailableError("the gateway does not answer at 127.0.0.1:1: refused")

    site.world.on_jobs = away
    assert site.supervise(clock) == []
    clock.move(timedelta(minutes=5))
    ((moved, _),) = site.supervise(clock)
    assert moved.endswith("the gateway does not answer at 127.0.0.1:1: refused")
    site.world.on_jobs = lambda: None
    site.world.put(job, NEW, "FAILED")
    site.world.refuses_start = EngineUnavailableError("the brokers are away")
    clock.move(timedelta(minutes=5))
    assert {moved for moved, _ in site.supervise(clock)} >= {f"the job {job} of features has failed"}
    clock.move(timedelta(minutes=5))
    ((_, advice),) = site.supervise(clock)
    assert advice.endswith("the last start failed: the brokers are away")
    assert site.world.resumed == [None]


def test_a_job_that_a_command_starts_or_stops_at_this_moment_is_left_to_it(supervised):
    site, clock = supervised, ManualClock(AT)
    job = site.start().job
    site.world.put(job, NEW, "FAILED")
    with site.control():
        assert supervise_job(site.project, principal=ME, clock=clock).startswith("a command starts or stops the job")
    assert site.world.resumed == [None]
    assert not read_alerts(site.project.journal())[1]


def test_going_back_after_a_failed_start_is_supervised_whatever_clocks_say(supervised):
    site, clock = supervised, ManualClock(AT)
    old = site.start(OLD).job
    ahead = msgspec.structs.replace(site.record(OLD), started=site.record(OLD).started + timedelta(minutes=5))
    with site.project.journal().transaction(actor=Actor(ME.id)) as transaction:
        record_job(transaction, ahead)  # by a host whose clock is wrong
    site.world.refuses_start = DataError("no such column")
    with pytest.raises(DataError):
        site.start(NEW)
    newest = newest_record(job_records(site.project))
    assert newest is not None
    assert newest.name == NEW
    site.world.refuses_start = None
    assert site.start(OLD).job == old
    site.world.put(old, OLD, "FAILED")
    ((moved, _),) = site.supervise(clock)
    assert moved == f"the job {old} of features has failed"
    assert site.world.known[site.record(OLD).job].running


def test_a_stop_that_comes_before_the_lease_is_not_undone(supervised, monkeypatch):
    site, clock = supervised, ManualClock(AT)
    job = site.start().job
    site.world.put(job, NEW, "FAILED")
    monkeypatch.setattr(supervision, "restart_job", restarting(site, site.stop))
    assert site.supervise(clock) == []
    assert site.record().stopped
    assert site.world.resumed == [None]


@pytest.mark.parametrize("error", [DataError("Flink refuses: connection refused"), DefinitionError("half a file")])
def test_an_error_that_may_be_over_is_tried_again(supervised, monkeypatch, error):
    site, clock = supervised, ManualClock(AT)
    job = site.start().job
    site.world.put(job, NEW, "FAILED")
    errors = iter([error])

    def fails() -> None:
        for each in errors:
            raise each

    monkeypatch.setattr(supervision, "restart_job", restarting(site, fails))
    ((_, advice),) = site.supervise(clock)
    assert advice.endswith(f"the last start failed: {error.message}")
    clock.move(timedelta(minutes=1))
    site.supervise(clock)
    assert site.world.resumed == [None, None]


def test_what_was_refused_is_examined_each_hour(supervised):
    site, clock = supervised, ManualClock(AT)
    job = site.start().job
    site.world.topics[NEW] = 5000
    site.world.forget()
    assert "examined each hour" in site.supervise(clock)[0][1]
    site.world.put(job, NEW, "FAILED")
    site.world.states[job] = JobState(path="s3://a/chk-9", at=AT)  # the JobManager is there again
    clock.move(timedelta(minutes=59))
    site.supervise(clock)
    assert site.world.resumed == [None]
    clock.move(timedelta(minutes=1))
    site.supervise(clock)
    assert site.world.resumed == [None, "s3://a/chk-9"]


def test_a_job_that_fails_after_each_start_is_given_up_with_few_alerts_until_an_operator_starts_it(supervised):
    site, clock = supervised, ManualClock(AT)
    site.start()
    began: dict[str, datetime] = {}

    def run(minutes: int) -> None:
        for _ in range(minutes):
            for job in [job for job in site.world.known.values() if not job.ended]:
                if clock.now() - began.setdefault(job.id, clock.now()) >= timedelta(minutes=2):
                    site.world.put(job.id, NEW, "FAILED")
            site.supervise(clock)
            clock.move(timedelta(minutes=1))

    run(60)
    ((moved, _),) = site.supervise(clock)
    assert moved.endswith("starts and fails again and again")
    run(180)
    ((_, advice),) = site.supervise(clock)
    assert "10 times without a new checkpoint or result" in advice
    assert len(site.world.resumed) == 11
    fired = kinds(site)["alert.fired"]
    assert fired <= 4
    site.start()
    run(3)
    assert len(site.world.resumed) == 13, "an operator has acted"


def test_checkpoints_that_are_not_known_are_no_fault_of_the_job(supervised, monkeypatch):
    site, clock = supervised, ManualClock(AT)
    site.start()

    def state(job: str) -> JobState:
        raise EngineUnavailableError("the JobManager does not answer")

    monkeypatch.setattr(site.world, "job_state", state)
    for _ in range(3):
        clock.move(timedelta(minutes=3))
        assert site.supervise(clock) == []


def test_a_job_that_does_not_end_is_a_fault(supervised):
    site, clock = supervised, ManualClock(AT)
    job = site.start().job
    site.world.put(job, NEW, "CANCELLING")
    assert site.supervise(clock) == []
    clock.move(timedelta(minutes=10))
    ((moved, _),) = site.supervise(clock)
    assert moved == f"the job {job} of features has been ending for more than 10 minutes"


def test_a_start_of_a_host_whose_clock_is_ahead_is_awaited_for_a_minute(site):
    site.start()
    ahead = msgspec.structs.replace(site.record(), state="starting", at=AT + timedelta(hours=2), name="other")
    waits: list[float] = []
    assert Submission(site.project, site.world, waits.append).earlier(ahead, AT) is None
    assert 50 < sum(waits) < 70


def test_alerts_end_where_the_environment_names_no_engine_any_more(supervised, monkeypatch):
    site, clock = supervised, ManualClock(AT)
    assert not is_supervised(site.project)
    site.world.cancel(site.start().job)
    assert len(site.supervise(clock)) == 1
    monkeypatch.setattr(site.project, "stream_engine", lambda: None)
    assert is_supervised(site.project)
    for _ in range(3):
        clock.move(timedelta(minutes=1))
        left = site.supervise(clock)
    assert left == []


def test_an_engine_that_gives_other_reasons_each_time_is_recorded_once(supervised):
    site, clock = supervised, ManualClock(AT)
    site.start()
    numbers = count()

    def away() -> None:
        raise DataError(f"Flink refuses: timed out after {next(numbers)} ms")

    site.world.on_jobs = away
    for _ in range(5):
        site.supervise(clock)
    assert site.project.journal().get("feature_job_watch", "feature_job_watch").version == 1
