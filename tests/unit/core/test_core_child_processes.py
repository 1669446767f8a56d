"""Start, restart delay and end of child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from cumulant.core.system.child_processes import RestartDelay, end_child, kill_group, start, stop, wait_or_kill
from cumulant.flows.ledger.processes import is_gone, process_of

SLEEP = [sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(600)"]
DEAF = [
    sys.executable,
    "-S",
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


def _started(line, **options):
    process = start(line, stdout=subprocess.PIPE, **options)
    assert process.stdout.readline() == b"up\n"
    process.stdout.close()
    return process


def _is_alive(pid):
    process = process_of(pid)
    return process.born != "" and not is_gone(process)


def _ends(pid):
    deadline = time.monotonic() + 60
    while _is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not _is_alive(pid)


def test_the_delay_grows_up_to_the_longest_until_a_long_life():
    delay = RestartDelay(2.0)
    assert [delay.after_end() for _ in range(8)] == [0.0, 0.2, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0]
    assert delay.ends == 8
    delay.reset()
    assert [delay.after_end(), delay.after_end()] == [0.0, 0.2]
    assert [RestartDelay(10.0).after_end() for _ in range(2)] == [0.0, 0.0]


def test_content_is_the_standard_input():
    code = "import sys; text = sys.stdin.buffer.read(); sys.exit(7 if text == b'secret' else 1)"
    assert start([sys.executable, "-S", "-c", code], content=b"secret").wait(60) == 7
    assert start([sys.executable, "-S", "-c", "import sys; sys.exit(len(sys.stdin.read()))"]).wait(60) == 0


def test_content_for_a_process_that_ends_without_reading_it():
    assert start(["true"], content=b"x" * 10_000_000).wait(60) == 0


def test_a_program_that_is_missing():
    with pytest.raises(FileNotFoundError):
        start(["/no/such/program"])


def test_stop_is_polite_first():
    process = _started(SLEEP)
    assert stop(process, 60)
    assert process.returncode == -signal.SIGTERM


def test_a_process_that_ignores_the_request_is_killed():
    process = _started(DEAF)
    assert not stop(process, 0.2)
    assert process.returncode == -signal.SIGKILL
    late = _started(DEAF)
    assert not wait_or_kill(late, -1.0)
    assert wait_or_kill(late, 0.0)


def test_the_group_is_killed_with_what_it_started():
    code = f"import subprocess, sys; p = subprocess.Popen({SLEEP}, stdout=subprocess.DEVNULL); print(p.pid, flush=True); p.wait()"
    process = start([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE)
    grandchild = int(process.stdout.readline())
    process.stdout.close()
    kill_group(process.pid)
    assert process.wait(60) == -signal.SIGKILL
    assert _ends(grandchild)
    kill_group(process.pid)  # there is none any more


@pytest.mark.skipif(sys.platform != "linux", reason="the system sends no signal there")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGKILL"])
def test_a_process_ends_with_its_parent(number):
    code = f"""
import signal, time
from cumulant.core.system.child_processes import start
print(start({SLEEP}, death_signal=signal.{number}).pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert _is_alive(child)
    parent.kill()
    parent.communicate()
    assert _ends(child)


@pytest.mark.parametrize(("line", "patience"), [(SLEEP, 60.0), (DEAF, 0.2)])
def test_a_child_that_is_known_by_its_number_is_ended_and_reaped(line, patience):
    process = _started(line)
    end_child(process.pid, patience)
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    end_child(process.pid, patience)  # nothing is there any more
    process.wait()


def test_a_child_is_killed_where_the_wait_for_its_end_is_interrupted(monkeypatch):
    process = _started(DEAF)
    monkeypatch.setattr(time, "sleep", lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        end_child(process.pid, 600.0)
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    process.wait()
