"""Machines simulated on this one: folders, names and loopback addresses of their own; servers are all that they share.

A machine's processes are found by its name in their environment, whatever started them, so that all of them can be
killed at once. Its home, caches and temporary files lie below its folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from cumulant.core.system.child_processes import start
from cumulant.testing.postgres import INSTALL, PostgresServer, postgres_server, server_programs
from cumulant.testing.servers.fault_proxy import FaultProxy
from cumulant.testing.servers.seaweedfs import BUCKET, KEY, SECRET, SeaweedServer, seaweed_server
from cumulant.testing.servers.valkey import ValkeyServer, valkey_server

ENVIRONMENT = "cluster"
_NAME = "CUMULANT_HOST_NAME"
#: a project's folder as version control has it: no state
_NOT_TRACKED = shutil.ignore_patterns(".cumulant*", "__pycache__", "mlruns", "report.html")
_SECTION = re.compile(r"^environments:.*$", re.MULTILINE)
_KILL_SECONDS = 20.0


class Engines(msgspec.Struct, frozen=True, kw_only=True):
    """The servers that the machines share. `store` stands before the object store and can make it slow and faulty."""

    journal: PostgresServer
    objects: SeaweedServer
    store: FaultProxy
    online: ValkeyServer

    def section(self, **more: str) -> str:
        """The environment of a project file, as one line of YAML; `more` are further keys."""
        keys = {
            "journal": self.journal.url("cumulant"),
            "store": f"s3://{BUCKET}/store",
            "log": f"s3://{BUCKET}/log",
            "online": self.online.url,
            "tracking_uri": f"mlflow+{self.journal.url('cumulant')}?artifacts=s3://{BUCKET}/mlflow",
            "salt": "${secret:CLUSTER_SALT}",
            **more,
        }
        return f"  {ENVIRONMENT}: {json.dumps(keys)}"

    @property
    def secrets(self) -> dict[str, str]:
        """Variables that every machine has."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.store.url,
            "AWS_REGION": "us-east-1",
            "CLUSTER_SALT": "a salt of the machines of this test",
        }


@contextmanager
def engines() -> Iterator[Engines]:
    """PostgreSQL, SeaweedFS and Valkey, each of its own; they and what they hold are gone afterwards.

    Raises:
        FileNotFoundError: one is not installed; the message has the line that installs it.
    """
    if server_programs() is None:
        raise FileNotFoundError(f"PostgreSQL is not installed: {INSTALL}")
    with ExitStack() as stack:
        journal = stack.enter_context(postgres_server("fsync = off"))
        journal.execute("CREATE DATABASE cumulant")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cumulant-engines-")))
        (folder / "objects").mkdir()
        objects = stack.enter_context(seaweed_server(folder / "objects"))
        yield Engines(
            journal=journal,
            objects=objects,
            store=stack.enter_context(FaultProxy(objects.url)),
            online=stack.enter_context(valkey_server()),
        )


def declare_environment(project_file: Path, section: str) -> None:
    """Add an environment, a line of YAML, to a project file."""
    text = project_file.read_text(encoding="utf-8")
    if _SECTION.search(text) is None:
        text = f"{text.rstrip()}\nenvironments:\n"
    project_file.write_text(_SECTION.sub(lambda match: f"{match[0]}\n{section}", text, count=1), encoding="utf-8")


class Machine:
    """One machine. `folder` holds all that it has; the project is in `folder / "project"`."""

    def __init__(self, name: str, number: int, folder: Path, secrets: dict[str, str]) -> None:
        self.name, self.address, self.folder = name, f"127.0.1.{number}", folder
        self._secrets = secrets
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def check_out(self, source: Path) -> None:
        """Make the machine's folder anew, with the project as version control has it."""
        self.folder.mkdir(parents=True)
        (self.folder / "tmp").mkdir()
        shutil.copytree(source, self.project, ignore=_NOT_TRACKED)

    def environment(self) -> dict[str, str]:
        own = {"HOME": str(self.folder), "TMPDIR": str(self.folder / "tmp"), _NAME: self.name}
        dropped = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MLFLOW_TRACKING_URI")
        return {name: value for name, value in os.environ.items() if name not in dropped} | self._secrets | own

    def start(self, *words: str, output: str = "") -> subprocess.Popen[bytes]:
        """Start `cumulant WORDS --env cluster` here; its output is appended to `folder / output`."""
        line = [sys.executable, "-m", "cumulant.cli", *words, "--project", str(self.project), "--env", ENVIRONMENT]
        with (self.folder / (output or f"{words[0]}.log")).open("ab") as log:
            process = start(line, stdout=log.fileno(), stderr=log, env=self.environment(), death_signal=signal.SIGTERM)
        self._started.append(process)
        return process

    def run(self, *words: str, seconds: float = 300.0, codes: Sequence[int] = (0,)) -> Any:
        """The document that a command printed here, once it has ended with one of `codes`.

        Raises:
            RuntimeError: it ended otherwise, or not in time.
        """
        line = [sys.executable, "-m", "cumulant.cli", *words, "--project", str(self.project), "--env", ENVIRONMENT]
        completed = subprocess.run(
            [*line, "--json"], env=self.environment(), capture_output=True, text=True, timeout=seconds, check=False
        )
        if completed.returncode not in codes:
            end = f"{completed.stdout[-2000:]}{completed.stderr[-2000:]}"
            raise RuntimeError(f"{' '.join(words)} on {self.name} ended with {completed.returncode}: {end}")
        return json.loads(completed.stdout) if completed.stdout.strip() else None

    def processes(self) -> list[int]:
        """The ids of all processes of this machine."""
        own = {_NAME: self.name, "HOME": str(self.folder)}
        return [pid for pid in _pids() if all(_variable(pid, name) == value for name, value in own.items())]

    def lose(self) -> None:
        """Kill all processes of this machine at once, and delete its folder.

        Raises:
            RuntimeError: they do not end.
        """
        deadline = time.monotonic() + _KILL_SECONDS
        while running := self.processes():
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes of {self.name} do not end: {running}")
            for pid in running:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        for process in self._started:
            process.wait(_KILL_SECONDS)
        self._started.clear()
        shutil.rmtree(self.folder)


class Cluster:
    """Machines by name, which share `engines` only."""

    def __init__(self, folder: Path, engines: Engines) -> None:
        self.engines = engines
        self._folder = folder
        self._machines: dict[str, Machine] = {}

    def machine(self, name: str) -> Machine:
        """The machine of that name, without a folder until it checks the project out."""
        if name not in self._machines:
            number = len(self._machines) + 1
            self._machines[name] = Machine(name, number, self._folder / name, self.engines.secrets)
        return self._machines[name]

    def lose_all(self) -> None:
        for machine in self._machines.values():
            if machine.folder.exists():
                machine.lose()


def _pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())


def _variable(pid: int, name: str) -> str | None:
    """A variable of a living process, as it was started with."""
    try:
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    begin = f"{name}=".encode()
    return next((pair[len(begin) :].decode() for pair in pairs if pair.startswith(begin)), None)
