"""Stop a process that writes to a database of SQLite."""

import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path


def stop_outside_writes(process: subprocess.Popen[str], path: Path | str) -> None:
    """Stop the process while it holds no write lock on the database, which nobody could take from it."""
    deadline = time.monotonic() + 60
    while True:
        process.send_signal(signal.SIGSTOP)
        with closing(sqlite3.connect(path, timeout=0.1, isolation_level=None)) as probe:
            try:
                probe.execute("BEGIN IMMEDIATE")
                probe.execute("ROLLBACK")
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)
                assert time.monotonic() < deadline, "it always writes"
                time.sleep(0.05)
            else:
                return
