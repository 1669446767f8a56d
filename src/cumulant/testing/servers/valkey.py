"""A Valkey server of its own for tests and demos, which can be stopped, killed and started again on its port."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cumulant.core.system.child_processes import start
from cumulant.testing.servers.programs import free_port, required_program

_READY_SECONDS = 20.0


class ValkeyServer:
    """One server in memory. `options` are those of the command line."""

    def __init__(self, *options: str) -> None:
        self.port, self._options = free_port(), options
        self.url = f"valkey://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        command = [required_program("valkey-server"), "--port", str(self.port), "--bind", "127.0.0.1"]
        self.process = start(
            [*command, "--save", "", "--appendonly", "no", *self._options], death_signal=signal.SIGKILL
        )
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("valkey-server did not start")
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, *words: bytes) -> bytes:
        """The reply to one command, past the client under test."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
            link.sendall(b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)]))
            return link.recv(65536)


@contextmanager
def valkey_server(*options: str) -> Iterator[ValkeyServer]:
    """A running server; it is gone afterwards.

    Raises:
        FileNotFoundError: it is not installed.
    """
    server = ValkeyServer(*options)
    try:
        yield server
    finally:
        server.kill()
