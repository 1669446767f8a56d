"""A writer that does not end: others wait for a limited time, and name it."""

import os
import signal
import subprocess
import sys

import pytest

from cumulant.core.errors import EngineUnavailableError
from cumulant.core.system.sqlite_files import find_writer
from cumulant.drivers.local.sqlite import Database

WRITER = """
import sys, time
from pathlib import Path
from cumulant.drivers.local.sqlite import Database
with Database(Path(sys.argv[1]), schema="CREATE TABLE t (a)", version=1, holds="journal").write() as connection:
    connection.execute("INSERT INTO t VALUES (1)")
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "journal.db")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begun\n"
        yield process
        process.kill()


def opened(folder, wait=0.1):
    return Database(folder / "journal.db", schema="CREATE TABLE t (a)", version=1, holds="journal", wait=wait)


def write(database):
    with database.write() as connection:
        connection.execute("INSERT INTO t VALUES (2)")


def rows(database):
    with database.read() as connection:
        return connection.execute("SELECT a FROM t").fetchall()


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="only Linux tells who holds a lock")
@pytest.mark.parametrize("stopped", [True, False])
def test_the_process_that_holds_the_file_is_named(tmp_path, writer, stopped):
    if stopped:
        os.kill(writer.pid, signal.SIGSTOP)
        os.waitpid(writer.pid, os.WUNTRACED)
    database = opened(tmp_path)
    assert rows(database) == []  # readers do not wait
    with pytest.raises(EngineUnavailableError, match=rf"busy: process {writer.pid} \(.*has been writing") as caught:
        write(database)
    assert ("which is stopped" in caught.value.message) == stopped
    assert (f"kill -CONT {writer.pid}" in caught.value.hint) == stopped
    assert find_writer(database.path).pid == writer.pid
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    write(opened(tmp_path, wait=60.0))
    assert rows(database) == [(2,)]
    assert find_writer(database.path) is None
    database.close()


def test_no_file_has_no_writer(tmp_path):
    assert find_writer(tmp_path / "none.db") is None
