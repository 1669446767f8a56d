"""What is told of the processes once nobody keeps them running."""

from __future__ import annotations

import io
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import msgspec
import pytest
from rich.console import Console

from cumulant.cli.project.doctor import processes
from cumulant.cli.serving.stack_table import table
from cumulant.core.errors import EngineUnavailableError
from cumulant.core.progress import silent
from cumulant.flows.deployment.host_lifecycle import HostOptions
from cumulant.flows.ledger.processes import process_of, this_process
from cumulant.flows.stack import lifecycle
from cumulant.flows.stack.desired_state import FOLDER
from cumulant.flows.stack.identity import Home
from cumulant.flows.stack.stack_processes import logs_folder
from cumulant.flows.stack.status import ChildStatus, Status, without_ended_processes, write_status

HOME = Home(folder="", inode=0, host="", device=None)
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_after_a_killed_supervisor_what_ended_with_it_is_not_called_ready(tmp_path):
    alive = this_process()
    gone = msgspec.structs.replace(alive, born="1")
    common = {"state": "ready", "ready": True, "since": NOW, "restarts": 0, "not_ready_since": None}
    children = (
        ChildStatus(name="server-1", kind="server", process=gone, **common),
        ChildStatus(name="gateway", kind="gateway", process=alive, **common),
    )
    known = Status(
        model="late", environment="local", supervisor=alive, since=NOW, at=NOW, url=None, home=HOME, children=children
    )
    assert without_ended_processes(known, NOW) == known, "its own words, while it lives"
    full = without_ended_processes(known, NOW + timedelta(seconds=50))
    assert full.trouble.startswith("the supervisor could not write this for 50 s")
    assert [(one.state, one.ready) for one in full.children] == [("waiting", False), ("ready", True)]
    hung = ChildStatus(name="controller", kind="controller", process=alive, **common)
    hung = msgspec.structs.replace(hung, state="not ready", ready=False, message="no step", not_ready_since=NOW)
    starting = msgspec.structs.replace(hung, state="starting")
    late = "controller is not ready since 2026-11-24 00:00 UTC: no step"
    later = datetime.now(UTC) + timedelta(hours=1)  # the check uses the clock of this machine, which may stop for long
    now = msgspec.structs.replace(known, at=later, children=(children[1], hung))
    for status, expected in (
        (now, ("warn", late, "cumulant ps")),
        (
            msgspec.structs.replace(now, children=(children[1], starting)),
            ("ok", "1 of `cumulant up` answer; controller is starting"),
        ),
        (msgspec.structs.replace(now, supervisor=gone), ("fail", "those of `cumulant up` have ended without `down`")),
        (msgspec.structs.replace(now, children=children[1:]), ("ok", "1 of `cumulant up` answer")),
    ):
        (tmp_path / FOLDER).mkdir(exist_ok=True)
        write_status(tmp_path, status)
        [finding] = processes(SimpleNamespace(state=tmp_path))
        assert (finding.state, finding.detail, finding.fix)[: len(expected)] == expected
    text = io.StringIO()
    Console(file=text, width=400).print(table(now))
    assert "since 2026-11-24 00:00 UTC: no step" in text.getvalue()
    found = without_ended_processes(msgspec.structs.replace(known, supervisor=gone))
    assert [(one.name, one.state, one.process, one.ready) for one in found.children] == [
        ("server-1", "ended", None, False),
        ("gateway", "ready", alive, True),
    ]


@pytest.mark.parametrize(
    ("ready", "name"), [(None, "supervisor"), ((True, False), "gateway"), ((False, False), "server-1")]
)
def test_a_process_that_is_late_is_named_with_the_last_line_of_its_log(tmp_path, monkeypatch, ready, name):
    monkeypatch.setattr(lifecycle, "_READY_SECONDS", 0.3)
    logs_folder(tmp_path).mkdir(parents=True)
    (logs_folder(tmp_path) / f"{name}.log").write_text("first\nlast\n")
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        if ready is not None:
            common = {"state": "starting", "since": NOW, "restarts": 0, "not_ready_since": NOW}
            children = (
                ChildStatus(name="server-1", kind="server", ready=ready[0], **common),
                ChildStatus(name="gateway", kind="gateway", ready=ready[1], **common),
                ChildStatus(name="controller", kind="controller", ready=False, **common),
            )
            supervisor = process_of(process.pid)
            known = Status(
                model="late",
                environment="local",
                supervisor=supervisor,
                since=NOW,
                at=NOW,
                url=None,
                home=HOME,
                children=children,
            )
            write_status(tmp_path, known)
        with pytest.raises(EngineUnavailableError, match=rf"^{name} did not answer within 0.3 s: last$") as caught:
            lifecycle._await(SimpleNamespace(state=tmp_path), process, HostOptions(), silent)
        assert str(logs_folder(tmp_path) / f"{name}.log") in caught.value.hint
        process.kill()
