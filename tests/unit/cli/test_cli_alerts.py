"""`cumulant alerts`, as people type it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "conformance"))
from notify_servers import Web

from cumulant.alerting.alert_state import Finding
from cumulant.flows.alerting.alerts import observe
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load

SINCE = datetime(2026, 11, 24, 6, tzinfo=UTC)


@pytest.fixture
def web():
    with Web() as found:
        yield found


@pytest.fixture
def folder(tmp_path, web):
    text = f"version: 1\nmodel: {{name: late}}\nmonitoring: {{notify: ['slack+http://127.0.0.1:{web.port}/x/y']}}\n"
    (tmp_path / "cumulant.yaml").write_text(text)
    return str(tmp_path)


@pytest.fixture
def firing(folder):
    found = [
        Finding(
            model="late",
            rule="data_fault",
            subject="wind\x1b[31m",
            moved="38% are missing",
            since=SINCE,
            next="see the feed",
        ),
        Finding(model="late", rule="covariate", subject="fare", moved="it moved", since=SINCE, kind="covariate"),
    ]
    with load(Path(folder)) as project:
        observe(project, found, principal=Principal("user:ada"))
    return folder


def test_nothing_fires(cumulant, folder):
    found = cumulant("alerts", "list", "--project", folder)
    assert found.code == 0
    assert found.out.startswith("nothing fires")
    assert "/***" in found.out


def test_what_fires_is_listed_shown_and_acknowledged(cumulant, firing):
    found = cumulant("alerts", "list", "--project", firing)
    lines = [line.split()[1:5] for line in found.out.splitlines() if "firing" in line]
    assert lines == [["critical", "firing", "late", "data_fault"], ["info", "firing", "late", "covariate"]]
    assert "\x1b" not in found.out, "names come from data"
    document = cumulant("alerts", "list", "--json", "--project", firing).document
    name = document["alerts"][0]["id"]
    assert document["receivers"][0]["waiting"] == 2
    shown = cumulant("alerts", "show", name[:5], "--project", firing)
    assert "38% are missing, since 2026-11-24 06:00 UTC. Next: see the feed." in shown.out
    assert "notified at level critical, 0 reminders" in shown.out
    file = Path(firing) / "cumulant.yaml"
    told = file.read_text()
    file.write_text(told.partition("monitoring:")[0])
    alone = cumulant("alerts", "show", name[:5], "--project", firing).out
    assert "not notified, as monitoring.notify names no receiver" in alone
    file.write_text(told)
    known = cumulant("alerts", "ack", name, "--reason", "on it", "--project", firing)
    assert known.out.startswith(f"{name}: acknowledged by user:")
    assert "firing (known)" in cumulant("alerts", "list", "--project", firing).out
    assert cumulant("alerts", "list", "--model", "other", "--project", firing).out.startswith("nothing of other fires")


def test_a_silence_from_its_beginning_to_its_end(cumulant, firing):
    made = cumulant("alerts", "silence", "--rule", "cov*", "--for", "2h", "--reason", "known", "--project", firing)
    assert made.code == 0
    assert made.out.endswith("; it matches 1 of the 2 alerts there are\n")
    name = made.out.split()[1].rstrip(":")
    listed = cumulant("alerts", "list", "--project", firing).out
    assert "firing (silenced)" in listed
    assert f"silence {name}: rule cov*, subject *, model *, until" in listed
    assert cumulant("alerts", "silence", "--end", name, "--project", firing).out == f"the silence {name} is over\n"
    assert "silenced" not in cumulant("alerts", "list", "--project", firing).out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "zzz"], 'no alert named "zzz"'),
        (["ack", "zzz"], 'no alert named "zzz"'),
        (["silence"], "a silence needs its length"),
        (["silence", "--for", "2h", "--end", "x"], "a silence needs its length"),
        (["silence", "--for", "soon"], '"soon" is not a duration'),
        (["silence", "--for", "0s"], "a silence of no length silences nothing"),
        (["silence", "--for", "2h", "--rule", "covarite"], 'did you mean "covariate"?'),
        (["silence", "--for", "2h", "--rule", "mine"], "estimated_loss"),
        (["silence", "--end", "x"], 'no silence named "x"'),
        (["retry", "x"], 'no refused message named "x"'),
        (["retry", "--receiver", "x"], 'no receiver named "x"'),
        (["drop", "x"], 'no refused message named "x"'),
        (["test", "--receiver", "x"], 'no receiver named "x"'),
    ],
)
def test_what_cannot_be_done_ends_with_2(cumulant, folder, words, said):
    found = cumulant("alerts", *words, "--project", folder)
    assert found.code == 2
    assert said in found.err


@pytest.mark.parametrize(("how", "code", "said"), [("take", 0, "took it"), ("later", 3, "503"), ("refuse", 4, "403")])
def test_a_test_says_what_happened(cumulant, folder, web, how, code, said):
    web.how = how
    found = cumulant("alerts", "test", "--project", folder)
    assert found.code == code
    assert said in found.out
    assert cumulant("alerts", "test", "--json", "--project", folder).document["receivers"][0]["taken"] is (code == 0)


def test_what_a_receiver_refuses_is_listed_retried_and_dropped(cumulant, firing, web):
    web.how, web.status, web.disliked = "choose", 413, b"data_fault"
    said = cumulant("tick", "--project", firing).out
    assert "1 message delivered, 1 left; " in said
    assert "it answered 413: not like this" in said
    listed = cumulant("alerts", "list", "--project", firing).out
    assert "refused by slack-" in listed
    assert "it answered 413: not like this" in listed
    [one] = cumulant("alerts", "list", "--json", "--project", firing).document["refused"]
    assert (one["tries"], one["aside"]) == (1, False)
    still = cumulant("alerts", "retry", one["message"], "--project", firing)
    assert (still.code, "0 messages delivered, 1 left" in still.out) == (4, True)
    dropped = cumulant("alerts", "drop", one["message"], "--reason", "told by hand", "--project", firing)
    assert dropped.out == f"{one['receiver']}: dropped {one['message']}\n"
    assert "refused by" not in cumulant("alerts", "list", "--project", firing).out
    assert cumulant("alerts", "retry", "--project", firing).out == "no message waits\n"
    assert len(web.posts) == 1


def test_a_retry_of_a_receiver_that_does_not_answer_ends_with_3(cumulant, firing, web):
    web.how = "later"
    assert cumulant("alerts", "retry", "--project", firing).code == 3
    web.how = "take"
    done = cumulant("alerts", "retry", "--project", firing)
    assert (done.code, done.out) == (0, "2 messages delivered\n")


def test_tick_delivers(cumulant, firing, web):
    found = cumulant("tick", "--project", firing)
    assert found.code == 0
    assert "alerts: done, 2 messages delivered" in found.out
    assert "data_fault in wind" in web.posts[0][2]["text"]
