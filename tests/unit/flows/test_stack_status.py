"""What is told of the processes once nobody keeps them running."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from cumulant.flows.ledger.processes import this_process
from cumulant.flows.stack.status import ChildStatus, Status, without_ended_processes

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_after_a_killed_supervisor_what_ended_with_it_is_not_called_ready():
    alive = this_process()
    gone = msgspec.structs.replace(alive, born="1")
    common = {"state": "ready", "ready": True, "since": NOW, "restarts": 0, "not_ready_since": None}
    children = (
        ChildStatus(name="server-1", kind="server", process=gone, **common),
        ChildStatus(name="gateway", kind="gateway", process=alive, **common),
    )
    known = Status(model="late", environment="local", supervisor=alive, since=NOW, at=NOW, url=None, children=children)
    assert without_ended_processes(known, NOW) == known, "its own words, while it lives"
    full = without_ended_processes(known, NOW + timedelta(seconds=50))
    assert full.trouble.startswith("the supervisor could not write this for 50 s")
    assert [(one.state, one.ready) for one in full.children] == [("waiting", False), ("ready", True)]
    found = without_ended_processes(msgspec.structs.replace(known, supervisor=gone))
    assert [(one.name, one.state, one.process, one.ready) for one in found.children] == [
        ("server-1", "ended", None, False),
        ("gateway", "ready", alive, True),
    ]
