"""Copies of SQLite databases: unfinished, locked, damaged and in folders that cannot be written."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress

import pytest
from backup_support import backup, files, forked

from cumulant.core.errors import IntegrityError
from cumulant.flows.backup.databases import copy_database
from cumulant.flows.backup.restore import restore
from cumulant.project.file.loading import load


def test_what_a_killed_writer_left_in_a_database_is_undone_in_the_copy(root, place):
    path = root / ".cumulant" / "mlflow.db"

    def unfinished():
        database = sqlite3.connect(path, isolation_level=None)
        database.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1); PRAGMA cache_size = 1; BEGIN")
        database.executemany("INSERT INTO t VALUES (zeroblob(?))", [(4000,)] * 500)
        os.kill(os.getpid(), signal.SIGKILL)

    assert forked(lambda: None, unfinished) == -signal.SIGKILL
    assert path.with_name("mlflow.db-journal").exists()
    restore(backup(root, place / "b.tar").archive, place / "restored")
    with closing(sqlite3.connect(place / "restored" / ".cumulant" / "mlflow.db")) as database:
        assert database.execute("SELECT x FROM t").fetchall() == [(1,)]


def test_a_locked_database_is_reported_after_a_while_and_the_wait_can_be_interrupted(tmp_path):
    path = tmp_path / "a.db"
    line = (
        "import sys; from pathlib import Path; from cumulant.flows.backup import databases as d; "
        "d._WAIT = float(sys.argv[1]); print('begun', flush=True); "
        "d.copy_database(Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript("CREATE TABLE t (x); BEGIN EXCLUSIVE")
        for wait, interrupt, words in (("0.1", False, "a.db is busy"), ("60", True, "KeyboardInterrupt")):
            process = subprocess.Popen(
                [sys.executable, "-c", line, wait, path, tmp_path / "out.db"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stdout.readline()
            while interrupt:  # Python drops one that comes while it runs a finalizer
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                    break
            assert words in process.communicate(timeout=30)[1]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_what_is_not_in_the_file_yet_is_copied_from_a_folder_that_cannot_be_written(tmp_path, monkeypatch, mode):
    closed, path = tmp_path / "closed", tmp_path / "closed" / "a.db"
    closed.mkdir()

    def writer():
        database = sqlite3.connect(path, isolation_level=None)
        database.executescript(f"PRAGMA journal_mode = {mode}; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        if mode == "delete":
            database.executescript("PRAGMA cache_size = 1; BEGIN")
            database.executemany("INSERT INTO t VALUES (zeroblob(?))", [(4000,)] * 500)
        os.kill(os.getpid(), signal.SIGKILL)

    assert forked(lambda: None, writer) == -signal.SIGKILL
    before = files(closed)
    assert len(before) > 1
    monkeypatch.setattr(os, "access", lambda *_: False)  # root can write everywhere
    copy_database(path, tmp_path / "out.db")
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        assert database.execute("SELECT x FROM t").fetchall() == [(1,)]
    assert files(closed) == before
    assert {one.name for one in tmp_path.iterdir()} == {"closed", "out.db"}


def test_a_damaged_database_is_named_and_not_backed_up(root, place):
    path = root / ".cumulant" / "online.db"
    with load(root) as project:
        project.online().put("table", [(f"{n}".encode(), b"x" * 100) for n in range(2000)])
    content = bytearray(path.read_bytes())
    content[5000:9000] = os.urandom(4000)
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"online\.db is damaged"):
        backup(root, place / "b.tar")
    assert list(place.iterdir()) == []
