"""A served model that begins to answer errors or to be slow, from lines of a gateway's log: overview, alert, events."""

from __future__ import annotations

import queue
import time
from datetime import UTC, datetime, timedelta

import pytest

from cumulant.core.events import Actor
from cumulant.core.traffic import Exchange
from cumulant.drivers.envoy.exchanges import ExchangeWriter
from cumulant.flows.alerting.alerts import acknowledge
from cumulant.flows.alerting.store import read
from cumulant.flows.data.validate import REFUSED
from cumulant.flows.observe.gateway_requests import GatewayRequests
from cumulant.flows.observe.objective_alerts import evaluate_objectives, watch_objectives
from cumulant.flows.overview.problems import ModelProblem, worst_first
from cumulant.flows.overview.project_overview import project_overview
from cumulant.flows.registry.models import ModelAliased
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.testing.clock import ManualClock

ADA = Principal("user:ada")
SLO = "serving: {slo: {latency: {within: 250ms}}}\n"


class Incident:
    """A project whose callers send 100 requests a minute, by a clock that the test moves."""

    def __init__(self, project):
        self.project = project
        self.clock = ManualClock(datetime.now(UTC).replace(second=30, microsecond=0))
        self.alerts = GatewayRequests()

    def minutes(self, count, *, bad=0, status=500, took=10.0, served="champion"):
        """That many minutes of requests, of which `bad` of each 100 are answered so."""
        place = self.project.state / "gateway" / "exchanges"
        place.mkdir(parents=True, exist_ok=True)
        writer = ExchangeWriter(place)
        common = {"request": "r", "model": "late", "assigned": "champion"}
        for _ in range(count):
            self.clock.move(timedelta(minutes=1))
            at = int(self.clock.now().timestamp() * 1e6)
            good = Exchange(time=at, status=200, served="champion", duration_us=10_000, **common)
            other = Exchange(time=at, status=status, served=served, duration_us=int(took * 1000), **common)
            writer.write([*[good] * (100 - bad), *[other] * bad])
        writer.close()
        evaluate_objectives(self.project, principal=ADA, requests=self.alerts, clock=self.clock)

    def promote(self, version):
        with self.project.journal().transaction(actor=Actor("user:ada")) as transaction:
            transaction.emit(ModelAliased(model="late", alias="champion", version=version))

    def overview(self):
        return project_overview(self.project, principal=ADA, clock=self.clock)

    def kinds(self):
        return [event.kind for event in self.project.journal().events() if event.kind.startswith("alert.")]


def opened(folder, text=SLO):
    (folder / "cumulant.yaml").write_text(f"version: 1\nmodel: {{name: late}}\n{text}")
    return load(folder)


@pytest.fixture
def incident(tmp_path):
    with opened(tmp_path) as project:
        yield Incident(project)


def test_a_champion_that_errs_is_named_with_its_beginning_the_change_before_it_and_the_rollback(incident):
    incident.promote("7")
    incident.minutes(30)
    began = incident.clock.now()
    incident.minutes(4, bad=50)
    overview = incident.overview()
    assert (overview.level, overview.champion) == ("critical", "7")
    assert overview.sentence.startswith(
        "200 of 400 requests (50%) were answered with a server error; the objective of availability allows 0.1%, and its"
        " error budget is used"
    )
    assert overview.sentence.endswith(" times as fast as the objective allows over 1h")
    assert overview.since == began.replace(second=0) + timedelta(minutes=1)
    assert overview.before.text == "version 7 became the champion"
    assert overview.next.command == 'cumulant rollback late --reason "objective"'
    problem = overview.problems[0]
    assert (problem.what, problem.subject, problem.cause) == ("objective", "availability", "errors")
    assert "log of the server" in problem.advice
    assert len(overview.problems) == 1  # the alert is not shown beside what it is about


