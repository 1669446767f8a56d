"""Findings, looks and what a receiver was told."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import msgspec

from cumulant.alerting.alert_state import Finding
from cumulant.core.events import Actor
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.alerting.receiver_state import read_receiver_state, write
from cumulant.ports.access import Principal
from cumulant.ports.notifier import Message
from cumulant.project.file.loading import load
from cumulant.testing.clock import ManualClock

ADA = Principal("user:ada")


START = datetime(2026, 11, 24, 6, tzinfo=UTC)


def made(folder, *urls, more=""):
    listed = ", ".join(f'"{url}"' for url in urls)
    folder.mkdir(exist_ok=True)
    text = f"version: 1\nmodel: {{name: late}}\nmonitoring:\n  notify: [{listed}]\n  alerts: {{resolve_after: 0s}}\n"
    (folder / "cumulant.yaml").write_text(text + more)
    return load(folder)


def finding(subject="fare", rule="feed", **other):
    named = {"model": "late", "moved": "it moved", "since": START} | other
    return Finding(rule=rule, subject=subject, **named)


def see(project, *found, hours=0, **other):
    return observe(project, found, principal=ADA, clock=ManualClock(START + timedelta(hours=hours)), **other)


def told(web):
    return [(document["status"], document["subject"]) for _, _, document in web.posts]


def kinds(project):
    return [event.kind for event in project.journal().events()]


def round_of(postman):
    postman.round()
    return True


def wait_for(what):
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def notice(number, level="info"):
    return Message(
        key=str(number),
        kind="notice",
        status="notice",
        level=level,
        model="late",
        rule="x",
        subject="y",
        title="t",
        text="t",
        at=START + timedelta(minutes=number),
    )


def labels(web):
    return [document[0]["labels"]["subject"] for _, _, document in web.posts]


#: delivers when a line comes
PROGRAM = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from cumulant.project.file.loading import load
from cumulant.flows.alerting.alerts import deliver
from cumulant.testing.clock import ManualClock
print("here", flush=True)
sys.stdin.readline()
late = load(Path(sys.argv[1]))
deliver(late, clock=ManualClock(datetime(2026, 11, 24, 6, tzinfo=UTC)))
"""


@contextmanager
def delivering_process(late):
    """A process that delivers when the block ends; it has ended then too."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(late.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        yield process
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(60)


def end_holder(journal, receiver):
    """The claim of a receiver as the row of a process that is gone."""
    state, version = read_receiver_state(journal, receiver)
    gone = msgspec.structs.replace(state, holder=msgspec.structs.replace(state.holder, born="1"))
    with journal.transaction(actor=Actor("x")) as transaction:
        write(transaction, receiver, gone, version)
