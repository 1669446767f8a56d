"""A process that is killed at any point leaves no action, acknowledged or not, without the event that allowed it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cumulant.flows.ledger.run_events import verify
from cumulant.project.file.loading import load

SCRIPT = Path(__file__).with_name("acting_process.py")
KILLS = 208


@pytest.mark.slow
def test_no_action_without_its_record(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: late}\n")
    with load(tmp_path) as project:
        project.journal().head()
    line = [sys.executable, SCRIPT, tmp_path, str(KILLS), "36"]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=500, check=False)
    assert ended.returncode == 0, ended.stderr
    processes = json.loads(ended.stdout)
    acknowledged = {name for names in processes for name in names}
    acted = {name for path in tmp_path.glob("acted-*") for name in path.read_text().split("\n") if name}
    with load(tmp_path) as project:
        recorded = {event.data["resource"] for event in project.journal().events(kinds=["access.allowed"])}
        assert verify(project.journal()).breaks == []
    assert (len(processes), min(map(len, processes)) > 0) == (KILLS, True)
    assert acknowledged <= acted <= recorded
    assert len({len(names) for names in processes}) > 2, "the kills came after different numbers of actions"
