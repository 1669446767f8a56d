"""A real server whose log process, or all processes, are killed while it answers."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from log_support import listens, wait_for
from serving_models import ROW

from cumulant.serving.prediction_log.storage.log_reader import find_gaps
from cumulant.serving.prediction_log.storage.scanning import scan
from cumulant.testing.log import folder_log

PREDICT = "/v1/models/flight-late/predict"


def start(folder, log, *more, stderr=None):
    line = [sys.executable, "-m", "cumulant.serving", str(folder), "--http", "127.0.0.1:0", "--log", str(log), *more]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=stderr, text=True)
    return process, json.loads(process.stdout.readline())


def stop(process):
    process.terminate()
    process.wait(timeout=60)
    process.stdout.close()
    if process.stderr is not None:
        process.stderr.close()


def descendants(pid):
    """Of a process, with their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            line = (entry / "cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            continue
        if parent == pid and entry.name.isdigit():
            found += [(int(entry.name), line), *descendants(int(entry.name))]
    return found


def _listening(process):
    for pid, line in descendants(process.pid):
        words = line.decode().split("\0")
        if "cumulant.serving.prediction_log" in words and listens(words[words.index("--socket") + 1]):
            return pid
    return None


def log_process(process):
    """The log process of a server, once it listens."""
    return wait_for(lambda: _listening(process))


def kill_log(process):
    os.kill(log_process(process), signal.SIGKILL)


def kill_all(process):
    """End a server and all that it started, with no time to write anything."""
    pids = [process.pid, *(pid for pid, _ in descendants(process.pid))]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


class Load:
    """Callers of a server, each on its own connection; a request counts as acknowledged once its answer is read."""

    def __init__(self, url, callers=4, *, first=0):
        self.acknowledged, self.refused = [], 0
        self._address = url.removeprefix("http://")
        self._over, self._numbers, self._lock = threading.Event(), first, threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def _ask(self):
        connection = http.client.HTTPConnection(self._address, timeout=60)
        body = json.dumps(ROW).encode()
        while not self._over.is_set():
            with self._lock:
                self._numbers += 1
                name = f"r{self._numbers:08d}"
            try:
                connection.request("POST", PREDICT, body, {"x-request-id": name, "content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                time.sleep(0.05)
                continue
            if answer.status == 200:
                self.acknowledged.append(name)
            else:
                self.refused += 1
        connection.close()

    def end(self):
        """The number of the last request."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        return self._numbers


@contextmanager
def loaded(url, **more):
    load = Load(url, **more)
    try:
        yield load
    finally:
        load.end()


def missing(log, acknowledged):
    """Acknowledged requests that the log does not have, and those that its gaps and kept rows do not account for."""
    found = scan(folder_log(log)).dataset.to_table(columns=["id", "worker", "sequence"])
    names = found["id"].to_pylist()
    assert len(names) == len(set(names)), "a row is there twice"
    counted = sum(gap.count for gap in find_gaps(folder_log(log)))
    lost = len(set(acknowledged) - set(names))
    return lost, counted
