"""Replays: the caller, whose failure it was, what is kept when it is cut off, and the pace of a release's time."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cumulant.cli.serving.replay import speed_of
from cumulant.core.errors import UsageError
from cumulant.core.events import Actor
from cumulant.flows.ledger.lease import LeaseWatch, take_lease
from cumulant.flows.ledger.processes import Process, process_of
from cumulant.flows.release.time_scale import TIME_SCALE, read_time_scale, scale_time
from cumulant.flows.replay.caller import ReplayClient, ReplayResponse
from cumulant.flows.replay.replay_progress import ReplayRequest, delete_state, load_or_begin, write_state
from cumulant.flows.replay.replay_rows import ReplayCall
from cumulant.flows.replay.sending import ReplayCounts, Sent, failed_party
from cumulant.testing.journal import MemoryJournal

ASKED = ReplayRequest(model="late", since=0, until=10)


def sent(status: int, arm: str = "", seconds: float = 0.001) -> Sent:
    return Sent(ReplayCall(0, 0, b"{}"), "r-0", arm, ReplayResponse(status, {}, b"", seconds))


@pytest.mark.parametrize(
    ("status", "arm", "whose"),
    [
        (200, "candidate", ""),
        (500, "candidate", "candidate"),
        (504, "champion", "champion"),
        (429, "candidate", "candidate"),
        (503, "", "gateway"),
        (0, "", "gateway"),
        (422, "candidate", "caller"),
    ],
)
def test_a_failure_is_the_assigned_arms_else_the_gateways(status: int, arm: str, whose: str) -> None:
    assert failed_party(sent(status, arm)) == whose


def test_failures_are_counted_apart_from_answers() -> None:
    counts = ReplayCounts()
    for one in (sent(200, "champion", 0.001), sent(500, "candidate", 0.003), sent(200, "champion", 0.002)):
        counts.add(one)
    assert counts.requests == 3
    assert counts.arms == {"champion": 2}
    assert counts.failures == {"candidate": 1}
    assert counts.milliseconds(0.5) == pytest.approx(2.0)


@pytest.mark.parametrize(("text", "factor"), [("3600x", 3600.0), ("1x", 1.0), ("0.5", 0.5)])
def test_a_speed_is_a_factor(text: str, factor: float) -> None:
    assert speed_of(text) == factor


@pytest.mark.parametrize("text", ["fast", "0x", "-3x", "nanx", "infx", ""])
def test_no_other_text_is_a_speed(text: str) -> None:
    with pytest.raises(UsageError, match="no speed"):
        speed_of(text)


def test_a_replay_that_was_cut_off_goes_on_and_another_begins_anew(tmp_path: Path) -> None:
    tmp_path /= "state"  # of a machine on which nothing was stored yet
    first = load_or_begin(tmp_path, ASKED)
    first.sent, first.labels_sent = 7, 3
    write_state(tmp_path, first)
    again = load_or_begin(tmp_path, ASKED)
    assert (again.id, again.sent, again.labels_sent) == (first.id, 7, 3)
    assert load_or_begin(tmp_path, ASKED, again=True).sent == 0
    other = load_or_begin(tmp_path, ReplayRequest(model="late", since=0, until=11))
    assert other.sent == 0
    assert other.id != first.id
    delete_state(tmp_path)
    assert load_or_begin(tmp_path, ASKED).sent == 0
    (tmp_path / "replay.json").write_text("{")
    assert load_or_begin(tmp_path, ASKED).sent == 0


def test_a_release_takes_replayed_time_while_the_replay_lives() -> None:
    journal, watch = MemoryJournal(), LeaseWatch()
    assert read_time_scale(journal, watch) == 1.0
    with scale_time(journal, 3600.0):
        assert read_time_scale(journal, watch) == 3600.0
    assert read_time_scale(journal, watch) == 1.0


def test_the_time_scale_of_a_replay_that_was_killed_is_not_followed() -> None:
    journal, watch = MemoryJournal(), LeaseWatch()
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    holder, actor = process_of(process.pid), Actor("user:ada")
    assert take_lease(journal, TIME_SCALE, ttl=60.0, actor=actor, watch=watch, holder=holder, data={"factor": 3600.0})
    assert read_time_scale(journal, watch) == 3600.0
    process.kill()
    process.wait()
    assert read_time_scale(journal, watch) == 1.0


def test_the_time_scale_of_a_replay_on_a_machine_that_is_gone_ends_with_its_lease() -> None:
    now = [0.0]
    journal, watch = MemoryJournal(), LeaseWatch(lambda: now[0])
    far, actor = Process("elsewhere:0", 1, "1"), Actor("user:ada")
    assert take_lease(journal, TIME_SCALE, ttl=15.0, actor=actor, watch=watch, holder=far, data={"factor": 60})
    for now[0] in (0.0, 7.0, 14.0):
        assert read_time_scale(journal, watch) == 60.0
    now[0] = 15.1
    assert read_time_scale(journal, watch) == 1.0


async def _with_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    ask: Callable[[ReplayClient], Awaitable[None]],
) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    caller = ReplayClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=30.0)
    try:
        await ask(caller)
    finally:
        caller.close()
        await asyncio.sleep(0.05)  # both sides take notice
        server.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return await reader.readexactly(length)


def test_a_connection_is_kept_and_one_that_was_closed_is_replaced() -> None:
    connections = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        with suppress(asyncio.IncompleteReadError):
            for _ in range(2):  # the third request finds it closed
                body = await _read(reader)
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nCumulant-Arm: champion\r\n\r\n"
                writer.write(head % len(body) + body)
                await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def ask(caller: ReplayClient) -> None:
        for number in range(5):
            answer = await caller.ask("POST", "/", json.dumps(number).encode(), {})
            assert (answer.status, answer.body) == (200, str(number).encode())
            assert answer.headers["cumulant-arm"] == "champion"

    asyncio.run(_with_server(serve, ask))
    assert len(connections) == 3


def test_no_answer_is_told_as_none() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        writer.close()
        await writer.wait_closed()

    async def ask(caller: ReplayClient) -> None:
        assert (await caller.ask("POST", "/", b"{}", {})).status == 0

    asyncio.run(_with_server(serve, ask))


def test_only_plain_http_is_asked() -> None:
    with pytest.raises(UsageError, match="no address"):
        ReplayClient("https://example.com", timeout=1.0)
