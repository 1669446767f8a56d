"""Refusals are events: each in a command, counted in a process that serves requests, ingested from prediction servers."""

from __future__ import annotations

import io
import threading
from contextlib import suppress
from datetime import timedelta

import pytest

from cumulant.core.errors import RefusedError, StorageError
from cumulant.flows.ledger import refusals
from cumulant.flows.ledger.actions import OWN_MODEL, check
from cumulant.flows.ledger.refusals import ingest_refusals, record_refusals
from cumulant.flows.maintenance.schedule import JOBS
from cumulant.ports.access import Principal
from cumulant.ports.log import UNDATED, PartInfo
from cumulant.project.file.loading import load
from cumulant.serving.access.control import RefusedRequest
from cumulant.serving.access.refusal_log import MERGED, MOST, RefusalLog
from cumulant.testing.access import GrantedAccess

SCRAPER, ADA = Principal("service:scraper", via="http"), Principal("user:ada", via="http")
FILE = """\
version: 1
model: {name: flight-late}
environments: {local: {tenant: acme, region: north}}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "cumulant.yaml").write_text(FILE)
    with load(tmp_path) as loaded:
        monkeypatch.setattr(loaded, "access", GrantedAccess)
        yield loaded


def scrape(project, principal=SCRAPER, action="alerts.show"):
    with pytest.raises(RefusedError):
        check(project, principal, action, model=OWN_MODEL)


def refused(project):
    events = list(project.journal().events(kinds=["access.refused"]))
    assert {(event.tenant, event.region) for event in events} <= {("acme", "north")}
    return [(event.actor, event.data["action"], event.data["count"]) for event in events]


def test_each_refusal_of_a_command_is_an_event(project):
    for _ in range(3):
        scrape(project)
    assert refused(project) == [("service:scraper", "alerts.show", 1)] * 3


def test_a_scraper_that_is_refused_is_two_events(project):
    with record_refusals(project, pytest.fail):
        for _ in range(500):
            scrape(project)
        scrape(project, ADA)
        assert refused(project) == [("service:scraper", "alerts.show", 1), ("user:ada", "alerts.show", 1)]
    assert refused(project)[2:] == [("service:scraper", "alerts.show", 499)]
    scrape(project)
    assert len(refused(project)) == 4, "a command after it is not counted"


def test_a_window_that_is_over_is_an_event_while_the_process_runs(project, monkeypatch):
    monkeypatch.setattr(refusals, "_ROUND", 0.05)
    with record_refusals(project, pytest.fail, window=timedelta(seconds=0.3)):
        for _ in range(10):
            scrape(project)
        waited = threading.Event()
        for _ in range(600):
            if sum(count for _, _, count in refused(project)) == 10:
                break
            waited.wait(0.05)
        assert sum(count for _, _, count in refused(project)) == 10
        assert len(refused(project)) < 10


def test_names_that_callers_choose_are_bounded(project):
    with record_refusals(project, pytest.fail):
        for number in range(MOST + 50):
            scrape(project, Principal(f"user:made-up-{number}", via="http"))
    events = refused(project)
    assert sum(count for _, _, count in events) == MOST + 50
    assert len(events) == MOST + 2
    assert [event for event in events if event[0] == MERGED][-1][2] == 49


def test_a_journal_that_does_not_answer_loses_no_refusal(project, monkeypatch):
    reports = []
    with record_refusals(project, reports.append):
        for _ in range(3):
            scrape(project)
        journal = project.journal
        monkeypatch.setattr(project, "journal", _away)
        refusals._report(project, project.refusals, reports.append, every=True)
        monkeypatch.setattr(project, "journal", journal)
    assert [count for _, _, count in refused(project)] == [1, 2]
    assert "2 refused requests wait" in reports[0]


def test_the_end_waits_for_a_journal_that_does_not_answer_once(project, monkeypatch):
    monkeypatch.setattr(refusals, "_WRITE", 0.2)
    hangs, tried, reports = threading.Event(), [], []

    def away(*_):
        tried.append(True)
        hangs.wait(20)
        raise StorageError("the journal is away")

    with record_refusals(project, reports.append):
        for name in "abc" * 2:
            scrape(project, Principal(f"user:{name}", via="http"))
        monkeypatch.setattr(refusals, "emit_refusal", away)
    ended = not reports
    hangs.set()
    for _ in range(600):
        if reports:
            break
        threading.Event().wait(0.05)
    assert ended, "it ended before the journal answered"
    assert tried == [True]
    assert reports == ["3 refused requests wait for the journal: the journal is away"]


def _away():
    raise StorageError("the journal is away")


def test_a_refusal_that_the_journal_does_not_take_at_once_is_counted(project, monkeypatch):
    with record_refusals(project, pytest.fail), monkeypatch.context() as patch:
        patch.setattr(project, "journal", _away)
        for _ in range(3):
            scrape(project)
    assert [count for _, _, count in refused(project)] == [3]


class _EndingCounter:
    """A project whose `record_refusals` ends while a refusal is counted."""

    def __init__(self, project):
        self._project, self._counters = project, [project.refusals]

    def __getattr__(self, name):
        return getattr(self._project, name)

    @property
    def refusals(self):
        return self._counters.pop() if self._counters else None


def test_a_refusal_at_the_end_of_the_counting_is_a_refusal(project):
    with record_refusals(project, pytest.fail):
        scrape(_EndingCounter(project))
    assert [count for _, _, count in refused(project)] == [1]


def serve(project, *refusal):
    """A prediction server that refuses these."""
    log = RefusalLog(project.log("refusals"), "late")
    for one in refusal:
        log.add(one)
    log.close()


PREDICT = RefusedRequest("user:ada", "model.predict", "flight-late", "policy", ("p1",))
UNKNOWN = RefusedRequest("anonymous", "model.predict", "flight-late", "token")


def test_what_a_prediction_server_refused_becomes_events_once(project):
    serve(project, PREDICT, UNKNOWN, PREDICT, PREDICT)
    assert ingest_refusals(project) == 4
    assert ingest_refusals(project) == 0
    assert project.log("refusals").parts(UNDATED) == []
    events = list(project.journal().events(kinds=["access.refused"]))
    assert sum(event.data["count"] for event in events) == 4
    ada = [event for event in events if event.actor == "user:ada"]
    assert {(event.data["reason"], event.data["server"]) for event in ada} == {("policy", "late")}
    assert all(event.data["policies"] == ["p1"] and event.data["first"] <= event.data["last"] for event in ada)
    (unknown,) = [event for event in events if event.actor == "anonymous"]
    assert (unknown.data["reason"], unknown.tenant, unknown.region) == ("token", "acme", "north")


def test_a_part_that_was_not_deleted_is_not_ingested_again(project, monkeypatch):
    serve(project, PREDICT)
    log = project.log("refusals")
    with monkeypatch.context() as patch:
        patch.setattr(log, "delete", _away_from)
        with suppress(StorageError):
            ingest_refusals(project)
    assert len(log.parts(UNDATED)) == 1
    assert ingest_refusals(project) == 0
    assert log.parts(UNDATED) == []
    assert len(refused(project)) == 1


def _away_from(_):
    raise StorageError("killed")


def test_several_at_once_ingest_each_part_once(project):
    for _ in range(8):
        serve(project, PREDICT, UNKNOWN)
    begin = threading.Barrier(4)
    counts = []

    def ingest():
        begin.wait()
        counts.append(ingest_refusals(project))

    threads = [threading.Thread(target=ingest) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts.append(ingest_refusals(project))
    assert sum(counts) == 16
    assert sum(count for _, _, count in refused(project)) == 16


def test_a_damaged_part_is_set_aside(project):
    log = project.log("refusals")
    with log.append(PartInfo(UNDATED, "x", 1, 1, "jsonl")) as stream:
        stream.write(b"{}\n")
    serve(project, PREDICT)
    assert ingest_refusals(project) == 1
    assert log.parts(UNDATED) == []


def test_a_part_of_which_only_the_copy_was_damaged_is_ingested(project, monkeypatch):
    serve(project, PREDICT)
    log = project.log("refusals")
    set_aside = []
    with monkeypatch.context() as patch:
        patch.setattr(log, "open", lambda _: io.BytesIO(b"\0\0"))
        patch.setattr(log, "set_aside", set_aside.append)  # as the log of a bucket, which drops the copy alone
        assert ingest_refusals(project) == 0
    assert len(set_aside) == 1
    assert ingest_refusals(project) == 1
    assert refused(project) == [("user:ada", "model.predict", 1)]


def test_tick_does_it(project):
    serve(project, PREDICT)
    (job,) = [job for job in JOBS if job.name == "refusals"]
    assert job.run(project) == "refused requests that became events: 1"
    assert job.run(project) == "no server refused a request"
