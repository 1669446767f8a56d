"""Starts and ends of processes on their way into the journal."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import threading
from contextlib import closing
from datetime import UTC, datetime

import msgspec
import pytest

from cumulant.core.errors import EngineUnavailableError, PortInUseError, StorageError
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.stack.event_reporting import Reporter, emit
from cumulant.flows.stack.events import ProcessEnded, ProcessStarted, describe_exit
from cumulant.flows.stack.identity import home_of
from cumulant.flows.stack.lifecycle import up
from cumulant.flows.stack.status import Status, write_status
from cumulant.project.file.loading import load


def started(number):
    return ProcessStarted(name="server-1", process="server", version="1", pid=number, attempt=1, cause="it should run")


def test_events_reach_the_journal_in_order_and_lines_have_time_and_cause(tmp_path, capsys):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: m}\n")
    ended = ProcessEnded(name="server-1", process="server", version="1", pid=2, cause="signal 9 (SIGKILL)", seconds=3.0)
    with load(tmp_path) as project:
        reporter = Reporter(lambda fact: emit(project, fact))
        for fact in (started(1), started(2), ended):
            reporter(fact)
        reporter.close()
        found = list(project.journal().events())
    assert [(one.kind, one.data["pid"]) for one in found] == [
        ("stack.process_started", 1),
        ("stack.process_started", 2),
        ("stack.process_ended", 2),
    ]
    assert {one.actor for one in found} == {"service:supervisor"}
    lines = capsys.readouterr().err.splitlines()
    assert lines[0][20:] == " server-1 started as process 1: it should run"
    assert lines[2][20:] == " server-1 ended after 3.0 s: signal 9 (SIGKILL)"
    assert lines[0][:2] == "20"


def test_a_journal_that_is_busy_or_full_holds_up_nobody_and_gets_them_later(capsys):
    errors = [
        EngineUnavailableError("busy"),
        StorageError("full"),
        OSError(28, "full"),
        sqlite3.OperationalError("busy"),
    ]
    kept, called = [], threading.Event()

    def take(fact):
        called.set()
        if errors:
            raise errors.pop()
        kept.append(fact)

    reporter = Reporter(take, pause=0.01)
    reporter(started(1))
    assert called.wait(60)
    reporter(started(2))
    reporter.close()
    assert [one.pid for one in kept] == [1, 2]
    assert capsys.readouterr().err.count("waits for the journal") == 1


def test_a_killed_supervisor_is_reported_also_where_up_is_refused(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: m}\n")
    at = datetime(2026, 11, 27, tzinfo=UTC)
    with load(tmp_path) as project, closing(socket.create_server(("127.0.0.1", 0))) as taken:
        (project.state / "stack").mkdir(parents=True)
        process = subprocess.Popen(["true"])
        killed = msgspec.structs.replace(this_process(), pid=process.pid, born="1")
        process.wait()
        status = Status(
            model="m", environment="local", supervisor=killed, since=at, at=at, url=None, home=home_of(project.state)
        )
        write_status(project.state, status)
        with pytest.raises(PortInUseError):
            up(project, principal=project.principal(), http=f"127.0.0.1:{taken.getsockname()[1]}")
        (event,) = project.journal().events(kinds=("stack.process_ended",))
    assert event.data["cause"].startswith("it was killed after 2026-11-27")  # type: ignore[attr-defined]


def test_how_a_process_ended():
    assert describe_exit(0) == "exit code 0"
    assert describe_exit(-15) == "signal 15 (SIGTERM)"
    assert describe_exit(-99) == "signal 99"
