"""A message that its receiver refuses for good holds up no other, and is kept, shown and tried again."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

import pytest
from alerts_support import ADA, START, delivering_process, end_holder
from hypothesis import given, settings
from hypothesis import strategies as st
from notify_servers import Mailbox, Web

from cumulant.alerting.alert_state import Finding
from cumulant.alerting.delivery import MOST
from cumulant.core.errors import NotFoundError, RefusedError, UndeliverableError, UsageError
from cumulant.core.events import Actor
from cumulant.core.prometheus import Series
from cumulant.flows.alerting import outbox
from cumulant.flows.alerting.alerts import advance, deliver, observe
from cumulant.flows.alerting.dispatcher import Dispatcher
from cumulant.flows.alerting.manual_retry import drop, retry
from cumulant.flows.alerting.receiver_state import read_receiver_state
from cumulant.flows.alerting.views import overview
from cumulant.flows.observe.alert_metrics import alert_series
from cumulant.ports.notifier import Message
from cumulant.project.file.loading import load
from cumulant.testing.clock import ManualClock
from cumulant.testing.journal import MemoryJournal
from cumulant.testing.notifier import MemoryNotifier

DAY = timedelta(days=1)


@pytest.fixture
def web():
    with Web() as found:
        found.how, found.status = "choose", 400
        yield found


def made(folder, url):
    folder.mkdir(exist_ok=True)
    (folder / "cumulant.yaml").write_text(
        "version: 1\nmodel: {name: late}\nmonitoring:\n"
        f"  notify: ['{url}']\n  alerts: {{resolve_after: 0s, reminders: 0}}\n"
    )
    return load(folder)


@pytest.fixture
def late(tmp_path, web):
    with made(tmp_path / "late", f"http://127.0.0.1:{web.port}/hook") as found:
        yield found


def see(project, *subjects, at=START, level=None):
    found = [
        Finding(model="late", rule="quality", subject=one, moved="it moved", since=START, level=level)
        for one in subjects
    ]
    observe(project, found, principal=ADA, clock=ManualClock(at))


def told(web):
    return [document["subject"] for _, _, document in web.posts]


def refused(project):
    return [(one.title.split()[3], one.tries, one.aside) for one in overview(project, principal=ADA).refused]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_message_holds_up_no_other(late, web, clock, status):
    web.status = status
    see(late, "a", "poison", "z")
    said = deliver(late, clock=clock)
    assert told(web) == ["a", "z"]
    assert "2 messages delivered, 1 left; " in said
    assert f'refuses "warning: quality in poison of late": it answered {status}: not like this' in said
    assert read_receiver_state(late.journal(), late.receivers()[0].name)[0].failures == 0
    see(late, "a", "poison", "z", "zz")
    deliver(late, clock=clock)
    assert told(web) == ["a", "z", "zz"], "also what comes later"
    assert web.asked == 4, "and it is not asked again before its time"


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_what_would_befall_any_message_keeps_the_order(late, web, clock, status):
    web.status = status
    see(late, "a", "poison", "z")
    deliver(late, clock=clock)
    assert told(web) == ["a"]
    web.how = "take"
    clock.move(timedelta(hours=1))
    deliver(late, clock=clock)
    assert told(web) == ["a", "poison", "z"]


def test_after_three_tries_it_is_set_aside_told_and_tried_once_a_day(late, web, clock):
    see(late, "poison")
    asked = []
    for _ in range(5):
        deliver(late, clock=clock)
        asked.append(web.asked - len(web.posts))
        clock.move(timedelta(minutes=10))
    assert asked == [1, 2, 3, 3, 3]
    assert refused(late) == [("poison", 3, True)]
    [notice] = [document for _, _, document in web.posts]
    assert notice["title"] == "warning: a message of late cannot be delivered"
    assert "it answered 400: not like this" in notice["text"]
    [event] = late.journal().events(kinds=("notify.refused",))
    assert event.data["fault"] == "it answered 400: not like this"
    assert Series("cumulant_messages_refused", (late.receivers()[0].name,), 1) in alert_series(late.journal())
    web.how = "take"
    clock.move(DAY)
    deliver(late, clock=clock)
    assert told(web) == ["messages", "poison"]
    assert refused(late) == []
    assert outbox.refusals(late.journal()) == {}


def test_a_receiver_that_refuses_everything_fails_and_gets_all_when_it_is_mended(late, web, clock):
    web.disliked = b"it moved"
    see(late, "a", "b", "c", "d", "e")
    said = deliver(late, clock=clock)
    assert web.asked == 3, "whatever it is sent"
    assert "fails since 2026-11-24 06:00 UTC: it answered 400: not like this" in said
    clock.move(timedelta(minutes=1))
    deliver(late, clock=clock)
    assert web.asked == 3, "it has its pause as any other that fails"
    web.how = "take"
    clock.move(timedelta(minutes=5))
    assert deliver(late, clock=clock) == "5 messages delivered"
    assert told(web) == ["a", "b", "c", "d", "e"]


def test_several_refused_ones_in_a_row_end_aside_and_let_the_others_go(late, web, clock):
    see(late, "poison1", "poison2", "poison3", "poison4", "z")
    for _ in range(12):
        deliver(late, clock=clock)
        clock.move(timedelta(minutes=10))
    assert told(web)[0] == "z"
    assert refused(late) == [(f"poison{number}", 3, True) for number in (1, 2, 3, 4)]


def killed_at(late, web, part):
    """A process that delivers is killed while the receiver has the message that holds `part`, which it does not answer."""
    with delivering_process(late) as process:
        handler = web._server.RequestHandlerClass
        choose = handler.choose

        def killing(one, body):
            if part in body and process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                one.close_connection = True
            else:
                choose(one, body)

        handler.choose = killing


def test_a_kill_at_the_refusal_loses_nothing(late, web, clock):
    """The receiver refuses, and whoever should note it is gone: the message is tried once more, the rest arrives once."""
    see(late, "a", "poison", "z")
    killed_at(late, web, web.disliked)
    assert told(web) == ["a"]
    assert refused(late) == []
    deliver(late, clock=clock)
    assert told(web) == ["a", "z"]
    assert refused(late) == [("poison", 1, False)]


def test_a_kill_after_the_refusal_was_noted_does_not_forget_it(late, web, clock):
    see(late, "a", "poison", "z")
    killed_at(late, web, b'"z"')
    assert refused(late) == [("poison", 1, False)]
    deliver(late, clock=clock)
    assert told(web) == ["a", "z"]
    assert refused(late) == [("poison", 1, False)], "it waits for its time"


def test_a_mail_that_is_refused_after_its_text_holds_up_no_other(tmp_path, clock):
    with Mailbox(user="ada", password="p") as box:
        box.disliked = b"poison"
        url = f"smtp://ada:p@127.0.0.1:{box.port}?from=a@b.de&to=bob@b.de&tls=none"
        with made(tmp_path / "late", url) as late:
            see(late, "a", "poison", "z")
            deliver(late, clock=clock)
            assert [mail["x-cumulant-subject"] for _, _, mail in box.mails] == ["a", "z"]
            assert overview(late, principal=ADA).refused[0].fault == "the mail server answered 554: not like this"


# Receivers that keep alerts -----------------------------------------------------------------------------------------


def test_what_keeps_alerts_is_never_told_late_what_is_no_longer_so(tmp_path, web, clock):
    with made(tmp_path / "late", f"alertmanager://127.0.0.1:{web.port}") as late:
        see(late, "a", "poison")
        deliver(late, clock=clock)
        assert [one[0]["labels"]["subject"] for _, _, one in web.posts] == ["a", "a"], "told, and told again"
        assert refused(late) == [("poison", 1, False)]
        clock.move(timedelta(minutes=5))
        web.how = "take"
        see(late, "a", at=clock.now())
        deliver(late, clock=clock)
        assert refused(late) == []
        summaries = [one[0]["annotations"]["summary"] for _, _, one in web.posts]
        assert "warning: quality in poison of late" not in summaries, "it would fire for ever"
        assert "resolved: quality in poison of late" in summaries
        [event] = late.journal().events(kinds=("notify.left_out",))
        assert event.data["reason"] == "it was refused, and is no longer true"


def test_what_is_refused_when_it_is_told_again_holds_up_no_other(tmp_path, web, clock):
    web.how = "take"
    with made(tmp_path / "late", f"alertmanager://127.0.0.1:{web.port}") as late:
        see(late, "a", "poison", "z")
        deliver(late, clock=clock)
        before = len(web.posts)
        web.how = "choose"
        clock.move(timedelta(minutes=5))
        deliver(late, clock=clock)
        assert [one[0]["labels"]["subject"] for _, _, one in web.posts[before:]] == ["a", "z"]
        assert refused(late) == [("poison", 1, False)]


# What people do -----------------------------------------------------------------------------------------------------


def test_people_retry_when_they_have_mended_the_receiver(late, web, clock):
    see(late, "poison", "a")
    for _ in range(3):
        deliver(late, clock=clock)
        clock.move(timedelta(minutes=10))
    name = overview(late, principal=ADA).refused[0].message
    still = retry(late, principal=ADA, message=name[:6], clock=clock)
    assert [(one.tries, one.message) for one in still.refused] == [(4, name)]
    web.how = "take"
    done = retry(late, principal=ADA, clock=clock)
    assert (done.sentence, done.refused) == ("1 message delivered", [])
    assert told(web)[-1] == "poison"
    with pytest.raises(NotFoundError, match="no refused message"):
        retry(late, principal=ADA, message=name)
    with pytest.raises(NotFoundError, match="no receiver"):
        retry(late, principal=ADA, receiver="nobody")


def test_a_retry_ends_the_pause_of_a_receiver_that_failed(late, web, clock):
    web.how = "later"
    see(late, "a")
    deliver(late, clock=clock)
    web.how = "take"
    assert deliver(late, clock=clock).startswith("0 messages delivered, 1 left")
    assert retry(late, principal=ADA, clock=clock).sentence == "1 message delivered"


def test_people_drop_what_nobody_needs(late, web, clock):
    see(late, "poison", "poison2")
    deliver(late, clock=clock)
    first, second = overview(late, principal=ADA).refused
    with pytest.raises(UsageError, match="no message is named"):
        drop(late, "", principal=ADA)
    assert [one.message for one in drop(late, first.message, principal=ADA, reason="told by hand")] == [first.message]
    assert [one.message for one in overview(late, principal=ADA).refused] == [second.message]
    [event] = late.journal().events(kinds=("notify.left_out",))
    assert (event.data["reason"], event.reason) == (f'"{first.title}" was refused, and dropped', "told by hand")
    assert len(overview(late, principal=ADA).alerts) == 2, "the alerts stay"


def test_who_may_not(late, monkeypatch):
    from cumulant.testing.access import GrantedAccess

    monkeypatch.setattr(late, "access", lambda: GrantedAccess(set()))
    with pytest.raises(RefusedError):
        retry(late, principal=ADA)
    with pytest.raises(RefusedError):
        drop(late, "x", principal=ADA)


def test_of_many_that_wait_those_set_aside_go_first(late, web, clock):
    see(late, "poison", level="critical")
    for _ in range(3):
        deliver(late, clock=clock)
        clock.move(timedelta(minutes=10))
    with late.journal().transaction(actor=Actor("x")) as transaction:
        outbox.put(transaction, late.receivers(), [notice(number) for number in range(MOST)])
    assert refused(late) == []
    assert outbox.refusals(late.journal()) == {}
    assert len(outbox.waiting(late.journal())) == MOST


def notice(number):
    return Message(
        key=str(number),
        kind="notice",
        status="notice",
        level="info",
        model="late",
        rule="x",
        subject="y",
        title="t",
        text="t",
        at=START + timedelta(minutes=number),
    )


def test_of_a_receiver_that_is_named_no_more_nothing_is_left(late, tmp_path, clock):
    see(late, "poison")
    deliver(late, clock=clock)
    late.close()
    with Web() as right, made(tmp_path / "late", f"http://127.0.0.1:{right.port}/hook") as now:
        advance(now, clock=clock)
        assert outbox.refusals(now.journal()) == {}
        deliver(now, clock=clock)
        assert told(right) == ["poison"]


class Choosy(MemoryNotifier):
    """Refuses messages by their number, or ends whoever sends."""

    def __init__(self, poison):
        super().__init__()
        self.poison, self.end = poison, False

    def send(self, message, *, seconds):
        if self.end:
            self.end = False
            raise SystemExit  # as a kill would
        if message.kind == "notice" and message.key in self.poison:
            raise UndeliverableError("not like this")
        return super().send(message, seconds=seconds)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with made(tmp_path_factory.mktemp("late"), "https://127.0.0.1/hook") as late:
        yield late


@settings(deadline=None, max_examples=60)
@given(
    steps=st.lists(st.sampled_from(["see", "deliver", "end"]), max_size=25),
    poison=st.sets(st.integers(1, 12).map(str)),
)
def test_whatever_is_refused_the_others_arrive_and_nothing_is_lost(project, steps, poison):
    clock, taker = ManualClock(START), Choosy(poison)
    journal = MemoryJournal(clock=clock)
    project.journal, project.notifier = lambda: journal, lambda _: taker
    number = 0
    for step in [*steps, *["deliver"] * 20]:
        clock.move(timedelta(hours=2))
        if step == "see":
            number += 1
            with journal.transaction(actor=Actor("x")) as transaction:
                outbox.put(transaction, project.receivers(), [notice(number)])
        else:
            taker.end = step == "end"
            try:
                Dispatcher(project, clock=clock)._serve(project.receivers()[0])
            except SystemExit:
                end_holder(journal, project.receivers()[0].name)
    keys = [one.key for one in taker.taken if one.rule != "refused"]
    sent = [str(one) for one in range(1, number + 1)]
    assert keys == [key for key in sent if key not in poison], "in their order, once each"
    assert [one.message.key for one in outbox.waiting(journal)] == [key for key in sent if key in poison]
    assert len(outbox.refusals(journal)) == len(poison & set(sent))
