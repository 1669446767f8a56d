"""A backup that is taken while others write, and what is restored from it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from backup_support import backup, forked
from backup_writers import Rows

from cumulant.flows.backup.restore import restore
from cumulant.flows.ledger.run_events import verify
from cumulant.flows.outcomes.outcome_logs import logs_of
from cumulant.outcomes.labels.label_facts import newest_labels
from cumulant.ports.log import UNDATED
from cumulant.project.file.loading import load
from cumulant.serving.prediction_log.storage.recovery import recover
from cumulant.serving.prediction_log.storage.retention import upkeep
from cumulant.serving.prediction_log.storage.scanning import scan
from cumulant.testing.log import folder_log, lines_of

HERE = Path(__file__).parent
ROLES = ("events", "rows", "labels", "moves")


@contextmanager
def writers(root):
    line = [sys.executable, str(HERE / "backup_writers.py"), str(root)]
    running = [subprocess.Popen([*line, role]) for role in ROLES]
    try:
        yield
        assert all(one.poll() is None for one in running)
    finally:
        for one in running:
            one.kill()
            one.wait()


def accepted(root, least=0):
    """How many of each role were accepted; waits for `least`."""
    until = time.monotonic() + 60
    while True:
        found = dict.fromkeys(ROLES, 0)
        found |= {path.stem: len(path.read_text().split()) for path in root.glob("*.accepted")}
        if min(found[role] for role in ROLES[:3]) >= least and found["moves"]:
            return found
        assert time.monotonic() < until, found
        time.sleep(0.02)


def labelled(folder):
    """Ids of labels, taken in or still posted."""
    with load(folder) as project:
        logs = logs_of(project)
        posted = [json.loads(line)["id"] for line in lines_of(logs.inbox, logs.inbox.parts(UNDATED))]
        facts, _ = newest_labels(logs, datetime.now(UTC), limit=None)
        return {*posted, *(fact.id for fact in facts)}


@pytest.mark.slow
def test_all_that_was_accepted_before_the_start_is_restored(root, tmp_path):
    with writers(root):
        for number in range(2):
            before = accepted(root, 5 * (number + 1))
            done = backup(root, tmp_path / f"{number}.tar")
            folder = tmp_path / f"restored-{number}"
            restore(done.archive, folder)
            with load(folder) as project:
                journal = project.journal()
                assert verify(journal, known=done.manifest.head_hash).breaks == []
                numbers = [event.data["number"] for event in journal.events(kinds=("test.noted",))]
                assert set(numbers) >= set(range(before["events"]))
                assert len(journal.rows("note")) == len(numbers) - 1, "rows and events are of one moment"
            logged = (
                scan(folder_log(folder / ".cumulant" / "predictions"))
                .dataset.to_table(columns=["id"])["id"]
                .to_pylist()
            )
            assert len(logged) == len(set(logged)), "a merged file and its parts are not counted twice"
            assert set(logged) >= {f"r{one}" for one in range(before["rows"])}
            assert labelled(folder) >= {f"r{one}" for one in range(before["labels"])}


def test_parts_that_are_merged_while_they_are_read_are_in_it_once(root, tmp_path):
    log = root / ".cumulant" / "predictions"
    rows = Rows(log)
    for number in range(6):
        rows.put(f"r{number}")
    merged = []

    def merge(event, arguments):
        if event == "open" and str(arguments[0]).endswith(".parquet") and not merged:
            merged.append(1)
            upkeep(folder_log(log), keep=None, file_size=1 << 20, file_age=0.0)

    assert forked(lambda: sys.addaudithook(merge), lambda: backup(root, tmp_path / "b.tar")) == 0
    restore(tmp_path / "b.tar", tmp_path / "restored")
    ids = (
        scan(folder_log(tmp_path / "restored" / ".cumulant" / "predictions"))
        .dataset.to_table(columns=["id"])["id"]
        .to_pylist()
    )
    assert sorted(ids) == [f"r{number}" for number in range(6)]
    assert len(list(log.glob("date=*/*.parquet"))) == 1, "they were merged meanwhile"


@pytest.mark.parametrize("published", [False, True])
def test_rows_in_a_journal_of_the_log_are_in_it_and_recovered_once(root, tmp_path, published):
    log = root / ".cumulant" / "predictions"
    rows = Rows(log)
    for number in range(3):
        rows.put_durable(f"r{number}")
    (journal,) = log.glob("date=*/.*.journal")
    content = journal.read_bytes()
    if published:
        rows.parts.close()
        journal.write_bytes(content)  # read before its part was published
    else:
        with journal.open("ab") as stream:
            stream.write(content[: len(content) // 3 - 1])  # a record that is being written
    backup(root, tmp_path / "b.tar")
    restore(tmp_path / "b.tar", tmp_path / "restored")
    restored = tmp_path / "restored" / ".cumulant" / "predictions"
    recover(restored)
    ids = scan(folder_log(restored)).dataset.to_table(columns=["id"])["id"].to_pylist()
    assert sorted(ids) == ["r0", "r1", "r2"]
    assert list(restored.glob("date=*/.*")) == []
