"""A training that was asked for: what passes by itself is tried again, what does not is told, and both are remembered."""

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import polars as pl
import pytest

from cumulant.alerting.alert_state import Alert, AlertsState
from cumulant.alerting.messages import sentence
from cumulant.core.errors import ContractBreachError, EngineUnavailableError, ObjectiveMissedError, OutOfMemoryError
from cumulant.core.events import Actor
from cumulant.flows.alerting.store import read
from cumulant.flows.monitoring.alerts import evaluation_alerts, training_alerts
from cumulant.flows.monitoring.result import EvaluationResult
from cumulant.flows.monitoring.retraining import continue_retraining
from cumulant.flows.monitoring.state import TRAINING, RetrainRequest, read_request, write
from cumulant.flows.overview.problems import alert_problems
from cumulant.flows.release.start.start import ReleaseStart
from cumulant.flows.training.train import train
from cumulant.monitoring.performance.loss_monitor import Harm, LossFinding
from cumulant.monitoring.performance.rows import PredictionWindow
from cumulant.monitoring.retrain_rule import RetrainAction
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load

WHO = Principal("user:ada")
NEXT_DAY = datetime(2013, 6, 3, tzinfo=UTC)
SHOP = """\
version: 1
model: {name: shop}
data:
  visits: {path: visits.csv, key: visit, event_time: at}
features: features.py
training: {target: bought, trainers: [linear], trials: 1, time: null, folds: 2}
evaluation: {gate: {log_loss: {margin: 0.2}}}
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: late}\n")
    with load(tmp_path) as found:
        wanted = RetrainRequest(
            requested=datetime(2026, 1, 1, tzinfo=UTC), champion="1", trigger="harm", sentence="It is worse."
        )
        with found.journal().transaction(actor=Actor("user:ada")) as transaction:
            write(transaction, TRAINING, "late", wanted, expect=0)
        yield found


def failing(monkeypatch, error):
    def train(*_, **__):
        raise error

    monkeypatch.setattr("cumulant.flows.monitoring.retraining.train", train)


def test_a_server_that_does_not_answer_gives_no_training_up(project, monkeypatch):
    failing(monkeypatch, EngineUnavailableError("the registry does not answer"))
    for _ in range(5):
        found = continue_retraining(project, principal=WHO)
        assert (found.stage, found.message) == ("requested", "the registry does not answer")
    assert not read(project.journal())[0].alerts


@pytest.mark.parametrize("error", [ContractBreachError, OutOfMemoryError])
def test_what_would_fail_again_ends_the_training_once_and_raises_an_alert(project, monkeypatch, error):
    failing(monkeypatch, error("12% of orders were refused"))
    assert continue_retraining(project, principal=WHO).stage == "failed"
    failing(monkeypatch, AssertionError("it was tried again"))
    assert continue_retraining(project, principal=WHO).stage == "failed"
    (alert,) = read(project.journal())[0].alerts.values()
    assert (alert.finding.rule, "12% of orders" in alert.finding.moved) == ("retraining", True)
    facts = [event.data for event in project.journal().events(kinds=("monitoring.retraining_progressed",))]
    assert [(fact["stage"], fact["reason"]) for fact in facts] == [("failed", "12% of orders were refused")]


def test_a_version_waits_for_the_objectives_and_an_alert_says_so(project, monkeypatch):
    def start(*_, **__):
        if held:
            raise ObjectiveMissedError(held[-1])
        return ReleaseStart(waits_for="r1")

    for name, result in (("uses_releases", True), ("was_served", True)):
        monkeypatch.setattr(f"cumulant.flows.monitoring.retraining.{name}", lambda _, result=result: result)
    monkeypatch.setattr("cumulant.flows.monitoring.retraining.start_release", start)
    wanted, version = read_request(project.journal(), "late")
    trained = msgspec.structs.replace(wanted, stage="trained", candidate="late/2")
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        write(transaction, TRAINING, "late", trained, expect=version)
    held = ["the error budget is spent"]
    for _ in range(3):
        assert continue_retraining(project, principal=WHO).stage == "trained"
    (alert,) = read(project.journal())[0].alerts.values()
    assert alert.finding.moved.endswith("and waits: the error budget is spent")
    assert "cumulant release start late/2 --override-slo" in alert.finding.next
    held.clear()
    begun = continue_retraining(project, principal=WHO)
    assert begun.stage == "released"
    assert list(training_alerts("late", begun)) == []


def test_nothing_is_done_where_nothing_is_wanted(project):
    found, version = read_request(project.journal(), "late")
    assert found is not None
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.delete(TRAINING, "late")
    assert continue_retraining(project, principal=WHO) is None
    assert version == 1


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A project with a champion, and a setting changed since that changes no model."""
    folder, rng = tmp_path_factory.mktemp("shop"), np.random.default_rng(7)
    x = rng.normal(size=600).round(4)
    bought = rng.random(600) < 1 / (1 + np.exp(1 - 2 * x))
    at = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=number) for number in range(600)]
    pl.DataFrame({"visit": np.arange(600), "at": at, "x": x, "bought": bought}).write_csv(folder / "visits.csv")
    (folder / "features.py").write_text('from cumulant.features import source\n\nrow = source("visits").columns("x")\n')
    (folder / "cumulant.yaml").write_text(SHOP)
    with load(folder) as found:
        assert train(found, principal=WHO).promoted
    (folder / "cumulant.yaml").write_text(SHOP.replace("folds: 2", "folds: 2, leak_auc: 0.97"))
    return folder


