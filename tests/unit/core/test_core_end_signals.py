"""The signals that end a process."""

from __future__ import annotations

import subprocess
import sys

#: the main thread is always in `wait` when the signal comes, often with the event's lock
CODE = """
import os, signal, threading
from cumulant.core.system.end_signals import end_event
for _ in range(100):
    ending = end_event()
    threading.Timer(0.001, os.kill, (os.getpid(), signal.SIGTERM)).start()
    while not ending.wait(0):
        pass
print("ended")
"""


def test_a_signal_during_a_wait_ends_it() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
