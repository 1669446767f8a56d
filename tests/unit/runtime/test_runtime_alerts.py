"""Messages reach their receivers: also past hanging, refusing and dead ones, kills, and clocks that jump."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "conformance"))
from notify_servers import Mailbox, Web

from cumulant.core.errors import (
    EngineUnavailableError,
    LeaseHeldError,
    NotFoundError,
    ProjectFileError,
    RefusedError,
    StorageError,
    UsageError,
)
from cumulant.core.events import Actor
from cumulant.monitoring.alerts import Finding, policy
from cumulant.ports.access import Principal
from cumulant.ports.notifier import Message
from cumulant.project import load
from cumulant.runtime.alerts import outbox
from cumulant.runtime.alerts.background import delivering
from cumulant.runtime.alerts.book import read
from cumulant.runtime.alerts.flow import (
    acknowledge,
    advance,
    deliver,
    observe,
    show,
    silence,
    try_receivers,
    unsilence,
)
from cumulant.runtime.alerts.metrics import exposition
from cumulant.runtime.alerts.postman import Postman
from cumulant.runtime.alerts.standing import Standing, claim, failed, is_due, standing, write
from cumulant.runtime.alerts.views import overview, receiver_views
from cumulant.runtime.processes import process_of, this_process
from cumulant.testing import ManualClock, MemoryJournal, MemoryNotifier

ADA = Principal("user:ada")
START = datetime(2026, 11, 24, 6, tzinfo=UTC)


@pytest.fixture
def web():
    with Web() as found:
        yield found


@pytest.fixture
def clock():
    return ManualClock(START)


def made(folder, *urls, more=""):
    listed = ", ".join(f'"{url}"' for url in urls)
    folder.mkdir(exist_ok=True)
    text = f"version: 1\nmodel: {{name: late}}\nmonitoring:\n  notify: [{listed}]\n  alerts: {{resolve_after: 0s}}\n"
    (folder / "cumulant.yaml").write_text(text + more)
    return load(folder)


@pytest.fixture
def late(tmp_path, web):
    with made(tmp_path / "late", f"http://127.0.0.1:{web.port}/hook") as found:
        yield found


def finding(subject="fare", rule="feed", **other):
    named = {"model": "late", "moved": "it moved", "since": START} | other
    return Finding(rule=rule, subject=subject, **named)


def see(project, *found, hours=0, **other):
    return observe(project, found, principal=ADA, clock=ManualClock(START + timedelta(hours=hours)), **other)


def told(web):
    return [(document["status"], document["subject"]) for _, _, document in web.posts]


def kinds(project):
    return [event.kind for event in project.journal().events()]


# The way of a message -----------------------------------------------------------------------------------------------


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
    assert fact["said"] == "refused for eve@b.de"


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
        found, _ = standing(late.journal(), late.receivers()[0].name)
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
    assert standing(late.journal(), late.receivers()[0].name)[0].failures == 0


def test_a_pause_that_is_asked_for_is_kept_and_a_refusal_is_not_hurried(late, web, clock):
    see(late, finding())
    web.how, web.status, web.headers = "answer", 429, {"retry-after": "120"}
    said = deliver(late, clock=clock)
    assert said.startswith("0 messages delivered, 1 left; ")
    name = late.receivers()[0].name
    assert standing(late.journal(), name)[0].retry == START + timedelta(seconds=120)
    clock.move(timedelta(seconds=120))
    web.status, web.headers = 404, {}
    assert "it answered 404: ok" in deliver(late, clock=clock)
    assert standing(late.journal(), name)[0].retry == clock.now() + timedelta(minutes=5)


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
            postman = Postman(late, seconds=300)
            postman.round()
            slow, quick = late.receivers()
            wait_for(lambda: len(web.posts) == 3)
            see(late, finding("a"), finding("b"), finding("c"), finding("d"))
            wait_for(lambda: round_of(postman) and len(web.posts) == 4)
            wait_for(lambda: postman.wait(0) == [slow.name])
            assert hanging.asked == 1
            hanging.ending.set()
            assert postman.wait(60) == []
            assert standing(late.journal(), slow.name)[0].failures == 1
            assert len(outbox.waiting(late.journal(), slow.name)) == 4, "nothing is lost"
            assert outbox.waiting(late.journal(), quick.name) == []


def round_of(postman):
    postman.round()
    return True


def wait_for(what):
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


PROGRAM = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from cumulant.project import load
from cumulant.runtime.alerts.flow import deliver
from cumulant.testing import ManualClock
print("here", flush=True)
sys.stdin.readline()
late = load(Path(sys.argv[1]))
deliver(late, clock=ManualClock(datetime(2026, 11, 24, 6, tzinfo=UTC)))
"""