@pytest.mark.parametrize(("trigger", "stage"), [("schedule", "released"), ("labels", "released"), ("harm", "refused")])
def test_the_champion_made_again_raises_an_alert_only_where_the_champion_does_harm(shop, trigger, stage):
    with load(shop) as found:
        wanted = RetrainRequest(
            requested=datetime(2026, 1, 1, tzinfo=UTC), champion="1", trigger=trigger, sentence="It is due."
        )
        with found.journal().transaction(actor=Actor("user:ada")) as transaction:
            write(transaction, TRAINING, "shop", wanted, expect=read_request(found.journal(), "shop")[1])
        end = continue_retraining(found, principal=WHO)
        assert (end.stage, end.open, end.release) == (stage, False, None), end.message
        assert "the same model as the champion, shop/1" in end.message
        assert ("it would lose as much" in end.message) == (trigger == "harm")
        firing = [alert for alert in read(found.journal())[0].alerts.values() if alert.finding.rule == "retraining"]
        assert bool(firing) == (trigger == "harm")
        assert found.registry().resolve("shop@champion").version == "1"


def test_a_loss_is_dated_once_by_the_field_of_its_alert():
    """The text has no time of its own: every reader shows `since`, and says of which zone it is."""
    day = datetime(2013, 6, 2, tzinfo=UTC)
    refit, skill = (
        LossFinding(
            question=question,
            word="worse",
            excess=0.02,
            low=0.01,
            high=0.03,
            evidence=9.0,
            bar=5.0,
            since=since,
            sentence=f"Since {since:%Y-%m-%d %H:%M} UTC the model loses {size}.",
            change=f"the model loses {size}",
            at_least=at_least,
        )
        for question, since, size, at_least in (("refit", day, "0.02", True), ("skill", NEXT_DAY, "0.03", False))
    )
    window = PredictionWindow(day, NEXT_DAY)
    harm = Harm(window=window, word="worse", kind="concept", findings=(refit, skill), moved=None, sentence="x")
    result = EvaluationResult(
        model="late",
        version="1",
        at=NEXT_DAY,
        until=NEXT_DAY,
        fresh=1,
        windows=(),
        harm=harm,
        estimate=None,
        audit=None,
        reference_loss=0.2,
        outcomes=(),
        fault=None,
        action=RetrainAction(do="nothing", trigger=None, sentence="Nothing is due."),
        notes=(),
    )
    (finding,) = evaluation_alerts(result)
    assert finding.moved == "the model loses 0.02; the model loses 0.03"
    assert (finding.since, finding.at_least) == (day, True)
    alert = Alert(id="a1", status="firing", level="critical", finding=finding, began=NEXT_DAY, seen=NEXT_DAY)
    assert sentence(alert).startswith(f"{finding.moved}, at least since 2013-06-02 00:00 UTC. Likely a concept shift")
    (problem,) = alert_problems(AlertsState(alerts={"a1": alert}), NEXT_DAY)
    assert (problem.sentence, problem.since) == (finding.moved, day)
