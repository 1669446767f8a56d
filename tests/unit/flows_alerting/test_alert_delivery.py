"""Messages reach their receivers: also past hanging, refusing and dead ones, kills, and clocks that jump."""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta

import pytest
from alerts_support import ADA, START, delivering_process, finding, kinds, made, round_of, see, told, wait_for
from notify_servers import Mailbox, Web

from cumulant.core.errors import LeaseHeldError, StorageError, UsageError
from cumulant.flows.alerting import outbox
from cumulant.flows.alerting.alerts import deliver, observe, try_receivers
from cumulant.flows.alerting.background import deliver_in_background
from cumulant.flows.alerting.dispatcher import Dispatcher
from cumulant.flows.alerting.receiver_state import read_receiver_state
from cumulant.flows.alerting.store import read
from cumulant.testing.clock import ManualClock


def test_an_alert_is_told_and_its_end_too(late, web):
    see(late, finding())
    assert deliver(late, clock=ManualClock(START)) == "1 message delivered"
    see(late, hours=1)
    assert deliver(late, clock=ManualClock(START + timedelta(hours=1))) == "1 message delivered"
    assert told(web) == [("firing", "fare"), ("resolved", "fare")]
    assert web.posts[0][2]["text"].startswith("it moved, since 2026-11-24 06:00 UTC")
    assert kinds(late) == ["alert.fired", "notify.delivered", "alert.resolved", "notify.delivered"]
    assert deliver(late, clock=ManualClock(START)) == "no message waits"
    assert len(web.posts) == 2


def test_an_address_that_is_refused_is_told_where_the_others_took_it(tmp_path):
    with Mailbox(user="ada", password="p") as box:
        box.rejected = {"eve@b.de"}
        url = f"smtp://ada:p@127.0.0.1:{box.port}?from=a@b.de&to=bob@b.de,eve@b.de&tls=none"
        with made(tmp_path / "late", url) as late:
            see(late, finding())
            deliver(late, clock=ManualClock(START))
            (fact,) = [event.data for event in late.journal().events() if event.kind == "notify.delivered"]
    assert len(box.mails) == 1
    assert fact["note"] == "refused for eve@b.de"


def test_without_receivers_the_events_tell_all(tmp_path):
    with made(tmp_path / "late") as late:
        see(late, finding())
        assert kinds(late) == ["alert.fired"]
        assert deliver(late, clock=ManualClock(START)) == "no message waits"
        with pytest.raises(UsageError, match="names no receiver"):
            try_receivers(late, principal=ADA)


def test_state_and_message_are_written_together(late, monkeypatch):
    """A look that cannot be written whole leaves nothing: the next one starts where the last one ended."""

    def full(*_):
        raise LeaseHeldError("no room")

    monkeypatch.setattr(outbox, "put", full)
    with pytest.raises(LeaseHeldError):
        see(late, finding())
    assert read(late.journal())[0].alerts == {}
    assert kinds(late) == []
    monkeypatch.undo()
    see(late, finding())
    assert len(outbox.waiting(late.journal())) == 1


def test_a_receiver_that_fails_is_tried_later_and_later(late, web, clock):
    web.how = "later"
    see(late, finding())
    pauses = []
    for _ in range(12):
        deliver(late, clock=clock)
        found, _ = read_receiver_state(late.journal(), late.receivers()[0].name)
        pauses.append((found.retry - clock.now()).total_seconds())
        asked = web.asked
        clock.move((found.retry - clock.now()) / 2)
        deliver(late, clock=clock)
        assert web.asked == asked, "not before its time"
        clock.move(found.retry - clock.now())
    assert pauses == [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]
    assert kinds(late) == ["alert.fired", "notify.failed"], "told once"
    web.how = "take"
    assert deliver(late, clock=clock) == "1 message delivered"
    delivered = next(late.journal().events(kinds=("notify.delivered",)))
    assert delivered.data["failures"] == 12
    assert read_receiver_state(late.journal(), late.receivers()[0].name)[0].failures == 0


def test_a_pause_that_is_asked_for_is_kept_and_a_refusal_is_not_hurried(late, web, clock):
    see(late, finding())
    web.how, web.status, web.headers = "answer", 429, {"retry-after": "120"}
    said = deliver(late, clock=clock)
    assert said.startswith("0 messages delivered, 1 left; ")
    name = late.receivers()[0].name
    assert read_receiver_state(late.journal(), name)[0].retry == START + timedelta(seconds=120)
    clock.move(timedelta(seconds=120))
    web.status, web.headers = 404, {}
    assert "it answered 404: ok" in deliver(late, clock=clock)
    assert read_receiver_state(late.journal(), name)[0].retry == clock.now() + timedelta(minutes=5)


