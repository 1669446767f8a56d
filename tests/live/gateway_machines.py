"""Machines with a gateway and its agent: folders and names of their own, and a journal that they share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from cumulant.core.network.http_client import HttpClient, NoResponseError
from cumulant.ports.traffic import ListenOptions
from cumulant.project.file.loading import load
from cumulant.testing.conformance.routes import MODEL
from cumulant.testing.gateways import PATIENCE, wait_for

ENVIRONMENT = "prod"


class GatewayMachine:
    """A loopback address with a folder of its own. Its processes may be killed and started again."""

    def __init__(self, folder: Path, name: str, address: str, environment: str) -> None:
        self.name, self.folder = name, folder / name
        self.folder.mkdir()
        text = f"version: 1\nmodel: {{name: {MODEL}}}\nenvironments:\n  {ENVIRONMENT}: {{deploy: 'hosts://', {environment}}}\n"
        (self.folder / "cumulant.yaml").write_text(text)
        self.project = load(self.folder, environment=ENVIRONMENT)
        self.gateway = self.project.gateway()
        self._opening = ListenOptions(http=f"{address}:0", agent=True)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> GatewayMachine:
        self.start_gateway()
        self.start_agent()
        return self

    def start_gateway(self) -> None:
        """A gateway takes the same port each time."""
        self._start("gateway", self.gateway.command(self._opening))
        url = wait_for(self.gateway.address).url
        self._opening = ListenOptions(http=url.removeprefix("http://"), agent=True)

    def start_agent(self) -> None:
        command = [sys.executable, "-m", "cumulant.flows.traffic", str(self.folder), "--env", ENVIRONMENT]
        self._start("agent", command)

    def _start(self, what: str, command: list[str]) -> None:
        with (self.folder / f"{what}.out").open("ab") as output:
            self._processes[what] = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, "CUMULANT_HOST_NAME": self.name}
            )

    def send(self, what: str, number: int) -> None:
        self._processes[what].send_signal(number)

    def kill(self, what: str) -> None:
        self.end(what, signal.SIGKILL)

    def end(self, what: str, number: int = signal.SIGTERM) -> None:
        if process := self._processes.pop(what, None):
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            process.wait(PATIENCE)

    def stop(self) -> None:
        for what in list(self._processes):
            self.end(what, signal.SIGKILL)
        self.project.close()

    @property
    def url(self) -> str:
        return f"http://{self._opening.http}"

    def probe(self, path: str = "/ready") -> int:
        """The status that a load balancer gets; 0 where it gets none."""
        address = self.gateway.address()
        return 0 if address is None else _status(f"{address.admin}{path}")

    def reason(self) -> str:
        """What `/ready` says."""
        return HttpClient(seconds=2.0).get(f"{wait_for(self.gateway.address).admin}/ready").body.decode()

    def callers_probe(self) -> int:
        """As `probe`, at the address of callers."""
        return _status(f"{self.url}/ready")

    def output(self, what: str) -> str:
        return (self.folder / f"{what}.out").read_text()


def _status(url: str) -> int:
    try:
        return HttpClient(seconds=2.0).get(url).status
    except NoResponseError:
        return 0
