"""Rules of the port `notifier`, against a receiver that can misbehave."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

import msgspec
import pytest

from cumulant.core.errors import CumulantError, EngineUnavailableError, RetryableError, TerminalError
from cumulant.ports.notifier import Message, Notifier
from cumulant.testing.conformance.gaps import Suite

#: stands in the receiver's URL, and may be in no error
SECRET = "T0ken-that-nobody-sees"  # noqa: S105 - of a test
#: how a receiver may behave: it refuses for good, requests a pause, takes the bytes and sends nothing, answers drop by
#: drop without end, hangs up, or is not there
Behaviour = Literal["take", "refuse", "later", "hang", "trickle", "hang up", "gone"]

AT = datetime(2026, 11, 24, 6, tzinfo=UTC)
SAMPLE = Message(
    key="a1b2/notified/critical",
    kind="alert",
    status="firing",
    level="critical",
    model="flight-late",
    rule="data_fault",
    subject="wind_speed",
    title="critical: data_fault in wind_speed of flight-late",
    text="missing values rose from 0.1% to 38%, since Tuesday. Next: look at the weather feed.",
    at=AT,
    since=AT - timedelta(hours=3),
)


class World(Protocol):
    """A receiver, and what a test may do to it."""

    def notifier(self) -> Notifier:
        """A new client; `SECRET` stands in its URL."""
        ...

    def received(self) -> list[str]:
        """What was taken so far, each as readable text with all that came with it."""
        ...

    def behave(self, how: Behaviour) -> None: ...


class NotifierConformance(Suite):
    """Give a fixture `world`: a `World` whose receiver takes what it is sent."""

    @pytest.fixture
    def world(self) -> World:
        raise NotImplementedError

    def test_a_message_arrives_whole(self, world: World) -> None:
        assert world.notifier().send(SAMPLE, seconds=10) == ""
        [text] = world.received()
        assert SAMPLE.title in text
        assert SAMPLE.text in text

    def test_any_text_arrives(self, world: World) -> None:
        odd = msgspec.structs.replace(
            SAMPLE, title='größer "als" \\ 東京 🛫', text="Zeile 1\nZeile 2\n.\n.. größer\t東京"
        )
        world.notifier().send(odd, seconds=10)
        [text] = world.received()
        assert "größer" in text
        assert "Zeile 2" in text
        assert ".. größer\t東京" in text

    def test_names_cannot_add_anything(self, world: World) -> None:
        """Names come from data: no line break, markup or very long one breaks the message."""
        odd = {
            "subject": "a\r\nBcc: eve@example.com\r\n\r\nb",
            "title": "x\r\nBcc: eve@example.com",
            "model": "m" * 5000,
        }
        world.notifier().send(msgspec.structs.replace(SAMPLE, **odd), seconds=10)
        [text] = world.received()
        assert SAMPLE.text in text
        assert "\nBcc:" not in text.replace("\r", "\n")

    def test_one_client_sends_many(self, world: World) -> None:
        client = world.notifier()
        for number in range(5):
            client.send(msgspec.structs.replace(SAMPLE, key=str(number), text=f"number {number}"), seconds=10)
        assert [f"number {number}" in text for number, text in enumerate(world.received())] == [True] * 5

    def test_an_end_arrives_too(self, world: World) -> None:
        over = msgspec.structs.replace(SAMPLE, status="resolved", ended=AT + timedelta(hours=1), title="resolved: it")
        world.notifier().send(over, seconds=10)
        assert "resolved: it" in world.received()[0]

    @pytest.mark.parametrize("how", ["later", "hang", "trickle", "hang up", "gone"])
    def test_a_temporary_failure_is_retryable(self, world: World, how: Behaviour) -> None:
        world.behave(how)
        with pytest.raises(RetryableError) as caught:
            world.notifier().send(SAMPLE, seconds=0.5)
        self.check_text(caught.value)
        if how == "gone":
            assert isinstance(caught.value, EngineUnavailableError)

    def test_a_refused_message_is_not_retried(self, world: World) -> None:
        world.behave("refuse")
        with pytest.raises(TerminalError) as caught:
            world.notifier().send(SAMPLE, seconds=10)
        self.check_text(caught.value)

    def test_it_delivers_again_when_the_receiver_recovers(self, world: World) -> None:
        client = world.notifier()
        world.behave("later")
        with pytest.raises(RetryableError):
            client.send(SAMPLE, seconds=10)
        world.behave("take")
        client.send(SAMPLE, seconds=10)
        assert len(world.received()) == 1

    def test_no_secret_in_the_representation(self, world: World) -> None:
        assert SECRET not in repr(world.notifier())

    def check_text(self, error: CumulantError) -> None:
        assert error.message
        assert SECRET not in str(error.as_dict())
