"""The stream of events: each once and in order, over lost connections, for many listeners."""

import threading
import time
from contextlib import ExitStack

import httpx
import msgspec
import pytest
from test_server_reads import Counted, Noted, emit

from cumulant.core.events import Event


def listen(api, count, *, headers=None, **query):
    """The first `count` events of the stream."""
    events = []
    with api.stream("GET", "/events/stream", params=query, headers=headers or {}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("data: "):
                events.append(msgspec.json.decode(line.removeprefix("data: ").encode(), type=Event))
                if len(events) == count:
                    break
    return events


def test_a_listener_continues_after_the_last_event_that_it_had(project, api):
    emit(project, 450)
    first = listen(api, 300, after=0)
    emit(project, 50)
    second = listen(api, 200, headers={"last-event-id": str(first[-1].seq)}, after=0)
    assert [event.seq for event in first + second] == list(range(1, 501))


def test_listeners_are_woken_by_what_happens(project, api):
    results: dict[int, list[Event]] = {}
    opened = threading.Barrier(5)

    def run(number):
        with httpx.Client(base_url=api.base_url, timeout=60) as http:
            begin = project.journal().head().seq
            opened.wait(30)
            results[number] = listen(http, 20, after=begin)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    opened.wait(30)
    for _ in range(10):
        emit(project, 2)
    for thread in threads:
        thread.join(60)
    assert {tuple(event.data["number"] for event in events) for events in results.values()} == {(0, 1) * 10}


def test_kinds_are_filtered(project, api):
    emit(project, 3, Noted)
    emit(project, 2, Counted)
    assert [event.kind for event in listen(api, 2, after=0, kind="test.c*")] == ["test.counted"] * 2


def test_a_listener_that_names_an_event_to_come_waits_for_the_next_one(project, api):
    """Of a chain that was restored to before it, or forged."""
    emit(project, 2)
    for options in ({"headers": {"last-event-id": "9" * 18}}, {"params": {"after": 2**53}}):
        with api.stream("GET", "/events/stream", **options) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("retry: ")
            emit(project, 1)
            assert next(line for line in lines if line.startswith("id: ")) == f"id: {project.journal().head().seq}"


def test_streams_of_one_caller_are_bounded(api, monkeypatch):
    monkeypatch.setattr("cumulant.server.streaming.event_stream.MOST_STREAMS", 2)
    with ExitStack() as stack:
        opened = [stack.enter_context(api.stream("GET", "/events/stream")).iter_lines() for _ in range(2)]
        assert all(next(lines).startswith("retry: ") for lines in opened)
        with api.stream("GET", "/events/stream") as refused:
            assert refused.status_code == 429
        with api.stream("GET", "/events/stream", headers={"x-user": "bob"}) as of_another:
            assert of_another.status_code == 200
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with api.stream("GET", "/events/stream") as again:
            if again.status_code == 200:
                return
        time.sleep(0.1)
    pytest.fail("streams that ended count still")


def test_other_numbers_are_refused(api):
    for value in ("x", "-1", "1" * 30):
        response = api.get("/events/stream", headers={"last-event-id": value})
        assert response.status_code == 400
