"""Data that were refused or are too old are problems of a model, each with its source and its cause."""

from datetime import UTC, datetime, timedelta

from cumulant.core.events import Actor
from cumulant.flows.data.validate import NEWEST, REFUSED, validate
from cumulant.flows.overview.data_problems import data_problems, refused_data, stale_data
from cumulant.flows.overview.project_overview import project_overview
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load

NOW = datetime(2026, 11, 20, tzinfo=UTC)
ADA = Principal("user:ada")


class LaterClock:
    def __init__(self, days):
        self._days = days

    def now(self):
        return datetime.now(UTC) + timedelta(days=self._days)


def test_data_are_stale_from_the_moment_that_they_are_older_than_declared():
    newest, fresh = NOW - timedelta(days=5), timedelta(days=2)
    (problem,) = stale_data("visits", "began", newest, fresh, NOW)
    assert problem.sentence == "data of visits are stale: the newest began is 5d old, more than the 2d of `fresh`"
    assert (problem.level, problem.cause, problem.since) == ("warning", "stale_data", newest + fresh)
    assert stale_data("visits", "began", NOW - fresh, fresh, NOW) == []
    assert stale_data("visits", "began", NOW + fresh, fresh, NOW) == []


def test_refused_data_say_why_and_not_without_end():
    problem = refused_data("visits", ("few rows.", "x" * 500), NOW)
    assert problem.sentence.startswith("newer data of visits were refused: few rows.; xxx")
    assert len(problem.sentence) < 250
    assert refused_data("visits", (), NOW).sentence == "newer data of visits were refused"


def test_a_source_becomes_stale_as_time_passes(tmp_path):
    began = datetime.now(UTC) - timedelta(hours=1)
    rows = "\n".join(f"{number},{began.isoformat()}" for number in range(5))
    (tmp_path / "visits.csv").write_text(f"visit,began\n{rows}\n")
    source = "{path: visits.csv, key: visit, event_time: began, table: {fresh: 2d}}"
    (tmp_path / "cumulant.yaml").write_text(f"version: 1\nmodel: {{name: late}}\ndata: {{visits: {source}}}\n")
    with load(tmp_path) as project:
        assert data_problems(project, datetime.now(UTC)) == []
        validate(project, principal=ADA)
        assert project_overview(project, principal=ADA).problems == ()
        overview = project_overview(project, principal=ADA, clock=LaterClock(3))
    assert overview.level == "warning"
    assert overview.sentence.startswith("data of visits are stale: the newest began is 3d1h")


def test_a_snapshot_of_another_version_of_the_program_hides_nothing_else(tmp_path):
    source = "{path: visits.csv, key: visit, event_time: began, table: {fresh: 2d}}"
    sources = f"data: {{orders: {source}, visits: {source}}}"
    (tmp_path / "cumulant.yaml").write_text(f"version: 1\nmodel: {{name: late}}\n{sources}\n")
    with load(tmp_path) as project:
        with project.journal().transaction(actor=Actor("user:ada")) as transaction:
            transaction.put(NEWEST, "orders", {"profile": "of another version"})
            transaction.put(REFUSED, "visits", {"profile": "of another version"})
        overview = project_overview(project, principal=ADA)
    assert overview.sentence == "newer data of visits were refused"
