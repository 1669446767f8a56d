"""Machines simulated on this one: each has a folder, a name and an address of its own, and shares only the stores."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import e2e_registry
import msgspec
import pytest
from e2e_stack import BODY, MODEL, RELEASE, STEPS, free_ports, until

from cumulant.core.events import Actor
from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.flows.deployment.deployment import HostsDeployment, with_servers
from cumulant.flows.deployment.host_report import HostReport, read_reports
from cumulant.flows.release import store
from cumulant.flows.stack.status import read_status
from cumulant.flows.traffic.clients import traffic_of
from cumulant.ports.deploy import ServedSpec
from cumulant.project.file.loading import load
from cumulant.project.project import Project
from cumulant.project.release_section import release_policy
from cumulant.release.state import Release

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "serving"))
import serving_graphs

SALT = "0123456789abcdef0123456789abcdef"
FILE = (
    """\
version: 1
model: {{name: graph}}
environments:
  local:
    deploy: hosts://
    tracking_uri: 'noted://'
    journal: '{journal}'
    store: 'file://{shared}/store'
    log: 'file://{shared}/log'
    salt: ${{secret:SALT}}
serving: {{http: '127.0.0.1:{port}'}}
"""
    + RELEASE
)


class Machine:
    """One machine. Its address is one of loopback."""

    def __init__(self, place: Path, name: str, address: str, text: str) -> None:
        self.name, self.address, self.folder = name, address, place / name
        self._text = text
        self.prepare()

    def prepare(self) -> None:
        """The project's folder, as version control gives it."""
        self.folder.mkdir()
        (self.folder / "cumulant.yaml").write_text(self._text)

    def run(self, *words: str, codes: tuple[int, ...] = (0,)) -> Any:
        """A command on this machine; the document that it printed."""
        line = [sys.executable, "-m", "cumulant.cli", *words, "--project", str(self.folder), "--json"]
        done = subprocess.run(
            line,
            env=self._variables(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            start_new_session=True,
        )
        assert done.returncode in codes, f"{self.name} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    def up(self, *roles: str) -> Any:
        words = [word for role in roles for word in ("--role", role)]
        address = ["--advertise", self.address] if "servers" in roles else []
        return self.run("up", "--detach", *words, *address)

    def kill(self) -> None:
        """End every process of the machine at once, and delete its folder."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.processes())
        shutil.rmtree(self.folder)

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """A process of the machine that hangs while the block runs."""
        pid = self._pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def end(self, name: str) -> None:
        """End a process of the machine at once."""
        os.kill(self._pid(name), signal.SIGKILL)

    def _pid(self, name: str) -> int:
        status = read_status(self.folder / ".cumulant")
        pid = next(child.pid for child in status.children if child.name == name) if status else None
        assert pid is not None
        return pid

    def processes(self) -> list[int]:
        name = f"CUMULANT_HOST_NAME={self.name}".encode()
        folder = str(self.folder.parent).encode()
        pids = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                variables = path.read_bytes()
                if name in variables.split(b"\0") and folder in variables:
                    pids.append(int(path.parent.name))
        return pids

    def logs(self) -> str:
        """The end of each log, for a test that fails."""
        paths = sorted((self.folder / ".cumulant" / "stack" / "logs").glob("*.log"))
        return "\n".join(f"--- {self.name} {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in paths)

    def _variables(self) -> Mapping[str, str]:
        return os.environ | {"CUMULANT_HOST_NAME": self.name}


class Hosts:
    """Machines of one project whose versions 1 and 2 are equal."""

    def __init__(self, place: Path, journal: str) -> None:
        self._place = place
        (self.port,) = free_ports(1)
        (place / "shared").mkdir()
        self._text = FILE.format(journal=journal, shared=place / "shared", port=self.port)
        self._machines: dict[str, Machine] = {}
        operator = self.add("operator")
        self.project: Project = load(operator.folder)
        self.deployment = HostsDeployment(self.project)
        self.url = f"http://127.0.0.1:{self.port}"

    def add(self, name: str) -> Machine:
        """A machine that has nothing but the project's files."""
        address = f"127.0.1.{len(self._machines) + 1}"
        machine = self._machines[name] = Machine(self._place, name, address, self._text)
        return machine

    def ensure(self, version: str, key: str = "servable") -> None:
        """A version whose servable is in the shared objects; another `key` is another copy of it."""
        folder = self._place / "models" / f"{key}-{version}"
        serving_graphs.scale(folder, name=MODEL, version=version)
        self.project.objects().put(folder.name, folder)
        self.deployment.ensure(MODEL, [ServedSpec(version=version, servable=folder.name)])

    def serve(self, version: str) -> None:
        self.ensure(version)
        self.deployment.change(MODEL, lambda desired: msgspec.structs.replace(desired, champion=version))

    def reports(self) -> dict[str, HostReport]:
        return {report.host: report for report in read_reports(self.project.journal())}

    def answers(self) -> bool:
        """Whether a request through the gateway is answered."""
        request = urllib.request.Request(f"{self.url}/v2/models/{MODEL}/infer", data=BODY)
        request.add_header("content-type", "application/json")
        with suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def endpoints(self, arm: str = CHAMPION) -> set[str]:
        """Names of the machines that get requests of an arm."""
        routes = traffic_of(self.project).in_force(MODEL)
        by_address = {machine.address: machine.name for machine in self._machines.values()}
        return {
            by_address[url.split("//")[1].rpartition(":")[0]]
            for served in (routes.arms if routes else ())
            if served.name == arm
            for url in served.endpoints
        }

    def begin(self, candidate: str, *, first: int = 0) -> Release:
        """A pending release of a version, with servers on every machine; it begins with the step `first`."""
        desired = self.deployment.change(MODEL, lambda desired: msgspec.structs.replace(desired, candidate=candidate))
        arms = [
            with_servers(self.project, desired.arm(version, name), within=60.0)
            for version, name in ((str(desired.champion), CHAMPION), (candidate, CANDIDATE))
        ]
        row, routes = store.read(self.project.journal(), MODEL), traffic_of(self.project).in_force(MODEL)
        release = Release(
            id=f"r{datetime.now(UTC):%H%M%S%f}",
            model=MODEL,
            champion=arms[0],
            candidate=arms[1],
            policy=msgspec.structs.replace(release_policy(self.project.spec.release), steps=STEPS[first:]),
            begun=datetime.now(UTC),
            revision=max(routes.revision if routes else 0, row[0].revision if row else 0),
        )
        with self.project.journal().transaction(actor=Actor("user:ada")) as transaction:
            store.write(transaction, None, release, expect=row[1] if row else 0)
        return release

    @property
    def release(self) -> Release:
        return store.read_required(self.project.journal(), MODEL)[0]

    def logs(self) -> str:
        return "\n".join(machine.logs() for machine in self._machines.values())

    def close(self) -> None:
        self.project.close()
        for machine in self._machines.values():
            if machine.folder.exists():
                machine.kill()


@contextmanager
def hosts(place: Path, journal: str = "") -> Iterator[Hosts]:
    """Machines that share a journal and stores; nothing of them runs afterwards."""
    info = place / "python" / "noted-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noted\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cumulant.drivers]\nnoted = e2e_registry:DRIVER\n")
    (place / "python" / "e2e_registry.py").symlink_to(e2e_registry.__file__)
    paths = [str(place / "python"), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.setenv("NOTED", str(place / "noted.json"))
        patch.setenv("SALT", SALT)
        patch.syspath_prepend(str(place / "python"))
        machines = Hosts(place, journal or f"sqlite://{place}/shared/journal.sqlite")
        try:
            yield machines
        finally:
            machines.close()


__all__ = ["BODY", "Hosts", "Machine", "hosts", "until"]
