"""Kills, a full disk and folders that cannot be used, during a backup and during a restore."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys

import pytest
from backup_support import backup, files, forked

from cumulant.core.errors import StorageError
from cumulant.flows.backup.restore import restore
from cumulant.flows.ledger.run_events import verify
from cumulant.project.file.loading import load


def killing(number):
    """The process ends with SIGKILL before the call with that number that opens or renames a file."""
    left = [number]

    def look(event, arguments):
        if event in ("open", "os.rename"):
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return lambda: sys.addaudithook(look)


def full_disk(limit):
    """No file can grow beyond `limit` bytes: what a full disk does to a write."""

    def arm():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return arm


def test_a_killed_backup_leaves_nothing_that_counts_as_one(root, place, tmp_path):
    ended = set()
    for number in range(1, 40, 3):
        target = place / f"{number}.tar"
        ended.add(forked(killing(number), lambda to=target: backup(root, to)))
        if target.exists():  # it ended after the renaming
            restore(target, tmp_path / f"from-{number}")
    assert -signal.SIGKILL in ended
    backup(root, place / "last.tar")
    assert [path.name for path in place.glob(".*")] == [], "drafts of killed processes are removed"
    with load(root) as project:
        assert verify(project.journal()).breaks == []


def test_a_killed_restore_leaves_nothing_in_place(root, place, tmp_path):
    done = backup(root, tmp_path / "b.tar")
    ended = set()
    for number in range(1, 40, 3):
        target = place / f"restored-{number}"
        ended.add(forked(killing(number), lambda to=target: restore(done.archive, to)))
        if target.exists():
            assert {one.path for one in done.manifest.files} <= set(files(target)), "it ended after the renaming"
    assert -signal.SIGKILL in ended
    restore(done.archive, place / "last")
    assert [path.name for path in place.glob(".*")] == []


def test_a_full_disk_is_reported_and_leaves_nothing(root, place, tmp_path):
    assert forked(full_disk(120_000), lambda: backup(root, place / "b.tar")) == 3
    done = backup(root, tmp_path / "b.tar")
    assert forked(full_disk(50_000), lambda: restore(done.archive, place / "restored")) == 3
    assert list(place.iterdir()) == []


def test_a_folder_that_cannot_be_read_ends_the_backup(root, place, monkeypatch):
    day = root / ".cumulant" / "predictions" / "date=2026-11-02"
    day.mkdir(parents=True)
    scandir = os.scandir

    def failing(path="."):
        if str(path) == str(day):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)  # a bad disk
    with pytest.raises(StorageError, match="date=2026-11-02 cannot be written or read: Input/output error"):
        backup(root, place / "b.tar")
    assert list(place.iterdir()) == []


def test_a_storage_error_says_what_to_do(root, place):
    done = backup(root, place / "b.tar")
    with pytest.raises(StorageError) as caught:
        restore(done.archive, root / "cumulant.yaml" / "restored")
    assert "name another folder" in caught.value.hint
