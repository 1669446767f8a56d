"""One supervisor a project, and what a killed one leaves: real files, real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import msgspec
import pytest

from cumulant.core.errors import IntegrityError, LeaseHeldError, StorageError
from cumulant.flows.ledger.processes import Process, is_gone, process_of
from cumulant.flows.stack.child_process import Child, LogFile
from cumulant.flows.stack.identity import Home
from cumulant.flows.stack.lock import end_left_behind, end_leftovers, find_supervisor, hold_lock
from cumulant.flows.stack.reconcile import WantedProcess
from cumulant.flows.stack.status import ChildStatus, Status, read_status, write_status

HELD = """
import sys, time; from pathlib import Path; from cumulant.flows.stack.lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True); time.sleep(60)
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
HOME = Home(folder="", inode=0, host="", device=None)
AT = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def process():
    started = []

    def start(*line):
        found = subprocess.Popen([sys.executable, *line], stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(found)
        assert found.stdout.readline()
        return found

    yield start
    for one in started:
        one.kill()
        one.wait()
        one.stdout.close()


def status(*children, supervisor=None):
    return Status(
        model="m",
        environment="local",
        supervisor=supervisor or process_of(os.getpid()),
        since=AT,
        at=AT,
        url=None,
        home=HOME,
        children=children,
    )


def child(name, identity):
    return ChildStatus(
        name=name,
        kind="server",
        state="ready",
        process=identity,
        ready=True,
        restarts=0,
        not_ready_since=None,
        since=AT,
    )


def test_a_second_supervisor_is_refused_with_the_number_of_the_first(tmp_path, process):
    first = process("-c", HELD, str(tmp_path))
    assert find_supervisor(tmp_path) == first.pid
    with pytest.raises(LeaseHeldError, match=f"as process {first.pid}"), hold_lock(tmp_path):
        pass
    first.kill()
    first.wait()
    assert find_supervisor(tmp_path) is None
    with hold_lock(tmp_path):
        assert (tmp_path / "stack" / "supervisor.lock").read_text() == str(os.getpid())
    assert list((tmp_path / "stack").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_in_words(tmp_path):
    (tmp_path / "stack").write_text("a file")
    with pytest.raises(StorageError, match="cannot be written"), hold_lock(tmp_path):
        pass


def test_leftovers_end_and_a_process_that_got_an_old_number_is_spared(process):
    ours, stranger = process("-c", STUBBORN), process("-c", STUBBORN)
    other = msgspec.structs.replace(process_of(stranger.pid), born="1")
    found = status(child("server-1", process_of(ours.pid)), child("server-2", other))
    begin = time.monotonic()
    assert end_leftovers(found, patience=0.3) == 1
    assert time.monotonic() - begin > 0.25
    assert ours.wait(timeout=60) == -signal.SIGKILL
    assert stranger.poll() is None


def test_what_a_killed_supervisor_told_is_removed(tmp_path):
    (tmp_path / "stack").mkdir()
    write_status(tmp_path, status(supervisor=Process("elsewhere", 1, "1")))
    (tmp_path / "stack" / ".status.json.77").write_text("half")
    assert read_status(tmp_path).model == "m"
    assert end_left_behind(tmp_path) == 0
    assert read_status(tmp_path) is None
    assert list((tmp_path / "stack").iterdir()) == []


def test_a_damaged_status_is_told_in_words(tmp_path):
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack" / "status.json").write_text('{"model": ')
    with pytest.raises(IntegrityError, match=r"status\.json cannot be read"):
        read_status(tmp_path)


def test_a_log_is_turned_and_its_writer_goes_on(tmp_path):
    log = LogFile(tmp_path / "logs" / "a.log", most=10)
    assert log.last_line() == ""
    with log.open() as stream:
        stream.write(b"first words\n")
        stream.flush()
        log.rotate()
        stream.write(b"more\n\n")
    assert log.last_line() == "more"
    assert log.path.read_bytes() == b"more\n\n"
    assert (tmp_path / "logs" / "a.log.1").read_text() == "first words\n"


class TestChild:
    def child(self, tmp_path, code):
        wanted = WantedProcess(name="c", kind="gateway", command=(sys.executable, "-c", code))
        self.facts = []
        return Child(wanted, LogFile(tmp_path / "c.log"), report=self.facts.append), wanted

    def test_a_crash_loop_is_visible_and_slows_down(self, tmp_path):
        one, wanted = self.child(tmp_path, "raise SystemExit('no port for me')")
        now, pauses = 0.0, []
        for _ in range(6):
            one.start(wanted, now, AT)
            one.process.wait()
            one.reap(now, AT)
            assert not one.alive
            pauses.append(one.present().due - now)
            now = one.present().due
        assert pauses == pytest.approx([0.0, 0.2, 0.5, 1.0, 2.0, 5.0])
        told = one.status(now)
        assert (told.state, told.restarts, told.ready, told.message) == ("waiting", 5, False, "no port for me")
        assert told.not_ready_since == AT
        assert one.status(now + 61).restarts == 0
        started, ended = self.facts[::2], self.facts[1::2]
        assert [one.attempt for one in started] == [1, 2, 4]
        assert [one.cause for one in started] == ["it should run", *["again, after exit code 1"] * 2]
        assert [one.cause for one in ended] == [
            "exit code 1",
            "exit code 1; end 2 of a crash loop",
            "exit code 1; end 4 of a crash loop",
        ]
        assert [one.pid for one in ended] == [one.pid for one in started]

    def test_the_life_that_ends_a_crash_loop_is_reported(self, tmp_path):
        one, wanted = self.child(tmp_path, "import time; time.sleep(60)")
        for now in (0.0, 1.0):
            one.start(wanted, now, AT)
            one.process.kill()
            one.process.wait()
            one.reap(now, AT)
        one.start(wanted, 2.0, AT)
        assert [fact.kind.rpartition("_")[2] for fact in self.facts] == ["started", "ended"] * 2
        one.observe(True, 3.0, AT)
        one.observe(True, 9.0, AT)
        assert (self.facts[-1].kind, self.facts[-1].attempt, len(self.facts)) == ("stack.process_started", 3, 5)
        one.stop(10.0, "the supervisor ends")
        one.process.wait()
        one.reap(10.0, AT)
        assert [fact.cause for fact in self.facts[5:]] == ["the supervisor ends"]

    @pytest.mark.parametrize(("answers", "expected"), [(True, [0.0, 0.0, 0.0]), (False, [0.0, 0.2, 0.5])])
    def test_a_life_that_answered_for_a_while_begins_the_pauses_anew(self, tmp_path, answers, expected):
        one, wanted = self.child(tmp_path, "import time; time.sleep(60)")
        now, pauses = 0.0, []
        for _ in range(3):
            one.start(wanted, now, AT)
            for later in (0.5, 5.0, 6.0):
                one.observe(answers, now + later, AT)
            one.process.kill()
            one.process.wait()
            one.reap(now + 6.0, AT)
            pauses.append(one.present().due - now - 6.0)
            now += 20.0
        assert self.facts[-1].cause.startswith("signal 9 (SIGKILL)")
        assert pauses == pytest.approx(expected)

    def test_what_is_asked_to_end_says_why(self, tmp_path):
        one, wanted = self.child(tmp_path, "import time; time.sleep(60)")
        one.start(wanted, 0.0, AT)
        one.stop(1.0, "its settings changed")
        one.process.wait()
        one.reap(2.0, AT)
        one.start(wanted, 2.0, AT)
        one.kill()
        one.process.wait()
        one.reap(3.0, AT)
        assert [fact.cause for fact in self.facts] == [
            "it should run",
            "its settings changed",
            "again, after its settings changed",
            "signal 9 (SIGKILL)",
        ]

    def test_a_program_that_is_not_there_is_no_end_of_the_supervisor(self, tmp_path):
        facts = []
        wanted = WantedProcess(name="c", kind="gateway", command=("/nowhere/program",))
        one = Child(wanted, LogFile(tmp_path / "c.log"), report=facts.append)
        one.start(one.wanted, 0.0, AT)
        assert not one.alive
        assert "cannot be started" in facts[0].cause

    def test_a_process_that_stops_answering_is_ended(self, tmp_path):
        one, wanted = self.child(tmp_path, "import time; time.sleep(60)")
        one.start(wanted, 0.0, AT)
        one.observe(False, 100.0, AT)  # it may take long to come up
        assert one.status(100.0).state == "starting"
        one.observe(True, 101.0, AT)
        assert one.status(101.0).state == "ready"
        one.observe(False, 130.0, AT)
        assert one.status(130.0).state == "not ready"
        one.observe(False, 131.5, AT)
        assert one.process.wait(timeout=60) == -signal.SIGKILL
        one.reap(132.0, AT)
        assert self.facts[-1].cause == "it did not answer for 30 s"

    def test_it_dies_with_its_starter(self, tmp_path, process):
        program = f"""
import sys; from datetime import UTC, datetime; from pathlib import Path
from cumulant.flows.stack.child_process import Child; from cumulant.flows.stack.child_process import LogFile
from cumulant.flows.stack.reconcile import WantedProcess
line = (sys.executable, "-c", "import time; time.sleep(60)")
one = Child(WantedProcess(name="c", kind="gateway", command=line), LogFile(Path({str(tmp_path)!r}) / "c.log"))
one.start(one.wanted, 0.0, datetime.now(UTC))
print(one.identity.pid, flush=True); import time; time.sleep(60)
"""
        line = [sys.executable, "-c", program]
        starter = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        identity = process_of(int(starter.stdout.readline()))
        starter.kill()
        starter.communicate()
        deadline = time.monotonic() + 30  # by itself it ends after a minute
        while not is_gone(identity) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert is_gone(identity)
