"""What a rollback owes to a journal and a registry that did not answer, and what a promotion's story says of it."""

from __future__ import annotations

import json
from datetime import timedelta

import msgspec
import pytest
from release_servers import served
from releases import MOMENT, release

from cumulant.cli.app import run
from cumulant.core.errors import EngineUnavailableError, StorageError
from cumulant.core.events import Actor
from cumulant.flows.ledger.lease import LeaseRenewal, LeaseWatch, take_lease
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.release import store
from cumulant.flows.release.controller import rollback_outbox
from cumulant.flows.release.controller.rollback_outbox import (
    DELIVERY,
    RollbackOutbox,
    deliver_rollbacks,
    emit_rollback,
    list_rollbacks,
    recorded_rollbacks,
    undelivered_rollbacks,
)
from cumulant.flows.release.rollback import roll_back
from cumulant.flows.release.views import sentence, verdict, view
from cumulant.flows.stack.desired_state import Rollback, change_desired_state, read_desired_state
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.release.decide import end_release, start

ADA = Principal("user:ada", ("risk",))


def register(registry, folder, number):
    folder.mkdir(exist_ok=True)
    with registry.run("late", number, key=number) as run:
        assert registry.register(run, "late", folder, [1], tags={}, key=number).version == number


def refused_until(found, method, error):
    """`found.METHOD()` raises the error until the list that it returns is emptied."""
    whole, down = getattr(found, method), [error]

    def asked():
        if down:
            raise down[0]
        return whole()

    setattr(found, method, asked)
    return down


def test_what_a_rollback_owes_is_told_when_journal_and_registry_answer_again(late, clock, tmp_path):
    registry = late.registry()
    for number in ("1", "2"):
        register(registry, tmp_path / "servable", number)
    registry.alias("late", "champion", "2")
    served(late, "2", v1="http://127.0.0.1:1", v2="http://127.0.0.1:2")
    journal_down = refused_until(late, "journal", StorageError("the disk is gone", subject="journal"))
    registry_down = refused_until(late, "registry", EngineUnavailableError("MLflow does not answer", subject="m"))
    back = roll_back(late, "late", principal=ADA, reason="complaints", to="1", clock=clock)
    assert back.later
    assert back.missed == ("event: the disk is gone", "alias champion: MLflow does not answer")
    said = []
    deliver_rollbacks(late, said.append)
    assert said.pop() == (
        "the rollback to version 1 is not recorded yet: event: the disk is gone; alias champion: MLflow does not answer"
    )
    journal_down.clear()
    deliver_rollbacks(late, said.append)
    assert said.pop() == "the rollback to version 1 is not recorded yet: alias champion: MLflow does not answer"
    assert registry.resolve("late@champion").version == "2"
    registry_down.clear()
    deliver_rollbacks(late, said.append)
    deliver_rollbacks(late, said.append)
    assert said == ["the rollback to version 1 is recorded now: alias champion"], "once"
    assert registry.resolve("late@champion").version == "1"
    assert read_desired_state(late.state, "late").rollbacks == ()
    told = [(event.kind, event.actor, event.reason) for event in late.journal().events()]
    assert told == [
        ("release.rolled_back", "user:ada", "complaints"),
        ("model.aliased", "user:ada", "complaints"),
    ]


def test_a_rollback_whose_event_was_told_before_it_was_noted_is_told_once(late, clock):
    served(late, "1", v1="http://127.0.0.1:1", v2="http://127.0.0.1:2")
    one = Rollback(at=MOMENT, version="1", given_up=("2",), reason="x", by="user:ada", pending=("event",))
    emit_rollback(late, "late", one)
    change_desired_state(late.state, "late", lambda book: msgspec.structs.replace(book, rollbacks=(one,)))
    deliver_rollbacks(late, lambda _: None)
    assert len(list(late.journal().events(kinds=("release.rolled_back",)))) == 1


