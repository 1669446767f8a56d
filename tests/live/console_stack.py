"""The console as a process of its own beside a stack, and people signed in to it by one-time links."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from console_browser import Tab
from e2e_stack import free_ports, until

from cumulant.flows.identities.sign_in_links import create_link, link_url
from cumulant.ports.access import Principal
from cumulant.project.project import Project


class ConsoleProcess:
    """`cumulant api` of projects on a port that it keeps when it is killed and started again."""

    def __init__(self, folder: Path, *others: Path) -> None:
        self._folder, self._others = folder, others
        (self._port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        line = [sys.executable, "-m", "cumulant.cli", "api", "--http", f"127.0.0.1:{self._port}", "--no-link"]
        line += [word for folder in self._others for word in ("--with", str(folder))]
        with (self._folder.parent / "console.log").open("ab") as log:
            self._process = subprocess.Popen([*line, "--project", str(self._folder)], stdout=log, stderr=log)
        until(self._answers)

    def kill(self) -> None:
        """End it at once, without a word to those who are connected."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(60)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It keeps its connections and answers nothing while the block runs, as if the network had lost them."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder.parent / "console.log").read_text()
        try:
            return httpx.get(f"{self.url}/v1/health/live", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def console(folder: Path, *others: Path) -> Iterator[ConsoleProcess]:
    process = ConsoleProcess(folder, *others)
    process.start()
    try:
        yield process
    finally:
        process.stop()


def sign_in(opened: object, process: ConsoleProcess, project: Project, name: str) -> Tab:
    """A browser of its own in which `name` is signed in."""
    tab = Tab(opened, process.url)
    tab.open(link_url(process.url, create_link(project, principal=Principal(f"user:{name}", via="cli"))))
    return tab