def test_a_kill_between_sending_and_noting_repeats_one_message_at_most(late, web):
    see(late, finding("a"), finding("b"), finding("c"))
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(late.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
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
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(60)
    assert len(outbox.waiting(late.journal())) == 2
    deliver(late, clock=ManualClock(START))
    keys = [headers["idempotency-key"] for _, headers, _ in web.posts]
    assert len(keys) == 4
    assert keys[1] == keys[2], "the one that was cut off, under its key"
    assert len(set(keys)) == 3
    assert outbox.waiting(late.journal()) == []


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
        clock.move(timedelta(hours=2))  # past any pause, and past the claim of one that ended
        if step == "see":
            number += 1
            with late.journal().transaction(actor=Actor("x")) as transaction:
                outbox.put(transaction, late.receivers(), [notice(number)])
        else:
            fragile.how = step
            with contextlib.suppress(SystemExit):
                Postman(late, clock=clock)._serve(late.receivers()[0])
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
    name, now = late.receivers()[0].name, START
    other = process_of(os.getppid())
    with late.journal().transaction(actor=Actor("x")) as transaction:
        version = write(transaction, name, Standing(holder=other, claimed=now), 0)
    deliver(late, clock=ManualClock(START))
    assert web.posts == []
    gone = msgspec.structs.replace(other, born="1", pid=2**22 + 5)
    with late.journal().transaction(actor=Actor("x")) as transaction:
        write(transaction, name, Standing(holder=gone, claimed=now), version)
    deliver(late, clock=ManualClock(START))
    assert len(web.posts) == 1


def test_a_claim_is_taken_over_when_it_is_not_renewed_and_its_holder_notes_nothing(late):
    name = late.receivers()[0].name
    held, version = claim(late.journal(), name, START)
    assert held.holder == this_process()
    assert claim(late.journal(), name, START + timedelta(minutes=2)) is None
    assert claim(late.journal(), name, START + timedelta(minutes=3)) is not None
    with pytest.raises(LeaseHeldError), late.journal().transaction(actor=Actor("x")) as transaction:
        write(transaction, name, held, version)


def test_of_a_receiver_that_is_dead_for_days_the_outbox_is_bounded(late, web, clock):
    web.how = "later"
    name = late.receivers()[0].name
    messages = [notice(number, "critical" if number % 50 == 0 else "info") for number in range(outbox.MOST + 30)]
    for part in (messages[:150], messages[150:215], messages[215:]):
        with late.journal().transaction(actor=Actor("x")) as transaction:
            outbox.put(transaction, late.receivers(), part)
    kept = [entry.message.key for entry in outbox.waiting(late.journal())]
    assert len(kept) == outbox.MOST
    assert [key for key in kept if int(key) < 31] == ["0"], "the critical one stays"
    assert kept == sorted(kept, key=int), "in their order"
    assert kinds(late) == ["notify.left_out"], "told once"
    deliver(late, clock=clock)
    assert receiver_views(late)[0].left_out == 30
    web.how = "take"
    clock.move(timedelta(hours=1))
    deliver(late, clock=clock)
    assert "30 messages since 2026-11-24 06:01 UTC were left out" in web.posts[0][2]["text"]
    assert len(web.posts) == outbox.MOST + 1
    assert outbox.left_out(late.journal(), name) is None


def notice(number, level="info"):
    return Message(key=str(number), kind="notice", status="notice", level=level, model="late", rule="x", subject="y",
                   title="t", text="t", at=START + timedelta(minutes=number))  # fmt: skip


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


def test_a_journal_that_cannot_be_written_stops_nothing_for_good(late, web, monkeypatch):
    from cumulant.runtime.alerts import postman

    def full(*_):
        raise StorageError("no space is left")

    see(late, finding())
    said = []
    acting = Postman(late, clock=ManualClock(START), report=said.append)
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
    with delivering(late, said.append):
        observe(late, [finding()], principal=ADA)
        wait_for(lambda: len(web.posts) == 1)
    assert said == []
    assert not any(thread.name.endswith("(_run)") for thread in threading.enumerate())


# Secrets and addresses ----------------------------------------------------------------------------------------------


def test_a_url_that_is_a_secret_is_shown_nowhere(tmp_path, web, monkeypatch):
    token = "T0ken-that-nobody-sees"
    monkeypatch.setenv("CHAT", f"http://127.0.0.1:{web.port}/services/{token}")
    literal = f"webhook+http://ada:{token}@127.0.0.1:{web.port}/hook/{token}?a={token}"
    with made(tmp_path / "late", "slack+${secret:CHAT}", literal) as late:
        late.check_drivers()
        web.how = "refuse"
        see(late, finding())
        said = deliver(late, clock=ManualClock(START))
        web.how = "take"
        tried = try_receivers(late, principal=ADA)
        shown = overview(late, principal=ADA)
        assert [one.taken for one in tried] == [True, True]
        events = [msgspec.to_builtins(event) for event in late.journal().events()]
        assert token not in f"{said} {tried} {shown} {events}"
        assert [one.url for one in tried] == ["slack+${secret:CHAT}", f"webhook+http://127.0.0.1:{web.port}/***"]
        assert b"T0ken" not in (late.state / "journal.db").read_bytes()
    assert {path for path, *_ in web.posts} == {f"/services/{token}", f"/hook/{token}?a={token}"}


def test_a_secret_that_is_gone_loses_nothing(tmp_path, web, monkeypatch, clock):
    with made(tmp_path / "late", "${secret:CHAT}") as late:
        see(late, finding())
        assert "no secret named CHAT" in deliver(late, clock=clock)
        clock.move(timedelta(hours=1))
        monkeypatch.setenv("CHAT", f"http://127.0.0.1:{web.port}")
        assert deliver(late, clock=clock) == "1 message delivered"


@pytest.mark.parametrize(("written", "secret"), [("alertmanager+${secret:AM}", ""), ("${secret:AM}", "alertmanager+")])
def test_what_keeps_alerts_is_known_behind_a_secret(tmp_path, web, monkeypatch, clock, written, secret):
    with made(tmp_path / "late", written) as late:
        late.check_drivers()
        [before] = late.receivers()
        assert before.keeps_state is (not secret), "while the secret is not to be had"
        monkeypatch.setenv("AM", f"{secret}http://127.0.0.1:{web.port}/prefix")
        [receiver] = late.receivers()
        assert receiver.keeps_state
        assert receiver.name == before.name
        see(late, finding("a"))
        deliver(late, clock=clock)
        assert {path for path, *_ in web.posts} == {"/prefix/api/v2/alerts"}
        assert labels(web) == ["a", "a"]


def test_a_secret_that_was_replaced_is_taken_while_the_process_runs(tmp_path, web, clock):
    """The token of a receiver is replaced: the old one is refused, the new one is used by the same process."""
    with Web() as old, made(tmp_path / "late", "slack+${secret:CHAT}") as late:
        age = [0.0]
        late.vault._seconds = lambda: age[0]
        write_secret(late, f"http://127.0.0.1:{old.port}/first-token")
        see(late, finding("a"))
        assert deliver(late, clock=clock) == "1 message delivered"
        write_secret(late, f"http://127.0.0.1:{web.port}/second-token")
        old.how = "refuse"
        see(late, finding("a"), finding("b"))
        assert "it answered 403" in deliver(late, clock=clock)
        clock.move(timedelta(minutes=5))
        age[0] += 300
        assert deliver(late, clock=clock) == "1 message delivered"
        assert [path for path, *_ in web.posts] == ["/second-token"]
        for port, token in ((old.port, "first-token"), (web.port, "second-token")):
            assert late.vault.redact(f"at http://127.0.0.1:{port}/{token}") == "at ${secret:CHAT}"


def write_secret(late, value):
    file = late.root / ".cumulant" / "secrets"
    file.parent.mkdir(exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(f"CHAT={value}\n")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("slak+https://h/x", 'no driver for "slak+https://"'),
        ("slak+${secret:CHAT}", 'no driver for "slak+https://"'),
        ("sqlite:///x", "cannot serve as notifier"),
        ("//h", "names no driver for notifier"),
    ],
)
def test_addresses_that_no_driver_has_are_refused_by_the_plan(tmp_path, url, said):
    with made(tmp_path / "late", "https://h/x", url) as late, pytest.raises(ProjectFileError) as caught:
        late.check_drivers()
    [(file, line, problem)] = caught.value.problems
    assert (file, line) == ("cumulant.yaml", 4)
    assert said in problem