def test_a_clock_that_was_ahead_holds_nothing_up(late, web, clock):
    web.how = "later"
    see(late, finding())
    deliver(late, clock=clock)
    clock.move(timedelta(days=-400))
    web.how = "take"
    assert deliver(late, clock=clock) == "1 message delivered"


def test_one_that_hangs_delays_no_other(tmp_path, web):
    with Web() as hanging:
        hanging.how = "hang"
        urls = (f"http://127.0.0.1:{hanging.port}", f"http://127.0.0.1:{web.port}")
        with made(tmp_path / "late", *urls) as late:
            see(late, finding("a"), finding("b"), finding("c"))
            postman = Dispatcher(late, seconds=300)
            postman.round()
            slow, quick = late.receivers()
            wait_for(lambda: len(web.posts) == 3)
            see(late, finding("a"), finding("b"), finding("c"), finding("d"))
            wait_for(lambda: round_of(postman) and len(web.posts) == 4)
            wait_for(lambda: postman.wait(0) == [slow.name])
            wait_for(lambda: hanging.asked == 1)
            hanging.ending.set()
            assert postman.wait(60) == []
            assert read_receiver_state(late.journal(), slow.name)[0].failures == 1
            assert len(outbox.waiting(late.journal(), slow.name)) == 4, "nothing is lost"
            assert outbox.waiting(late.journal(), quick.name) == []


def test_the_end_may_wait_while_a_round_begins_a_delivery(late):
    postman = Dispatcher(late)

    class Adds(threading.Thread):
        def join(self, timeout=None):
            postman._threads["another"] = threading.Thread()

    postman._threads["one"] = Adds()
    assert postman.wait(0) == []


def test_a_kill_between_sending_and_noting_repeats_one_message_at_most(late, web):
    see(late, finding("a"), finding("b"), finding("c"))
    with delivering_process(late) as process:
        taken = web._server.RequestHandlerClass.take

        def killing(handler, body):
            taken(handler, body)
            if len(web.posts) == 2:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()

        def both(handler, body):  # the answer to the second comes when nobody is there to note it
            if len(web.posts) == 1:
                handler.say = lambda *_: None
            killing(handler, body)

        web._server.RequestHandlerClass.take = both
    assert len(outbox.waiting(late.journal())) == 2
    deliver(late, clock=ManualClock(START))
    keys = [headers["idempotency-key"] for _, headers, _ in web.posts]
    assert len(keys) == 4
    assert keys[1] == keys[2], "the one that was cut off, under its key"
    assert len(set(keys)) == 3
    assert outbox.waiting(late.journal()) == []


def test_a_journal_that_cannot_be_written_stops_nothing_for_good(late, web, monkeypatch):
    from cumulant.flows.alerting import dispatcher as postman

    def full(*_):
        raise StorageError("no space is left")

    see(late, finding())
    said = []
    acting = Dispatcher(late, clock=ManualClock(START), report=said.append)
    monkeypatch.setattr(postman, "claim", full)
    acting.round()
    assert acting.wait(60) == []
    assert said == [f"messages to {late.receivers()[0].name} wait: no space is left"]
    monkeypatch.undo()
    acting.round()
    acting.wait(60)
    assert len(web.posts) == 1


def test_a_driver_with_a_fault_of_its_own_stops_no_other(late, web, monkeypatch):
    see(late, finding())

    class Broken:
        def send(self, message, *, seconds):
            raise KeyError("what")

    monkeypatch.setattr(late, "notifier", lambda _: Broken())
    assert "a fault of its driver: KeyError" in deliver(late, clock=ManualClock(START))
    assert len(outbox.waiting(late.journal())) == 1

    def broken(_):
        raise KeyError("made")

    monkeypatch.setattr(late, "notifier", broken)
    see(late, finding("b"), finding())
    assert "fails since 2026-11-24 06:00 UTC: a fault of its driver: KeyError: 'made'" in deliver(
        late, clock=ManualClock(START)
    )


def test_beside_a_process_messages_go_out_by_themselves(late, web):
    said = []
    with deliver_in_background(late, said.append):
        observe(late, [finding()], principal=ADA)
        wait_for(lambda: len(web.posts) == 1)
    assert said == []
    assert not any(thread.name.endswith("(_run)") for thread in threading.enumerate())
