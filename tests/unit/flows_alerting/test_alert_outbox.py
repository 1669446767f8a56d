"""What waits for a receiver: in its order, once, bounded, and sent by one process at a time."""

from __future__ import annotations

import os
from datetime import timedelta

import msgspec
import pytest
from alerts_support import START, end_holder, finding, kinds, made, notice, see, told
from hypothesis import given, settings
from hypothesis import strategies as st
from notify_servers import Web

from cumulant.alerting.delivery import MOST
from cumulant.core.errors import EngineUnavailableError, LeaseHeldError
from cumulant.core.events import Actor
from cumulant.flows.alerting import outbox, receiver_state
from cumulant.flows.alerting.alerts import deliver
from cumulant.flows.alerting.dispatcher import Dispatcher
from cumulant.flows.alerting.receiver_state import CLAIM_SECONDS, ReceiverState, claim, write
from cumulant.flows.alerting.views import receiver_views
from cumulant.flows.ledger.lease import LeaseWatch
from cumulant.flows.ledger.processes import Process, process_of, this_process
from cumulant.testing.clock import ManualClock
from cumulant.testing.journal import MemoryJournal
from cumulant.testing.notifier import MemoryNotifier


class Fragile(MemoryNotifier):
    """Takes messages, or fails, or ends whoever sends after it took one."""

    how = "take"

    def send(self, message, *, seconds):
        if self.how == "fail":
            raise EngineUnavailableError("not now")
        super().send(message, seconds=seconds)
        if self.how == "end":
            raise SystemExit  # as a kill would: nothing is noted


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["see", "take", "fail", "end"]), max_size=25))
def test_whatever_happens_each_message_arrives_in_its_order(fragile, steps):
    late, clock, fragile = made_again(fragile)
    number = 0
    for step in [*steps, "take"]:
        clock.move(timedelta(hours=2))  # past any pause
        if step == "see":
            number += 1
            with late.journal().transaction(actor=Actor("x")) as transaction:
                outbox.put(transaction, late.receivers(), [notice(number)])
        else:
            fragile.how = step
            try:
                Dispatcher(late, clock=clock)._serve(late.receivers()[0])
            except SystemExit:
                end_holder(late.journal(), late.receivers()[0].name)
    keys = [int(message.key) for message in fragile.taken]
    assert list(dict.fromkeys(keys)) == list(range(1, number + 1)), "none is lost, none comes before its time"
    assert len(keys) - number <= steps.count("end"), "each kill repeats one at most"
    assert outbox.waiting(late.journal()) == []


@pytest.fixture(scope="module")
def fragile(tmp_path_factory):
    with made(tmp_path_factory.mktemp("late"), "https://127.0.0.1/hook") as late:
        yield late


def made_again(late):
    """The project with an empty journal, a clock and a receiver of its own."""
    clock, taker = ManualClock(START), Fragile()
    journal = MemoryJournal(clock=clock)
    late.journal, late.notifier = lambda: journal, lambda _: taker
    return late, clock, taker


def test_who_delivers_is_one(late, web):
    see(late, finding())
    name = late.receivers()[0].name
    other = process_of(os.getppid())
    with late.journal().transaction(actor=Actor("x")) as transaction:
        version = write(transaction, name, ReceiverState(holder=other), 0)
    deliver(late, clock=ManualClock(START))
    assert web.posts == []
    gone = msgspec.structs.replace(other, born="1", pid=2**22 + 5)
    with late.journal().transaction(actor=Actor("x")) as transaction:
        write(transaction, name, ReceiverState(holder=gone), version)
    deliver(late, clock=ManualClock(START))
    assert len(web.posts) == 1


def test_a_claim_is_taken_over_when_it_is_not_renewed_and_its_holder_notes_nothing(late):
    name, now = late.receivers()[0].name, [0.0]
    watch = LeaseWatch(lambda: now[0])
    held, version = claim(late.journal(), name, START, watch)
    assert held.holder == this_process()
    assert claim(late.journal(), name, START, watch) is None
    for now[0] in (CLAIM_SECONDS / 2, CLAIM_SECONDS):
        assert claim(late.journal(), name, START, watch) is None
    now[0] += 0.1
    assert claim(late.journal(), name, START, watch) is not None
    with pytest.raises(LeaseHeldError), late.journal().transaction(actor=Actor("x")) as transaction:
        write(transaction, name, held, version)


def test_what_a_machine_had_claimed_that_is_gone_is_delivered(late, web, monkeypatch):
    monkeypatch.setattr(receiver_state, "CLAIM_SECONDS", 0.5)
    see(late, finding())
    with late.journal().transaction(actor=Actor("x")) as transaction:
        write(transaction, late.receivers()[0].name, ReceiverState(holder=Process("elsewhere:0", 1, "1")), 0)
    deliver(late, clock=ManualClock(START))
    assert len(web.posts) == 1


def test_of_a_receiver_that_is_dead_for_days_the_outbox_is_bounded(late, web, clock):
    web.how = "later"
    name = late.receivers()[0].name
    messages = [notice(number, "critical" if number % 50 == 0 else "info") for number in range(MOST + 30)]
    for part in (messages[:150], messages[150:215], messages[215:]):
        with late.journal().transaction(actor=Actor("x")) as transaction:
            outbox.put(transaction, late.receivers(), part)
    kept = [entry.message.key for entry in outbox.waiting(late.journal())]
    assert len(kept) == MOST
    assert [key for key in kept if int(key) < 31] == ["0"], "the critical one stays"
    assert kept == sorted(kept, key=int), "in their order"
    assert kinds(late) == ["notify.left_out"], "told once"
    deliver(late, clock=clock)
    assert receiver_views(late)[0].left_out == 30
    web.how = "take"
    clock.move(timedelta(hours=1))
    deliver(late, clock=clock)
    assert "30 messages since 2026-11-24 06:01 UTC were left out" in web.posts[0][2]["text"]
    assert len(web.posts) == MOST + 1
    assert outbox.left_out(late.journal(), name) is None


def test_a_message_is_put_once(late):
    for _ in range(3):
        with late.journal().transaction(actor=Actor("x")) as transaction:
            outbox.put(transaction, late.receivers(), [notice(1), notice(1)])
    assert len(outbox.waiting(late.journal())) == 1


def test_messages_for_a_receiver_that_is_named_no_more_go(late, tmp_path):
    see(late, finding())
    late.close()
    with made(tmp_path / "late") as now:
        deliver(now, clock=ManualClock(START))
        assert outbox.waiting(now.journal()) == []
        [event] = now.journal().events(kinds=("notify.left_out",))
        assert event.data["reason"] == "monitoring.notify no longer names it"


def test_an_address_that_is_put_right_gets_what_waited(late, web, tmp_path):
    see(late, finding("a"))
    web.how = "refuse"
    deliver(late, clock=ManualClock(START))
    see(late, finding("a"), finding("b"), hours=0)
    late.close()
    with Web() as right, made(tmp_path / "late", f"http://127.0.0.1:{right.port}/hook") as now:
        assert deliver(now, clock=ManualClock(START)) == "2 messages delivered"
        assert told(right) == [("firing", "a"), ("firing", "b")]
        assert list(now.journal().events(kinds=("notify.left_out",))) == []
        assert len(now.journal().rows("notify_receiver")) == 1