def test_an_alias_that_came_late_does_not_undo_what_came_after_it(late, tmp_path):
    registry = late.registry()
    for number in ("1", "2", "3"):
        register(registry, tmp_path / "servable", number)
    registry.alias("late", "champion", "3")
    served(late, "3", v1="http://127.0.0.1:1", v3="http://127.0.0.1:2")
    one = Rollback(at=MOMENT, version="1", given_up=("2",), reason="x", by="user:ada", pending=("alias champion",))
    change_desired_state(late.state, "late", lambda book: msgspec.structs.replace(book, rollbacks=(one,)))
    deliver_rollbacks(late, lambda _: None)
    assert registry.resolve("late@champion").version == "3"
    assert read_desired_state(late.state, "late").rollbacks == ()


def test_a_rollback_that_is_being_told_is_left_to_whoever_tells_it(late):
    served(late, "1", v1="http://127.0.0.1:1")
    one = Rollback(at=MOMENT, version="1", given_up=("2",), reason="x", by="user:ada", pending=("event",))
    change_desired_state(late.state, "late", lambda book: msgspec.structs.replace(book, rollbacks=(one,)))
    actor, watch = Actor("user:ada"), LeaseWatch()
    name = DELIVERY.format(model="late")
    busy = take_lease(late.journal(), name, ttl=60.0, actor=actor, watch=watch)
    with LeaseRenewal(busy.beat, every=0.1):
        deliver_rollbacks(late, lambda _: None)
    assert list(late.journal().events()) == []
    assert undelivered_rollbacks(late) == (one,)
    busy.release()
    gone = msgspec.structs.replace(this_process(), born="long ago")
    assert take_lease(late.journal(), name, ttl=60.0, actor=actor, watch=watch, holder=gone)
    now = [0.0]
    acting = RollbackOutbox(late, lambda _: None, steady=lambda: now[0])
    acting.tick().join()
    assert [event.kind for event in late.journal().events()] == ["release.rolled_back"]
    change_desired_state(late.state, "late", lambda book: msgspec.structs.replace(book, rollbacks=(one,)))
    assert acting.tick() is None, "half a minute after the last try at the earliest"
    now[0] = 31.0
    acting.tick().join()
    assert read_desired_state(late.state, "late").rollbacks == ()


def test_a_damaged_book_is_told_and_stops_no_round(late):
    served(late, "1", v1="http://127.0.0.1:1")
    (late.state / "stack" / "desired_state.json").write_text("{")
    said = []
    RollbackOutbox(late, said.append).tick().join()
    assert "desired_state.json cannot be read" in said[0]


@pytest.mark.parametrize("command", ["history", "status", "why"])
def test_releases_are_shown_beside_a_damaged_desired_state(tmp_path, capsys, command):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: late}\n")
    over = end_release(start(release()), "promoted", "shown", at=MOMENT)
    with load(tmp_path) as project:
        with project.journal().transaction(actor=Actor("user:ada")) as transaction:
            store.write(transaction, None, over, expect=0)
        later = MOMENT + timedelta(hours=1)
        rollback = Rollback(at=later, version="1", given_up=("2",), reason="complaints", by="user:ada")
        emit_rollback(project, "late", rollback)
        served(project, "1", v1="http://127.0.0.1:1")
        (project.state / "stack" / "desired_state.json").write_text("{")
    assert run(["release", command, "--project", str(tmp_path), "--json"]) == 0
    output = capsys.readouterr()
    document = json.loads(output.out)
    shown = document[0] if command == "history" else document
    assert shown["reason"] == "shown; ada rolled it back to version 1 at 2026-05-01 01:00:00Z: complaints"
    assert output.err.startswith("note: rollbacks that the journal has not received yet are not shown: ")
    assert "desired_state.json cannot be read" in output.err


