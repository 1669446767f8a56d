"""An action that writes is an event before it is done, and is not done without it."""

from datetime import timedelta

import msgspec
import pytest

from cumulant.core.errors import RefusedError, StorageError
from cumulant.core.events import Actor, Fact
from cumulant.drivers.local.sqlite import Database
from cumulant.flows.ledger.actions import ACTIONS, verb
from cumulant.flows.maintenance.schedule import ScheduledJob, tick
from cumulant.flows.registry.models import set_alias
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.testing.access import GrantedAccess

ADA = Principal("user:ada", via="http", source="192.0.2.7", trace="4bf92f3577b34da6a3ce929d0e0e4736")


class Changed(Fact, frozen=True, kw_only=True):
    kind = "test.changed"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: late}\n")
    with load(tmp_path) as loaded:
        yield loaded


def change(project, principal, *, cause=None):
    with project.journal().transaction(actor=Actor(principal.id)) as transaction:
        transaction.put("test", "row", {})
        return transaction.emit(Changed(), cause=cause)


@verb("model.alias", of="uri")
def point(project, uri, *, principal, inner=None):
    change(project, principal)
    if inner is not None:
        inner(project, principal=principal)


@verb("model.alias", of="uri")
def point_again(project, uri="late", *, principal):
    return change(project, principal)


@verb("model.tag", of="uri")
def tag(project, uri="late", *, principal):
    return change(project, principal)


@verb("subjects.erase", personal=True)
def erase(project, *, principal):
    return change(project, principal)


@verb("model.show")
def show(project, *, principal):
    return "shown"


def events(project):
    return list(project.journal().events())


def kinds(project):
    return [event.kind for event in events(project)]


def test_the_event_says_who_did_what_from_where(project, monkeypatch):
    monkeypatch.setattr(project, "access", lambda: GrantedAccess({(ADA.id, "model.alias")}))
    point(project, "late/3", principal=ADA)
    decided, changed = events(project)
    assert (decided.kind, decided.actor) == ("access.allowed", "user:ada")
    assert decided.data == {
        "action": "model.alias",
        "resource": "late",
        "policies": ["grants"],
        "via": "http",
        "token": "",
        "source": "192.0.2.7",
        "trace": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    assert (changed.kind, changed.cause) == ("test.changed", decided.id)
    assert changed.rows is not None


def test_events_after_the_call_have_no_cause(project):
    point(project, "late/3", principal=ADA)
    assert change(project, ADA).cause is None


def test_a_cause_that_is_named_stands(project):
    @verb("model.tag")
    def named(project, *, principal):
        return change(project, principal, cause="another")

    assert named(project, principal=ADA).cause == "another"


def test_equal_calls_within_a_call_are_one_event_and_others_are_not(project):
    point(project, "late/3", principal=ADA, inner=point_again)
    assert kinds(project) == ["access.allowed", "test.changed", "test.changed"]
    point(project, "late/3", principal=ADA, inner=tag)
    assert kinds(project)[3:] == ["access.allowed", "test.changed", "access.allowed", "test.changed"]
    point_again(project, principal=ADA)
    assert kinds(project)[7:] == ["access.allowed", "test.changed"]


def test_a_call_for_another_resource_or_by_another_principal_is_an_event_of_its_own(project):
    point(project, "late/3", principal=ADA, inner=lambda project, principal: point(project, "other", principal=ADA))
    assert kinds(project).count("access.allowed") == 2
    eve = msgspec.structs.replace(ADA, id="user:eve")
    point(project, "late/3", principal=ADA, inner=lambda project, principal: point(project, "late", principal=eve))
    assert [event.actor for event in events(project) if event.kind == "access.allowed"][2:] == [ADA.id, eve.id]


def test_a_call_that_failed_was_recorded_and_the_next_one_is_too(project):
    def fail(project, principal):
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):
            point(project, "late/3", principal=ADA, inner=fail)
    assert kinds(project) == ["access.allowed", "test.changed"] * 2


def test_reads_are_not_recorded_unless_they_are_personal(project):
    assert show(project, principal=ADA) == "shown"
    assert kinds(project) == []
    erase(project, principal=ADA)
    assert kinds(project) == ["access.personal_data_read", "test.changed"]


def test_the_own_schedule_of_a_process_is_not_recorded(project):
    point(project, "late/3", principal=msgspec.structs.replace(ADA, via="service"))
    assert kinds(project) == ["test.changed"]
    job = ScheduledJob(name="test", every=timedelta(hours=1), run=lambda project: "done")
    tick(project, principal=ADA, jobs=[job])
    assert kinds(project) == ["test.changed"]


def test_these_actions_alone_are_recorded_by_what_they_did():
    routine = [name for name, action in ACTIONS.items() if action.routine]
    assert set(routine) == {
        "features.verify",
        "stack.down",
        "project.tick",
        "events.checkpoint",
        "release.rollback",
        "alerts.observe",
    }


def test_without_a_record_there_is_no_action(project, monkeypatch):
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.put("test", "before", {})
    calls = []

    @verb("model.tag")
    def act(project, *, principal):
        calls.append("acted")

    monkeypatch.setattr(project.journal(), "transaction", broken)
    with pytest.raises(StorageError):
        act(project, principal=ADA)
    with pytest.raises(StorageError):
        erase(project, principal=ADA)
    assert calls == []


def broken(**_):
    raise StorageError("the disk of the journal is full")


def test_an_action_that_writes_fails_where_the_journal_is_read_only(project, monkeypatch):
    change(project, ADA)
    project.journal().close()
    monkeypatch.setattr(Database, "frozen", property(lambda _: True))  # root may write everywhere
    with pytest.raises(StorageError, match="can be read but not written"):
        set_alias(project, "late/3", "champion", principal=ADA)


def test_a_refusal_says_who_and_from_where(project, monkeypatch):
    monkeypatch.setattr(project, "access", GrantedAccess)
    with pytest.raises(RefusedError):
        tag(project, principal=ADA)
    (refused,) = events(project)
    assert {name: refused.data[name] for name in ("via", "source", "trace")} == {
        "via": "http",
        "source": ADA.source,
        "trace": ADA.trace,
    }