@pytest.mark.parametrize(
    ("name", "near"), [("covarite", "covariate"), ("feeds", "feed"), ("estimated_lss", "estimated_loss")]
)
def test_a_rule_that_is_nearly_a_built_in_one_is_refused(tmp_path, name, near):
    text = f"version: 1\nmonitoring:\n  alerts:\n    rules:\n      {name}: {{level: info}}\n"
    (tmp_path / "cumulant.yaml").write_text(text)
    with pytest.raises(ProjectFileError) as caught:
        load(tmp_path)
    [(_, line, problem)] = caught.value.problems
    assert line == 5
    assert f'is nearly "{near}"' in problem


def test_rules_have_names_of_ones_own(tmp_path):
    rules = "{loss_eu: {level: info}, queue: {for: 1h}, feed: {level: off}}"
    (tmp_path / "cumulant.yaml").write_text(f"version: 1\nmonitoring: {{alerts: {{rules: {rules}}}}}\n")
    with load(tmp_path) as found:
        assert policy(found.spec.monitoring.alerts).rule("loss_eu").level == "info"
        assert policy(found.spec.monitoring.alerts).rule("queue").held == 3600
        assert policy(found.spec.monitoring.alerts).rule("feed").level is None


def test_what_a_test_says_of_each(tmp_path, web):
    with Web() as other:
        other.how = "refuse"
        urls = (f"slack+http://127.0.0.1:{web.port}", f"http://127.0.0.1:{other.port}", "smtp://h")
        with made(tmp_path / "late", *urls) as late:
            found = try_receivers(late, principal=ADA)
            assert [(one.taken, one.code) for one in found] == [(True, ""), (False, "terminal"), (False, "usage")]
            assert "no such channel" in found[1].said
            assert len(try_receivers(late, principal=ADA, receiver=found[0].receiver)) == 1
            with pytest.raises(NotFoundError):
                try_receivers(late, principal=ADA, receiver="nobody")
    assert "a test message of late" in web.posts[0][2]["text"]


