"""The overview of a project from what its journal holds."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from releases import release

from cumulant.alerting.alert_state import Finding
from cumulant.core.errors import EngineUnavailableError, RefusedError
from cumulant.core.events import Actor
from cumulant.flows.alerting.alerts import acknowledge, observe
from cumulant.flows.alerting.store import read
from cumulant.flows.monitoring.state import WATCH, MonitoringState, WindowRecord, write
from cumulant.flows.overview import recent_events
from cumulant.flows.overview.figures import drift_figure, mean_loss
from cumulant.flows.overview.project_overview import project_overview, unavailable_overview, worst_project_first
from cumulant.flows.overview.recent_events import RecentEvents
from cumulant.flows.registry.models import ModelAliased
from cumulant.flows.release import store
from cumulant.flows.release.controller.rollback_outbox import RETURNED
from cumulant.flows.stack.desired_state import Rollback
from cumulant.monitoring.retrain_rule import RetrainState
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.testing.access import GrantedAccess
from cumulant.training.events import FoldFinished

ADA = Principal("user:ada")
DAY = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: late, owner: ops@example.com}\n")
    with load(tmp_path) as loaded:
        yield loaded


def windows(*losses, rows=100):
    return tuple(
        WindowRecord(start=DAY + timedelta(day), end=DAY + timedelta(day + 1), rows=rows, labelled=80, loss=loss)
        for day, loss in enumerate(losses)
    )


def evaluate(project, *losses):
    state = MonitoringState(
        version="3", since=DAY, until=DAY + timedelta(len(losses)), retrain=RetrainState(trained=DAY),
        windows=(*windows(*losses), WindowRecord(start=DAY, end=DAY, rows=5, labelled=0)),
    )  # fmt: skip
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        write(transaction, WATCH, "late", state, expect=0)


def harm(project, *, rule="loss", kind="concept", since=None):
    finding = Finding(
        model="late", rule=rule, subject=rule, moved="the loss rose by 0.02.", since=since or DAY, kind=kind
    )
    observe(project, [finding], principal=ADA)


def promote(project, version="3"):
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.emit(ModelAliased(model="late", alias="champion", version=version))


def test_a_new_project_is_not_known(project):
    overview = project_overview(project, principal=ADA)
    assert (overview.level, overview.sentence, overview.problems) == ("unknown", "nothing was evaluated yet", ())
    assert overview.champion is None
    assert overview.serving is None
    assert overview.next.command == "cumulant train"
    assert overview.quality is None


def alias(project, name, version):
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.emit(ModelAliased(model="late", alias=name, version=version))


def test_the_next_step_follows_the_candidate(project):
    def command():
        step = project_overview(project, principal=ADA).next
        return None if step is None else step.command

    alias(project, "candidate", "1")
    assert command() == "cumulant up"
    alias(project, "champion", "1")
    alias(project, "candidate", None)
    assert command() is None
    alias(project, "candidate", "2")
    assert command() == "cumulant release start"
    assert project_overview(project, principal=ADA).next.label == "release version 2"
    alias(project, "champion", "2")
    assert command() is None


def test_a_damaged_desired_state_hides_nothing_else(project):
    (project.state / "stack").mkdir(parents=True)
    (project.state / "stack" / "desired_state.json").write_text("{")
    promote(project)
    evaluate(project, 0.2, 0.3)
    overview = project_overview(project, principal=ADA)
    assert (overview.level, overview.problems[0].subject, overview.champion) == ("warning", "desired state", "3")
    assert str(project.root) not in overview.problems[0].sentence


def test_servers_of_others_serve_what_a_rollback_after_the_release_named(project):
    now = msgspec.structs.replace(release(model="late"), status="promoted")
    with project.journal().transaction(actor=Actor("service:controller")) as transaction:
        store.write(transaction, None, now, expect=0)
    assert project_overview(project, principal=ADA).champion == now.candidate.version
    back = Rollback(at=now.begun + timedelta(hours=1), version="1", given_up=("2",), reason="errors", by=ADA.id)
    with project.journal().transaction(actor=Actor(ADA.id)) as transaction:
        transaction.put(RETURNED, f"late/{back.id}", msgspec.to_builtins(back))
    assert project_overview(project, principal=ADA).champion == "1"


def test_a_model_without_findings_is_well(project):
    evaluate(project, 0.2, 0.22, 0.21, 0.19)
    overview = project_overview(project, principal=ADA)
    assert overview.level == "ok"
    assert overview.champion == "3"
    assert overview.quality.loss == pytest.approx(0.205)
    assert overview.quality.windows == 4
    assert (overview.quality.rows, overview.quality.labelled) == (400, 320)
    assert overview.quality.low < 0.205 < overview.quality.high
    assert overview.quality.losses == (0.2, 0.22, 0.21, 0.19)


def test_harm_is_critical_with_the_change_before_it_and_a_rollback(project):
    promote(project)
    harm(project, since=datetime.now(UTC) + timedelta(seconds=1))
    overview = project_overview(project, principal=ADA)
    assert (overview.level, overview.sentence, overview.alerts) == ("critical", "the loss rose by 0.02", 1)
    assert overview.before.text == "version 3 became the champion"
    assert overview.before.by == "user:ada"
    assert overview.next.target == "rollback"
    assert overview.problems[0].next == overview.next


def test_a_promotion_before_many_folds_of_a_search_is_the_change_before_the_harm(project, monkeypatch):
    monkeypatch.setattr(recent_events, "SEARCHED", 5)
    alias(project, "candidate", "4")
    promote(project)
    fold = FoldFinished(number=1, trainer="linear", scores=(0.5,), folds=2, seconds=1.0, params={})
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        for _ in range(40):
            transaction.emit(fold)
    harm(project, since=datetime.now(UTC) + timedelta(seconds=1))
    events = RecentEvents("late")
    events.update(project.journal())
    assert events.candidate == "4"
    assert project_overview(project, principal=ADA).next.target == "rollback"
    for version in "56789":  # an update after few events, and one after many
        promote(project, version)
    events.update(project.journal())
    assert [change.champion for change in events.changes] == list("98765")
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.emit(ModelAliased(model="late", alias="champion", version="10"))
        for _ in range(8):
            transaction.emit(fold)
    events.update(project.journal())
    assert [change.champion for change in events.changes] == ["10", *"9876"]


def test_a_data_fault_after_a_promotion_is_not_rolled_back(project):
    promote(project)
    harm(project, rule="data_fault", kind="data_fault", since=datetime.now(UTC) + timedelta(seconds=1))
    overview = project_overview(project, principal=ADA)
    assert overview.level == "critical"
    assert overview.next.target == "data"


def test_an_acknowledged_alert_weighs_less(project):
    harm(project)
    acknowledge(project, read(project.journal())[0].firing[0].id, principal=ADA)
    overview = project_overview(project, principal=ADA)
    assert overview.level == "warning"
    assert overview.problems[0].known


def test_a_principal_without_the_action_is_refused(project, monkeypatch):
    monkeypatch.setattr(project, "access", GrantedAccess)
    with pytest.raises(RefusedError, match=r"may not do project\.overview"):
        project_overview(project, principal=ADA)


def test_projects_are_listed_worst_first(project):
    well = project_overview(project, principal=ADA)
    harm(project)
    ill = project_overview(project, principal=ADA)
    fault = EngineUnavailableError(f"the journal does not answer: {project.root}/x")
    away = unavailable_overview(project, fault, DAY)
    assert away.sentence == "the journal does not answer: x"
    assert away.level == "critical"
    assert away.next.command == "cumulant doctor"
    assert worst_project_first([well, away, ill]) == [ill, away, well]


def test_an_overview_reads_few_rows(project, monkeypatch):
    promote(project)
    evaluate(project, 0.2, 0.3)
    harm(project)
    journal, calls = project.journal(), []
    for name in ("get", "rows", "events", "head"):
        read_one = getattr(journal, name)
        monkeypatch.setattr(journal, name, lambda *a, _n=name, _r=read_one, **k: calls.append(_n) or _r(*a, **k))
    project_overview(project, principal=ADA)
    assert len(calls) <= 12, calls


def test_the_interval_is_that_of_windows_and_not_of_rows():
    mean, low, high = mean_loss(windows(0.1, 0.3, 0.1, 0.3))
    assert mean == pytest.approx(0.2)
    # Four means of which each deviates by 0.1: the standard error is 0.1 / sqrt(3), and Student's t of 3 is 3.182.
    assert high - mean == pytest.approx(3.182446 * 0.1 / 3**0.5, rel=1e-5)
    assert mean - low == pytest.approx(high - mean)


def test_few_windows_have_no_interval():
    assert mean_loss(windows(0.1, 0.2, 0.3))[1:] == (None, None)


def test_drift_names_the_largest_that_last():
    alarms = [
        {"feature": name, "effect": effect, "active": active}
        for name, effect, active in [("a", 0.1, True), ("b", -0.9, True), ("c", 2.0, False), ("a", 0.05, True)]
    ]
    figure = drift_figure({"rows": 5, "windows": 4, "alarming": 2, "until": "2026-11-01", "alarms": alarms})
    assert figure.features == ("b", "a")
    assert drift_figure(None) is None
