"""Addresses of receivers, their secrets, and receivers that keep alerts themselves."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from alerts_support import ADA, START, finding, labels, made, see
from notify_servers import Web

from cumulant.core.errors import NotFoundError, ProjectFileError
from cumulant.flows.alerting.alerts import deliver, silence, try_receivers
from cumulant.flows.alerting.views import overview
from cumulant.project.driver_checks import check_drivers
from cumulant.project.file.loading import load
from cumulant.testing.clock import ManualClock


def test_a_url_that_is_a_secret_is_shown_nowhere(tmp_path, web, monkeypatch):
    token = "T0ken-that-nobody-sees"
    monkeypatch.setenv("CHAT", f"http://127.0.0.1:{web.port}/services/{token}")
    literal = f"webhook+http://ada:{token}@127.0.0.1:{web.port}/hook/{token}?a={token}"
    with made(tmp_path / "late", "slack+${secret:CHAT}", literal) as late:
        check_drivers(late)
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
        check_drivers(late)
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
        check_drivers(late)
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
        assert found.policies.monitoring.alerts.rule("loss_eu").level == "info"
        assert found.policies.monitoring.alerts.rule("queue").pending_for == 3600
        assert found.policies.monitoring.alerts.rule("feed").level is None


def test_what_a_test_says_of_each(tmp_path, web):
    with Web() as other:
        other.how = "refuse"
        urls = (f"slack+http://127.0.0.1:{web.port}", f"http://127.0.0.1:{other.port}", "smtp://h")
        with made(tmp_path / "late", *urls) as late:
            found = try_receivers(late, principal=ADA)
            assert [(one.taken, one.code) for one in found] == [(True, ""), (False, "terminal"), (False, "usage")]
            assert "no such channel" in found[1].answer
            assert len(try_receivers(late, principal=ADA, receiver=found[0].receiver)) == 1
            with pytest.raises(NotFoundError):
                try_receivers(late, principal=ADA, receiver="nobody")
    assert "a test message of late" in web.posts[0][2]["text"]


def test_one_that_keeps_alerts_is_told_of_all_and_again_while_they_fire(tmp_path, web, clock):
    more = "    budget: 0/month\n"
    (tmp_path / "late").mkdir()
    url = f"alertmanager://127.0.0.1:{web.port}"
    text = (
        f"version: 1\nmodel: {{name: late}}\nmonitoring:\n  notify: ['{url}']\n  alerts:\n    resolve_after: 0s\n{more}"
    )
    (tmp_path / "late" / "cumulant.yaml").write_text(text)
    with load(tmp_path / "late") as late:
        silence(late, principal=ADA, span="5h", reason="maintenance", clock=clock)
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
