"""What follows from one attempt to deliver a message: a function of the turn, the answer and the time."""

from datetime import timedelta

import pytest
from alerts_support import START, notice

from cumulant.alerting.delivery import (
    TRIES,
    Failed,
    MessageRefusal,
    OutboxEntry,
    ReceiverHealth,
    Refused,
    Taken,
    Turn,
    decide_delivery,
)
from cumulant.core.errors import EngineUnavailableError

TURN = Turn(project="late", receiver="hook-1", keeps_state=False, health=ReceiverHealth())
ENTRY = OutboxEntry(key="hook-1/000000000001", message=notice(1))


def refused(turn, earlier=None):
    return decide_delivery(turn, Refused(entry=ENTRY, fault="too large", waiting=True, earlier=earlier), START)


def test_a_receiver_that_refuses_three_messages_and_took_none_is_at_fault():
    turn, states = TURN, []
    for _ in range(3):
        turn, actions = refused(turn)
        states.append(turn.refuses_all)
        assert actions.refusal == MessageRefusal(
            tries=1, since=START, retry=START + timedelta(minutes=5), fault="too large"
        )
    assert states == [False, False, True]
    turn, _ = decide_delivery(turn, Taken(entry=ENTRY), START)
    assert not any(refused(turn)[0].refuses_all for _ in range(3))


def test_the_last_try_sets_a_message_aside_with_an_event_and_a_notice():
    earlier = MessageRefusal(tries=TRIES - 1, since=START, retry=START, fault="too large")
    turn, actions = refused(TURN, earlier)
    assert actions.refusal is not None
    assert actions.refusal.aside
    assert [fact.kind for fact in actions.facts] == ["notify.refused"]
    [about] = actions.notices
    assert (about.kind, about.key) == ("notice", f"refused/{ENTRY.message.key}")
    # A refused notice is followed by none.
    again = Refused(entry=OutboxEntry(key="x", message=about), fault="no", waiting=True, earlier=earlier)
    assert decide_delivery(turn, again, START)[1].notices == ()


@pytest.mark.parametrize("failures", [0, 2])
def test_only_the_first_of_several_failures_is_reported(failures):
    health = ReceiverHealth(failures=failures, failing_since=START if failures else None)
    turn = Turn(project="late", receiver="hook-1", keeps_state=False, health=health)
    failed = Failed(error=EngineUnavailableError("no"), fault="no", message=ENTRY.message)
    after, actions = decide_delivery(turn, failed, START)
    assert after.health.failures == failures + 1
    assert [fact.kind for fact in actions.facts] == ([] if failures else ["notify.failed"])
    later, actions = decide_delivery(after, Taken(entry=ENTRY), START)
    assert later.health == ReceiverHealth(delivered=START)
    assert actions.retry_refused