# Receivers that keep alerts -----------------------------------------------------------------------------------------


def test_one_that_keeps_alerts_is_told_of_all_and_again_while_they_fire(tmp_path, web, clock):
    more = "    budget: 0/month\n"
    (tmp_path / "late").mkdir()
    url = f"alertmanager://127.0.0.1:{web.port}"
    text = (
        f"version: 1\nmodel: {{name: late}}\nmonitoring:\n  notify: ['{url}']\n  alerts:\n    resolve_after: 0s\n{more}"
    )
    (tmp_path / "late" / "cumulant.yaml").write_text(text)
    with load(tmp_path / "late") as late:
        silence(late, principal=ADA, span="5h", clock=clock)
        see(late, finding("a", "quality"), finding("b", "quality"))
        deliver(late, clock=clock)
        assert labels(web) == ["a", "b", "a", "b"], "the second time because nobody knows what it still knows"
        clock.move(timedelta(minutes=4))
        deliver(late, clock=clock)
        assert len(web.posts) == 4
        clock.move(timedelta(minutes=1))
        deliver(late, clock=clock)
        assert labels(web)[4:] == ["a", "b"]
        see(late, finding("b", "quality"), hours=1)
        clock.move(timedelta(minutes=4))
        deliver(late, clock=clock)
        assert labels(web)[6:] == ["a"]
        assert web.posts[-1][2][0]["annotations"]["summary"].startswith("resolved: ")


