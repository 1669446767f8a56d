"""What people say to alerts, and what time alone tells."""

from __future__ import annotations

from datetime import timedelta

import pytest
from alerts_support import ADA, START, finding, kinds, see

from cumulant.alerting.delivery import ReceiverHealth, after_failure
from cumulant.core.errors import EngineUnavailableError, NotFoundError, RefusedError, UsageError
from cumulant.core.events import Actor
from cumulant.flows.alerting.alerts import (
    acknowledge,
    advance,
    deliver,
    observe,
    show,
    silence,
    try_receivers,
    unsilence,
)
from cumulant.flows.alerting.receiver_state import is_due, released
from cumulant.flows.alerting.views import overview
from cumulant.flows.observe.alert_metrics import alert_series
from cumulant.ports.access import Principal


def test_people_acknowledge_and_silence(late, clock):
    see(late, finding("a"), finding("b", rule="covariate"))
    first = overview(late, principal=ADA).alerts
    assert [(one.subject, one.level, one.notified_level) for one in first] == [
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
        with pytest.raises(UsageError, match=r"is not a duration|longer than any time"):
            silence(late, principal=ADA, span=span)
    with pytest.raises(NotFoundError):
        unsilence(late, "x", principal=ADA)
    assert show(late, over.id, principal=ADA).status == "resolved"


def test_a_silence_of_everything_needs_a_reason(late):
    for everything in ({}, {"rule": "**"}, {"reason": " "}):
        with pytest.raises(UsageError, match=r"a silence of all alerts needs a reason"):
            silence(late, principal=ADA, span="1h", **everything)
    assert silence(late, principal=ADA, span="1h", reason="maintenance").reason == "maintenance"
    assert silence(late, principal=ADA, span="1h", subject="wind_*").subject == "wind_*"


def test_who_may_not(late, monkeypatch):
    from cumulant.testing.access import GrantedAccess

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
    assert kinds(late) == ["access.refused"] * 7


def test_time_alone_tells_reminders(late, web, clock):
    assert advance(late, clock=clock) == ()
    see(late, finding())
    clock.move(timedelta(hours=25))
    assert [change.what for change in advance(late, clock=clock)] == ["reminded"]
    deliver(late, clock=clock)
    assert web.posts[1][2]["text"].startswith("still so after 1d1h: it moved")


def test_how_long_a_failing_one_waits():
    now, found = START, ReceiverHealth()
    for _ in range(40):
        found = after_failure(found, EngineUnavailableError("no"), "no", now)
    assert found.retry - now == timedelta(hours=1)
    assert found.failing_since == START
    assert not is_due(released(found), now)


def test_metrics_of_alerts_and_receivers(late, web, clock):
    see(late, finding("a"), finding("b", rule="covariate"))
    web.how = "later"
    deliver(late, clock=clock)
    found = {(one.family, *one.labels): one.value for one in alert_series(late.journal())}
    name = late.receivers()[0].name
    assert found == {
        ("cumulant_alerts_firing", "info"): 1,
        ("cumulant_alerts_firing", "warning"): 0,
        ("cumulant_alerts_firing", "critical"): 1,
        ("cumulant_alerts_active", "late", "covariate", "info"): 1,
        ("cumulant_alerts_active", "late", "feed", "critical"): 1,
        ("cumulant_messages_waiting", name): 2,
        ("cumulant_messages_refused", name): 0,
        ("cumulant_receiver_failures", name): 1,
    }


def test_findings_are_taken_in_within_the_callers_transaction(late):
    """By a person too, whose other actions that write are events of transactions of their own."""
    ada = Principal("user:ada", via="cli")
    with late.journal().transaction(actor=Actor(ada.id)) as transaction:
        observe(late, [], principal=ada, examined=[], within=transaction)
    assert [event.kind for event in late.journal().events() if event.kind.startswith("access.")] == []
