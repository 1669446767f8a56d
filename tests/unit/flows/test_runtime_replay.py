"""Replays: the caller, whose failure it was, what is kept when it is cut off, and the pace of a release's time."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from cumulant.cli.serving.replay import speed_of
from cumulant.core.errors import UsageError
from cumulant.flows.ledger.processes import process_of
from cumulant.flows.release.time_scale import Pace, pace, paced
from cumulant.flows.replay.caller import Answer, Caller
from cumulant.flows.replay.replay_progress import Asked, begin, forget, keep
from cumulant.flows.replay.replay_rows import Call
from cumulant.flows.replay.sending import Counts, Sent, blame

ASKED = Asked(model="late", since=0, until=10)


def sent(status: int, arm: str = "", seconds: float = 0.001) -> Sent:
    return Sent(Call(0, 0, b"{}"), "r-0", arm, Answer(status, {}, b"", seconds))


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
    assert blame(sent(status, arm)) == whose


def test_failures_are_counted_apart_from_answers() -> None:
    counts = Counts()
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
    first = begin(tmp_path, ASKED)
    first.sent, first.told = 7, 3
    keep(tmp_path, first)
    again = begin(tmp_path, ASKED)
    assert (again.id, again.sent, again.told) == (first.id, 7, 3)
    assert begin(tmp_path, ASKED, again=True).sent == 0
    other = begin(tmp_path, Asked(model="late", since=0, until=11))
    assert other.sent == 0
    assert other.id != first.id
    forget(tmp_path)
    assert begin(tmp_path, ASKED).sent == 0
    (tmp_path / "replay.json").write_text("{")
    assert begin(tmp_path, ASKED).sent == 0


def test_a_release_takes_replayed_time_while_the_replay_lives(tmp_path: Path) -> None:
    assert pace(tmp_path) == 1.0
    with paced(tmp_path, 3600.0):
        assert pace(tmp_path) == 3600.0
    assert pace(tmp_path) == 1.0


def test_the_note_of_a_replay_that_was_killed_is_not_followed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    note = Pace(factor=3600.0, process=process_of(process.pid))
    (tmp_path / "pace.json").write_bytes(msgspec.json.encode(note))
    assert pace(tmp_path) == 3600.0
    process.kill()
    process.wait()
    assert pace(tmp_path) == 1.0


async def _with_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    ask: Callable[[Caller], Awaitable[None]],
) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    caller = Caller(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=30.0)
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

    async def ask(caller: Caller) -> None:
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

    async def ask(caller: Caller) -> None:
        assert (await caller.ask("POST", "/", b"{}", {})).status == 0

    asyncio.run(_with_server(serve, ask))


def test_only_plain_http_is_asked() -> None:
    with pytest.raises(UsageError, match="no address"):
        Caller("https://example.com", timeout=1.0)