def test_a_champion_that_becomes_slow_is_named_with_its_bound(incident):
    incident.minutes(30)
    began = incident.clock.now()
    incident.minutes(20, bad=60, status=200, took=900.0)
    overview = incident.overview()
    assert overview.level == "critical"
    assert overview.sentence.startswith(
        "1,200 of 2,000 requests (60%) took longer than 250ms; the objective of latency"
    )
    assert overview.since == began.replace(second=0) + timedelta(minutes=1)
    assert (overview.problems[0].cause, overview.next.command) == ("latency", "cumulant slo show")
    assert "cumulant_run_seconds" in overview.problems[0].advice


def test_requests_that_no_server_answers_are_told_from_errors_of_the_model(incident):
    incident.minutes(5)
    incident.minutes(5, bad=100, status=503, served="")
    problem = incident.overview().problems[0]
    assert "500 of 500 requests (100%)" in problem.sentence
    assert "500 of them because no server answered" in problem.sentence
    assert "cumulant ps" in problem.advice


def test_a_burst_of_one_caller_with_bad_requests_is_no_error_of_the_model(incident):
    incident.minutes(10)
    for status in (400, 401, 404, 413, 422, 429):
        incident.minutes(1, bad=99, status=status)
    overview = incident.overview()
    assert (overview.level, overview.problems) == ("ok", ())
    assert incident.kinds() == []


def test_an_incident_that_ended_is_not_red_but_in_the_events(incident):
    incident.minutes(30)
    incident.minutes(10, bad=50)
    assert incident.kinds() == ["alert.fired"]
    assert incident.overview().level == "critical"
    incident.minutes(6)
    overview = incident.overview()
    assert overview.level == "warning"
    assert (
        "500 of 1,600 requests (31.2%) were answered with a server error, and 0 of 500 in the last 5m"
        in overview.sentence
    )
    incident.minutes(6)
    assert incident.kinds() == ["alert.fired", "alert.resolved"]
    assert incident.overview().alerts == 0
    fired = next(event for event in incident.project.journal().events() if event.kind == "alert.fired")
    assert (fired.data["rule"], fired.data["subject"]) == ("objective", "availability")


def test_few_requests_without_an_error_do_not_show_that_an_incident_ended(incident):
    incident.minutes(30, bad=1)
    incident.minutes(10, bad=4)
    incident.minutes(1)
    assert incident.overview().level == "critical"


def test_of_two_incidents_the_worse_one_comes_first_and_the_other_is_shown(incident):
    with incident.project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.put(REFUSED, "visits", {"breaches": ["pages:min"]})
    incident.minutes(5)
    incident.minutes(10, bad=100, took=900.0)
    first, second, *others = incident.overview().problems
    assert {first.what, second.what} == {"objective"}
    assert {first.subject, second.subject} == {"availability", "latency"}
    assert [(problem.what, problem.subject) for problem in others] == [("data", "visits")]


def test_processes_that_do_not_work_come_before_errors_that_were_before(incident):
    incident.minutes(30)
    incident.minutes(4, bad=100, status=503, served="")
    incident.clock.move(timedelta(minutes=3))
    errors = incident.overview().problems[0]
    assert errors.sentence.endswith("; the last one 3 minutes ago")
    begun = incident.clock.now()
    ended = ModelProblem(
        level="critical", what="stack", subject="stack", sentence="ended", since=begun, noticed=begun, next=errors.next
    )
    assert worst_first([errors, ended]) == [ended, errors]


def test_an_acknowledged_incident_weighs_less_while_it_lasts(incident):
    incident.minutes(10, bad=50)
    (alert,) = read(incident.project.journal())[0].firing
    acknowledge(incident.project, alert.id, principal=ADA)
    overview = incident.overview()
    assert (overview.level, overview.problems[0].known) == ("warning", True)


def test_an_incident_that_lasts_for_hours_keeps_its_beginning(incident):
    incident.minutes(60)
    began = incident.clock.now()
    incident.minutes(200, bad=30)
    assert incident.overview().since == began.replace(second=0) + timedelta(minutes=1)