def labels(web):
    return [document[0]["labels"]["subject"] for _, _, document in web.posts]


# What people say ----------------------------------------------------------------------------------------------------


def test_people_acknowledge_and_silence(late, clock):
    see(late, finding("a"), finding("b", rule="covariate"))
    first = overview(late, principal=ADA).alerts
    assert [(one.subject, one.level, one.told) for one in first] == [
        ("a", "critical", "critical"),
        ("b", "info", "info"),
    ]
    assert acknowledge(late, first[0].id[:6], principal=ADA, reason="on it").acknowledged == "user:ada"
    made = silence(late, principal=ADA, span="2h", subject="b", clock=clock)
    found = overview(late, principal=ADA, clock=clock)
    assert [(one.acknowledged, one.silenced) for one in found.alerts] == [("user:ada", False), (None, True)]
    assert (found.spent, found.budget, len(found.silences)) == (2, "20/month", 1)
    unsilence(late, made.id, principal=ADA)
    assert overview(late, principal=ADA, clock=clock).silences == []
    assert kinds(late)[-3:] == ["alert.acknowledged", "alert.silenced", "alert.silence_ended"]
    assert next(late.journal().events(kinds=("alert.acknowledged",))).reason == "on it"


def test_what_cannot_be_said(late, clock):
    with pytest.raises(NotFoundError, match="no alert"):
        show(late, "x", principal=ADA)
    see(late, finding("a"), finding("b"))
    see(late, finding("b"), hours=1)
    over = overview(late, principal=ADA, ended=True).alerts[-1]
    with pytest.raises(UsageError, match="is resolved"):
        acknowledge(late, over.id, principal=ADA)
    with pytest.raises(NotFoundError):
        acknowledge(late, "", principal=ADA)
    for span in ("soon", "9999999999d"):
        with pytest.raises(UsageError, match=r"is not a duration|longer than time"):
            silence(late, principal=ADA, span=span)
    with pytest.raises(NotFoundError):
        unsilence(late, "x", principal=ADA)
    assert show(late, over.id, principal=ADA).status == "resolved"


def test_who_may_not(late, monkeypatch):
    from cumulant.testing import GrantedAccess

    monkeypatch.setattr(late, "access", lambda: GrantedAccess(set()))
    for verb in (
        lambda: see(late, finding()),
        lambda: show(late, "x", principal=ADA),
        lambda: acknowledge(late, "x", principal=ADA),
        lambda: silence(late, principal=ADA, span="1h"),
        lambda: unsilence(late, "x", principal=ADA),
        lambda: try_receivers(late, principal=ADA),
        lambda: overview(late, principal=ADA),
    ):
        with pytest.raises(RefusedError):
            verb()
    assert kinds(late) == []


def test_time_alone_tells_reminders(late, web, clock):
    assert advance(late, clock=clock) == ()
    see(late, finding())
    clock.move(timedelta(hours=25))
    assert [change.what for change in advance(late, clock=clock)] == ["reminded"]
    deliver(late, clock=clock)
    assert web.posts[1][2]["text"].startswith("still so after 1d1h: it moved")


def test_how_long_a_failing_one_waits():
    now, found = START, Standing()
    for _ in range(40):
        found = failed(found, EngineUnavailableError("no"), "no", now)
    assert found.retry - now == timedelta(hours=1)
    assert found.failing_since == START
    assert not is_due(found, now)


def test_prometheus_is_told(late, web, clock):
    from prometheus_client.parser import text_string_to_metric_families

    see(late, finding("a"), finding("b", rule="covariate"))
    web.how = "later"
    deliver(late, clock=clock)
    families = text_string_to_metric_families(exposition(late.journal()))
    found = {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}
    name = late.receivers()[0].name
    assert found == {
        ("cumulant_alerts_firing", "info"): 1,
        ("cumulant_alerts_firing", "warning"): 0,
        ("cumulant_alerts_firing", "critical"): 1,
        ("cumulant_messages_waiting", name): 2,
        ("cumulant_messages_refused", name): 0,
        ("cumulant_receiver_failures", name): 1,
    }
