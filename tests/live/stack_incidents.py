"""Incidents of a stack under load, each by a real cause."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import msgspec
from e2e_stack import BODY, MODEL, Stack, free_ports, until

from cumulant.core.traffic import ARM_HEADER, CANDIDATE, KEY_HEADER
from cumulant.flows.stack.desired_state import DesiredState, ServedVersion, change_desired_state

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "serving"))
import serving_graphs

_WIDTH, _CALLERS = 1_500, 16
_PATH = f"/v2/models/{MODEL}/infer"


@contextmanager
def full_queue(running: Stack) -> Iterator[str]:
    """A version that takes long for each row, with more callers than it can answer; the name of its process."""
    folder, version = running.folder / "models" / "4", "4"
    serving_graphs.slow(folder, size=_WIDTH, depth=6, name=MODEL, version=version)
    (port,) = free_ports(1)
    line = (sys.executable, "-m", "cumulant.serving", str(folder), "--behind-gateway", "--queue", "1ms")
    served = ServedVersion(version=version, command=line, port=port)
    _desire(running, lambda desired: {"candidate": version, "versions": desired.versions | {version: served}})
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, _WIDTH], "data": [0.5] * _WIDTH}
    body, done, refused = json.dumps({"inputs": [tensor]}), threading.Event(), threading.Event()

    def call() -> None:
        with httpx.Client(timeout=60) as client:
            while not done.is_set():
                if client.post(f"http://127.0.0.1:{port}{_PATH}", content=body).status_code == 429:
                    refused.set()

    name = f"server-{version}"
    running.ready(name)
    try:
        with ThreadPoolExecutor(_CALLERS) as pool:
            calls = [pool.submit(call) for _ in range(_CALLERS)]
            try:
                until(refused.is_set)
                yield name
            finally:
                done.set()
        for each in calls:
            each.result()
    finally:
        _desire(running, lambda desired: {"candidate": None})


def _desire(running: Stack, changes: Callable[[DesiredState], dict[str, object]]) -> None:
    change_desired_state(
        running.project.state, MODEL, lambda desired: msgspec.structs.replace(desired, **changes(desired))
    )


def add_durable_version(running: Stack) -> str:
    """A version that answers as the champion, and only once its prediction log has the answer; its name."""
    folder, version = running.folder / "models" / "5", "5"
    serving_graphs.scale(folder, name=MODEL, version=version)
    (port,) = free_ports(1)
    line = (sys.executable, "-m", "cumulant.serving", str(folder), "--behind-gateway", "--log-write", "durable")
    line += ("--log", str(running.folder / "durable"))
    served = ServedVersion(version=version, command=line, port=port)
    _desire(running, lambda desired: {"versions": desired.versions | {version: served}})
    return version


@contextmanager
def objectives(running: Stack, text: str) -> Iterator[None]:
    """The project declares objectives while the block lasts."""
    file = running.folder / "cumulant.yaml"
    before = file.read_text()
    file.write_text(before.replace("serving: {", f"serving: {{slo: {text}, "))
    try:
        yield
    finally:
        file.write_text(before)


@contextmanager
def uneven_traffic(running: Stack) -> Iterator[None]:
    """Callers of the champion's arm go away, as behind a client that keeps the answers of one version."""
    done = threading.Event()

    def call() -> None:
        with httpx.Client(base_url=running.url(), timeout=60) as client:
            keys = [key for key in map("caller {}".format, range(400)) if _arm(client, key) == CANDIDATE]
            while not done.is_set():
                for key in keys:
                    _arm(client, key)

    with ThreadPoolExecutor(1) as pool:
        calls = pool.submit(call)
        try:
            yield
        finally:
            done.set()
        calls.result()


def _arm(client: httpx.Client, key: str) -> str:
    headers = {"content-type": "application/json", KEY_HEADER: key}
    return client.post(_PATH, content=BODY, headers=headers).headers.get(ARM_HEADER, "")


@contextmanager
def hanging_log(pid: int) -> Iterator[None]:
    """The process that writes the server's prediction log stands still, as on a disk that hangs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (log,) = (int(child) for child in children if b"prediction_log" in Path(f"/proc/{child}/cmdline").read_bytes())
    os.kill(log, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(log, signal.SIGCONT)


@contextmanager
def slowed(pid: int, seconds: float = 0.12) -> Iterator[None]:
    """The process runs for a moment and stands still for `seconds`, in turns, as under a limit of its CPU."""
    done = threading.Event()

    def pace() -> None:
        with suppress(ProcessLookupError):
            while not done.is_set():
                os.kill(pid, signal.SIGSTOP)
                time.sleep(seconds)
                os.kill(pid, signal.SIGCONT)
                time.sleep(seconds / 4)

    thread = threading.Thread(target=pace)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