def test_why_tells_of_a_rollback_after_the_promotion(late, clock):
    served(late, "2", v1="http://127.0.0.1:1", v2="http://127.0.0.1:2")
    over = end_release(start(release()), "promoted", "shown", at=MOMENT)
    with late.journal().transaction(actor=Actor("user:ada")) as transaction:
        store.write(transaction, None, over, expect=0)
    down = refused_until(late, "journal", StorageError("the disk is gone", subject="journal"))
    clock.sleep(3600)
    roll_back(late, "late", principal=ADA, reason="complaints", to="1", clock=clock)
    down.clear()
    said = "version 2 of late was promoted: shown; ada rolled it back to version 1 at 2026-05-01 01:00:00Z: complaints"
    assert view(over, list_rollbacks(late, "late")).sentence == said, "from the book, as the journal was not told yet"
    deliver_rollbacks(late, lambda _: None)
    assert sentence(over, list_rollbacks(late, "late")) == said
    assert verdict(over, recorded_rollbacks(late.journal(), "late")).sentence == said
    before = msgspec.structs.replace(over, begun=clock.now() + timedelta(seconds=1))
    assert sentence(before, list_rollbacks(late, "late")) == "version 2 of late was promoted: shown", "it was before"
    clock.sleep(60)
    roll_back(late, "late", principal=ADA, reason="it was right", to="2", clock=clock)
    assert sentence(over, list_rollbacks(late, "late")) == "version 2 of late was promoted: shown", "it came back"


def test_a_rollback_that_is_delivered_while_all_are_listed_is_among_them(late, clock, monkeypatch):
    served(late, "2", v1="http://127.0.0.1:1", v2="http://127.0.0.1:2")
    down = refused_until(late, "journal", StorageError("the disk is gone", subject="journal"))
    roll_back(late, "late", principal=ADA, reason="complaints", to="1", clock=clock)
    down.clear()
    read = rollback_outbox.undelivered_rollbacks

    def deliver_and_read(project):
        monkeypatch.undo()
        deliver_rollbacks(project, lambda _: None)
        return read(project)

    monkeypatch.setattr(rollback_outbox, "undelivered_rollbacks", deliver_and_read)
    assert [rollback.reason for rollback in list_rollbacks(late, "late")] == ["complaints"]


def test_why_has_the_reason_of_the_rollback_that_ended_a_release(late, clock):
    book = served(late, "1", v1="http://127.0.0.1:1", v2="http://127.0.0.1:2")
    present = late.gateway().in_force("late")
    routes = msgspec.structs.replace(present, candidate=book.arm("2", "candidate"), weight=10.0, revision=5)
    late.gateway().apply(routes)
    down = refused_until(late, "journal", StorageError("the disk is gone", subject="journal"))
    clock.sleep(3600)
    roll_back(late, "late", principal=ADA, reason="complaints", clock=clock)
    down.clear()
    beside = "all requests were sent to version 1 beside the release"
    over = end_release(start(release()), "rolled_back", beside, at=clock.now())
    with late.journal().transaction(actor=Actor("user:ada")) as transaction:
        store.write(transaction, None, over, expect=0)
    reason = f"{beside}, by ada at 2026-05-01 01:00:00Z: complaints"
    assert view(over, list_rollbacks(late, "late")).reason == reason, "the journal was not told yet"
    deliver_rollbacks(late, lambda _: None)
    shown = view(over, list_rollbacks(late, "late"))
    assert shown.reason == reason
    assert shown.sentence.endswith(reason)
    assert verdict(over, recorded_rollbacks(late.journal(), "late")).reason == reason

    clock.sleep(60)
    roll_back(late, "late", principal=ADA, reason="it was right", to="2", clock=clock)
    clock.sleep(60)
    again = roll_back(late, "late", principal=ADA, reason="slower", to="1", clock=clock)
    named = msgspec.structs.replace(over, reason="other words", rollback=late.gateway().in_force("late").rollback)
    assert again.version == "1"
    assert view(named, list_rollbacks(late, "late")).reason == "other words, by ada at 2026-05-01 01:02:00Z: slower"
    assert view(over, list_rollbacks(late, "late")).reason == reason, "a row of before routes named rollbacks"
    unknown = msgspec.structs.replace(over, rollback="2026-05-01T00:00:00+00:00/1")
    assert view(unknown, list_rollbacks(late, "late")).reason == beside, "by another one, which is not delivered yet"

    of_harm = msgspec.structs.replace(over, reason="errors rose")
    later = msgspec.structs.replace(over, begun=clock.now() + timedelta(seconds=1))
    other = msgspec.structs.replace(over, candidate=msgspec.structs.replace(over.candidate, version="3"))
    for unrelated in (of_harm, later, other):
        assert view(unrelated, list_rollbacks(late, "late")).reason == unrelated.reason
