"""A training that was asked for: what passes by itself is tried again, what does not is told, and both are remembered."""

from datetime import UTC, datetime

import pytest

from cumulant.core.errors import ContractBreachError, EngineUnavailableError
from cumulant.core.events import Actor
from cumulant.ports.access import Principal
from cumulant.project import load
from cumulant.runtime.alerts.book import read
from cumulant.runtime.watching.retraining import go_on
from cumulant.runtime.watching.standing import TRAINING, Wanted, read_wanted, write

WHO = Principal("user:ada")


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: late}\n")
    with load(tmp_path) as found:
        wanted = Wanted(asked=datetime(2026, 1, 1, tzinfo=UTC), champion="1", trigger="harm", sentence="It is worse.")
        with found.journal().transaction(actor=Actor("user:ada")) as transaction:
            write(transaction, TRAINING, "late", wanted, expect=0)
        yield found


def failing(monkeypatch, error):
    def train(*_, **__):
        raise error

    monkeypatch.setattr("cumulant.runtime.watching.retraining.train", train)


def test_a_server_that_does_not_answer_gives_no_training_up(project, monkeypatch):
    failing(monkeypatch, EngineUnavailableError("the registry does not answer"))
    for _ in range(5):
        found = go_on(project, principal=WHO)
        assert (found.stage, found.said) == ("wanted", "the registry does not answer")
    assert not read(project.journal())[0].alerts


def test_data_that_validation_refuses_end_the_training_once_and_are_told(project, monkeypatch):
    failing(monkeypatch, ContractBreachError("12% of orders were refused"))
    assert go_on(project, principal=WHO).stage == "failed"
    failing(monkeypatch, AssertionError("it was tried again"))
    assert go_on(project, principal=WHO).stage == "failed"
    (alert,) = read(project.journal())[0].alerts.values()
    assert (alert.finding.rule, "12% of orders" in alert.finding.moved) == ("retraining", True)
    facts = [event.data for event in project.journal().events(kinds=("monitoring.retraining_moved",))]
    assert [(fact["stage"], fact["reason"]) for fact in facts] == [("failed", "12% of orders were refused")]


def test_nothing_is_done_where_nothing_is_wanted(project):
    found, version = read_wanted(project.journal(), "late")
    assert found is not None
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.delete(TRAINING, "late")
    assert go_on(project, principal=WHO) is None
    assert version == 1