def test_without_an_objective_many_errors_are_shown_and_raise_no_alert(tmp_path):
    with opened(tmp_path, "") as project:
        incident = Incident(project)
        incident.minutes(10, bad=2)
        assert incident.overview().problems == ()
        incident.minutes(10, bad=80)
        overview = incident.overview()
        assert overview.level == "critical"
        assert overview.sentence == "800 of 1,000 requests (80%) were answered with a server error"
        assert (overview.problems[0].what, overview.next.command) == ("errors", "cumulant ps")
        assert incident.kinds() == []


def test_the_alert_ends_where_the_objectives_are_taken_away(incident, tmp_path):
    incident.minutes(10, bad=50)
    incident.project.adopt(opened(tmp_path, ""))
    for _ in range(2):
        incident.clock.move(timedelta(minutes=6))
        evaluate_objectives(incident.project, principal=ADA, clock=incident.clock)
    assert incident.kinds() == ["alert.fired", "alert.resolved"]


def test_evaluations_without_a_change_write_nothing(incident):
    incident.minutes(3)
    before = incident.project.journal().head()
    evaluate_objectives(incident.project, principal=ADA, clock=incident.clock)
    assert incident.project.journal().head() == before
    assert not read(incident.project.journal())[1]


def test_the_controller_evaluates_in_the_background(incident):
    incident.minutes(0)
    now = int(datetime.now(UTC).timestamp() * 1e6)
    place = incident.project.state / "gateway" / "exchanges"
    writer = ExchangeWriter(place)
    error = Exchange(
        request="r", time=now, model="late", assigned="champion", served="champion", status=500, duration_us=1
    )
    writer.write([error] * 200)
    writer.close()
    with watch_objectives(incident.project, pytest.fail, pause=0.01):
        deadline = time.monotonic() + 60
        while "alert.fired" not in incident.kinds():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_fault_of_an_evaluation_is_reported_and_the_next_one_tries_again(incident):
    with incident.project.journal().transaction(actor=Actor("service:newer")) as transaction:
        transaction.put("alerts", "state", {"alerts": {"k": {"id": "of another release"}}})
    reports = queue.SimpleQueue()
    with watch_objectives(incident.project, reports.put, pause=0.01):
        for report in (reports.get(timeout=60), reports.get(timeout=60)):
            assert report.startswith("objectives are not evaluated: ValidationError: ")


def test_an_alert_at_its_limit_does_not_end_and_fire_in_turns_and_the_overview_has_what_it_is_about(tmp_path):
    """The limit is 10%, of all requests: these are above it at first, then below."""
    with opened(tmp_path, "serving: {slo: {objective: 90%}}\n") as project:
        incident = Incident(project)
        incident.minutes(20, bad=11)
        for bad in (9, 9, 9, 11):
            incident.minutes(12, bad=bad)
            assert [problem.subject for problem in incident.overview().problems] == ["availability"]
        assert incident.kinds() == ["alert.fired"]
        incident.minutes(10)
        incident.minutes(10)
        assert incident.kinds() == ["alert.fired", "alert.resolved"]


def test_a_promotion_is_the_change_before_its_errors_and_not_those_of_an_outage_hours_ago(incident):
    began = incident.clock.now()
    incident.clock.move(-timedelta(hours=6))
    incident.minutes(30)
    incident.minutes(10, bad=100, status=503, served="")
    incident.minutes(300)
    incident.clock.move(began - incident.clock.now())
    incident.promote("8")
    incident.clock.move(timedelta(minutes=1))
    incident.minutes(10, bad=5)
    overview = incident.overview()
    assert overview.sentence.startswith("50 of 1,000 requests (5%) were answered with a server error; the objective")
    assert overview.since == began.replace(second=0) + timedelta(minutes=2)
    assert overview.before.text == "version 8 became the champion"
    assert overview.next.command == 'cumulant rollback late --reason "objective"'
    assert "log of the server" in overview.problems[0].advice
