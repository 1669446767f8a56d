"""Counts of the requests at gateways: each line of the log is read once, by whichever process comes first."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from cumulant.core.traffic import Exchange
from cumulant.drivers.envoy.exchanges import ExchangeWriter
from cumulant.flows.observe import gateway_requests
from cumulant.flows.observe.gateway_requests import GatewayRequests
from cumulant.flows.observe.slo import show_objectives
from cumulant.flows.overview.project_overview import project_overview
from cumulant.project.file.loading import load

SLO = "serving: {slo: {latency: {within: 250ms}}}\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(f"version: 1\nmodel: {{name: late}}\n{SLO}")
    return tmp_path


def write(project, *statuses, ago=60.0, took=10_000):
    place = project.state / "gateway" / "exchanges"
    place.mkdir(parents=True, exist_ok=True)
    common = {"model": "late", "assigned": "champion", "served": "champion", "duration_us": took}
    writer = ExchangeWriter(place)
    at = int((time.time() - ago) * 1e6)
    writer.write([Exchange(request="r", time=at, status=status, **common) for status in statuses])
    writer.close()


def requests(counts, project, span=timedelta(hours=1)):
    now = datetime.now(UTC)
    with counts.counted(project, now) as minutes:
        return minutes.within(span, now).requests


def test_new_lines_are_added_and_no_line_is_read_twice(folder, monkeypatch):
    with load(folder) as project:
        counts, source = GatewayRequests(), project.gateway()
        write(project, 200, 503)
        assert requests(counts, project) == 2
        read, original = [], source.exchanges

        def exchanges(after="", *, limit):
            listed, cursor = original(after, limit=limit)
            read.extend(listed)
            return listed, cursor

        monkeypatch.setattr(source, "exchanges", exchanges)
        write(project, 200)
        assert requests(counts, project) == 3
        assert len(read) == 1


def test_a_later_process_goes_on_from_the_stored_counts(folder):
    with load(folder) as project:
        write(project, 200, 503)
        assert requests(GatewayRequests(), project) == 2
        for file in (project.state / "gateway" / "exchanges").iterdir():
            file.write_bytes(b" " * file.stat().st_size)  # what was read is not read again
        write(project, 200)
        assert requests(GatewayRequests(), project) == 3
        view = show_objectives(project, principal=project.principal())
    assert [(each.requests, each.bad) for each in view.objectives] == [(3, 1), (3, 0)]


@pytest.mark.parametrize("damage", [b"", b"damaged", None])
def test_damaged_or_missing_counts_are_made_anew(folder, damage):
    with load(folder) as project:
        write(project, 200)
        requests(GatewayRequests(), project)
        path = project.state / "observe" / "gateway_requests.msgpack"
        path.unlink() if damage is None else path.write_bytes(damage)
        assert requests(GatewayRequests(), project) == 1


def test_another_bound_of_latency_counts_the_log_again(folder):
    with load(folder) as project:
        write(project, 200, 200, took=100_000)
        assert show_objectives(project, principal=project.principal()).objectives[1].bad == 0
    (folder / "cumulant.yaml").write_text(
        "version: 1\nmodel: {name: late}\nserving: {slo: {latency: {within: 50ms}}}\n"
    )
    with load(folder) as project:
        assert show_objectives(project, principal=project.principal()).objectives[1].bad == 2


def test_another_bound_of_latency_is_taken_by_a_process_that_goes_on(folder):
    with load(folder) as project:
        counts, show = GatewayRequests(), partial(show_objectives, project, principal=project.principal())
        write(project, 200, 200, took=100_000)
        assert show(requests=counts).objectives[1].bad == 0
        (folder / "cumulant.yaml").write_text(
            "version: 1\nmodel: {name: late}\nserving: {slo: {latency: {within: 50ms}}}\n"
        )
        project.adopt(load(folder))
        assert show(requests=counts).objectives[1].bad == 2
        assert show().objectives[1].bad == 2


def test_what_another_process_counted_before_the_log_was_cut_is_taken_over(folder, monkeypatch):
    monkeypatch.setattr(gateway_requests, "_LATER", 0.0)
    with load(folder) as project:
        idle, busy = GatewayRequests(), GatewayRequests()
        write(project, 200, 200, ago=600)
        assert requests(idle, project) == 2
        write(project, 503, ago=300)
        assert requests(busy, project) == 3
        write(project, 200, ago=60)
        _, cut, _ = sorted((project.state / "gateway" / "exchanges").iterdir())
        cut.unlink()
        assert requests(idle, project) == 4
        assert requests(GatewayRequests(), project) == 4


def test_a_clock_that_jumps_ahead_and_back_forgets_no_counts(folder):
    """Whether that of a reader jumps or that of the gateway: what is dropped depends on the number of hours alone."""
    with load(folder) as project:
        counts = GatewayRequests()
        write(project, 200, 503)
        for ahead in range(70):  # minutes of a gateway's clock that is a year ahead
            write(project, 200, ago=-86_400 * 365 - 60 * ahead)
            requests(counts, project)  # before the writer drops its oldest files
        view = show_objectives(project, principal=project.principal(), clock=LaterClock(), requests=counts)
        assert [each.requests for each in view.objectives] == [0, 0]
        assert requests(counts, project) == 72
        for ago in range(60):
            write(project, 200, ago=60.0 * ago)
            requests(counts, project)
        with counts.counted(project, datetime.now(UTC)) as minutes:
            assert minutes.quantile(0.5, timedelta(hours=1), datetime.now(UTC)) is not None


class LaterClock:
    def now(self):
        return datetime.now(UTC) + timedelta(days=365, hours=2)


def test_the_file_is_not_written_for_every_look(folder, monkeypatch):
    written = []
    monkeypatch.setattr(gateway_requests, "write_checked", lambda path, _: written.append(path))
    with load(folder) as project:
        counts = GatewayRequests()
        for _ in range(3):
            write(project, 200)
            assert requests(counts, project)
    assert len(written) == 1


def test_the_overview_has_traffic_and_the_budget_also_without_a_release(folder):
    with load(folder) as project:
        write(project, *[200] * 150, *[503] * 50)
        overview = project_overview(project, principal=project.principal())
    figure = overview.requests
    assert (figure.requests, figure.errors) == (200, 0.25)
    assert figure.per_second == pytest.approx(200 / 900)
    assert figure.p50 == figure.p99 == pytest.approx(10.0, rel=0.05)
    assert [(each.sli, each.firing) for each in overview.objectives] == [("availability", "page"), ("latency", None)]
    problem = overview.problems[0]
    assert (problem.level, problem.what, problem.cause) == ("critical", "objective", "errors")
    assert problem.sentence.startswith("50 of 200 requests (25%) were answered with a server error")
    assert overview.sentence == problem.sentence


def test_one_bad_request_of_few_is_no_problem_of_the_overview(folder):
    with load(folder) as project:
        write(project, *[200] * 10, 503)
        overview = project_overview(project, principal=project.principal())
    assert overview.objectives[0].budget_left < 0
    assert overview.problems == ()


def test_the_overview_of_a_project_without_a_gateway_has_no_requests(folder):
    with load(folder) as project:
        overview = project_overview(project, principal=project.principal())
    assert (overview.requests.requests, overview.requests.errors, overview.requests.p50) == (0, None, None)
    assert overview.problems == ()
