"""The overview of all projects: the worst first, only what the principal may see, also where a store is away."""

import re
from datetime import UTC, datetime

import pytest
from console_support import ADA, console_client, make_project

from cumulant.alerting.alert_state import Finding
from cumulant.console.pages.overview import headline, loss_line
from cumulant.core.errors import EngineUnavailableError
from cumulant.core.events import Actor
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.overview.project_overview import project_overview
from cumulant.flows.registry.models import ModelAliased
from cumulant.testing.access import GrantedAccess
from cumulant.training.events import GateDecided


@pytest.fixture
def projects(tmp_path):
    loaded = [make_project(tmp_path / name, name) for name in ("alpha", "beta", "gamma")]
    yield loaded
    for project in loaded:
        project.close()


def harm(project, at):
    finding = Finding(
        model=project.name, rule="loss", subject="loss", moved="the loss rose by 0.02", since=at, kind="concept"
    )
    observe(project, [finding], principal=ADA)


def order(text):
    return sorted(("alpha", "beta", "gamma"), key=lambda name: text.index(f'aria-label="{name}"'))


def test_the_worst_project_comes_first_with_its_sentence(projects):
    overview = project_overview(projects[0], principal=ADA)
    harm(projects[1], overview.at)
    text = console_client(*projects).get("/").text
    assert order(text) == ["beta", "alpha", "gamma"]
    assert "1 of 3 models is in a critical state: beta" in text
    assert "The loss rose by 0.02." in text


def test_a_finding_has_its_cause_in_words_and_no_text_twice(projects):
    finding = Finding(
        model="alpha",
        rule="volume",
        subject="visits",
        moved="rows fell from 900 to 12",
        since=datetime(2013, 6, 13, tzinfo=UTC),
        kind="volume",
    )
    with projects[0].journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.emit(ModelAliased(model="alpha", alias="champion", version="2"))
    observe(projects[0], [finding], principal=ADA)
    client = console_client(*projects)
    text = client.get("/projects/alpha").text
    assert "<b>Number of rows of visits</b>" in text
    assert "Rows fell from 900 to 12." in text
    assert "more or fewer rows arrive" in text
    assert "volume" not in text
    # The data are of the past, and the change before the finding is of today.
    assert "Last change before this was found: version 2 became the champion" in text
    alerts = client.get("/projects/alpha/monitoring").text
    assert "rows fell from 900 to 12, since 2013-06-13 00:00 UTC. Likely a change of how many rows arrive" in alerts


def test_a_store_that_is_away_is_critical_and_hides_no_other_project(projects, monkeypatch):
    def away():
        raise EngineUnavailableError("the journal does not answer", hint="start PostgreSQL")

    monkeypatch.setattr(projects[2], "journal", away)
    response = console_client(*projects).get("/")
    assert response.status_code == 200
    assert order(response.text) == ["gamma", "alpha", "beta"]
    assert "The journal does not answer." in response.text


def test_a_project_that_the_principal_may_not_see_is_not_listed_and_not_asked_for(projects, monkeypatch):
    monkeypatch.setattr(projects[1], "access", GrantedAccess)
    client = console_client(*projects)
    text = client.get("/").text
    assert "beta" not in text
    assert 'aria-label="alpha"' in text
    assert list(projects[1].journal().events()) == []
    hidden, unknown = client.get("/projects/beta"), client.get("/projects/zeta")
    assert (hidden.status_code, unknown.status_code) == (404, 404)
    pages = [re.sub(r'nonce="[^"]*"|content="[^"]*"', "", page.text) for page in (hidden, unknown)]
    assert pages[0].replace("beta", "zeta") == pages[1]


def test_without_projects_the_page_says_so():
    assert "No project here" in console_client().get("/").text


def test_the_list_has_pages(projects, monkeypatch):
    monkeypatch.setattr("cumulant.console.pages.overview._CARDS", 2)
    client = console_client(*projects)
    first, second = client.get("/").text, client.get("/?page=2").text
    assert first.count("<article") == 2
    assert second.count("<article") == 1
    assert 'rel="next"' in first
    assert 'rel="prev"' in second


def test_the_headline_names_a_single_project(projects):
    calm = project_overview(projects[0], principal=ADA)
    assert headline(calm, {calm.level: 1}) == "nothing is wrong; 1 of 1 were not evaluated yet"
    harm(projects[0], calm.at)
    worst = project_overview(projects[0], principal=ADA)
    assert headline(worst, {worst.level: 1}) == "project alpha is in a critical state"


def test_a_line_of_losses_needs_two():
    assert loss_line((0.1,)) is None
    assert str(loss_line((0.1, 0.1, 0.1))).count("polyline") == 1
    assert "0.1 to 0.3" in str(loss_line((0.1, 0.3)))


@pytest.mark.parametrize("passed", [True, False])
def test_a_candidate_that_the_gate_refused_is_not_suggested_for_release(projects, passed):
    journal, word = projects[0].journal(), "better" if passed else "worse"

    def emit(run, *facts):
        with journal.transaction(actor=Actor("user:ada"), run=run) as transaction:
            for fact in facts:
                transaction.emit(fact)

    emit("run-1", ModelAliased(model="alpha", alias="champion", version="1"))
    gate = GateDecided(passed=passed, word=word, words={}, reason=word)
    emit("run-2", gate, ModelAliased(model="alpha", alias="candidate", version="2"))
    overview = project_overview(projects[0], principal=ADA)
    assert (overview.next is not None and overview.next.command == "cumulant release start") is passed
