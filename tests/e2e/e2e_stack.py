"""A stack of real processes for tests of releases: `cumulant up` over small servers, and ways to break each part."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

import e2e_registry
import msgspec
import pytest
from e2e_load import Load
from e2e_support import opened, run

from cumulant.core.events import Actor
from cumulant.core.traffic import CANDIDATE, CHAMPION, Exchange, Routes
from cumulant.flows.ledger.lease import holder_of
from cumulant.flows.release import store
from cumulant.flows.release.controller.controller import CONTROLLER
from cumulant.flows.release.time_scale import scale_time
from cumulant.flows.stack.desired_state import (
    DesiredState,
    ServedVersion,
    change_desired_state,
    read_desired_state,
)
from cumulant.flows.stack.status import ChildStatus, read_status
from cumulant.project.project import Project
from cumulant.project.release_section import release_policy
from cumulant.release.state import Release
from cumulant.release.steps import ReleaseStep

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "serving"))
import serving_graphs

T = TypeVar("T")
MODEL = "graph"
#: the section `release` of project files, for `str.format`
RELEASE = """\
release:
  look: 200ms
  block: 200ms
  # What evidence decides is tested by simulation; here nothing but a fault ends a release or holds it.
  alpha: 1e-300
  metrics:
    errors: {{required: false, margin: 90%}}
    timeouts: {{required: false, margin: 90%}}
    latency: {{required: false, margin: 100%}}
"""
SPEC = (
    """\
version: 1
model: {{name: graph}}
environments:
  local: {{tracking_uri: 'noted://'}}
serving: {{http: '127.0.0.1:{port}'}}
"""
    + RELEASE
)
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}).encode()
#: a step lasts as long as a test wants: each has a thousand times the shortest time of the one before, see `onward`
STEPS = tuple(
    ReleaseStep(
        stage=stage, weight=weight, mirror=mirror, at_least=1000.0 ** (place + 1), at_most=1e30, samples=samples
    )
    for place, (stage, weight, mirror, samples) in enumerate(
        [
            ("shadow", 0.0, 100.0, 20),
            ("ab", 10.0, 0.0, 5),
            ("canary", 10.0, 0.0, 5),
            ("canary", 50.0, 0.0, 5),
            ("canary", 95.0, 0.0, 5),
        ]
    )
)
#: the wall clock of a process that loads it is ahead by what the file CLOCK_AHEAD says
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static int64_t ahead(void) {
    static const int64_t *seconds;
    const char *path = getenv("CLOCK_AHEAD");
    if (!seconds && path) {
        int file = open(path, O_RDONLY | O_CLOEXEC);
        void *found = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
        if (found != MAP_FAILED) seconds = found;
    }
    return seconds ? *seconds : 0;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*plain)(clockid_t, struct timespec *);
    if (!plain) plain = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int code = plain(clock, at);
    if (!code && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += ahead();
    return code;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    (void)zone;
    return 0;
}
"""
#: a process that is about to put a file in place ends there, once, where the file DIES_AT names it
DIES = """
import os, signal, sys

def look(event, arguments):
    if event == "os.rename" and os.path.exists(os.environ["DIES_AT"]):
        with open(os.environ["DIES_AT"]) as file:
            wanted = file.read()
        if str(arguments[1]).endswith(wanted):
            os.unlink(os.environ["DIES_AT"])
            os.kill(os.getpid(), 9)

sys.addaudithook(look)
"""


class Fault(NamedTuple):
    """What was broken, from when until it was whole again."""

    what: str
    begun: float
    ended: float


class Stack:
    """One project whose versions 1 and 2 are equal and whose version 3 answers with other outputs."""

    def __init__(self, place: Path, folder: Path, project: Project) -> None:
        self._place, self.folder, self.project = place, folder, project
        self.traffic, self.journal = project.gateway(), project.journal()
        self.faults: list[Fault] = []
        self._dies_at = place / "dies"

    # --- what is there

    def child(self, name: str) -> ChildStatus | None:
        status = read_status(self.project.state)
        return next((one for one in status.children if one.name == name), None) if status else None

    def ready(self, name: str, *, other_than: int | None = None) -> ChildStatus:
        return until(lambda: (one := self.child(name)) and one.ready and one.pid != other_than and one)  # type: ignore[return-value]

    @property
    def release(self) -> Release:
        return store.read_required(self.journal, MODEL)[0]

    def load(self, rate: float) -> Load:
        """A steady load through the gateway."""
        return Load(self.url(), f"/v2/models/{MODEL}/infer", BODY, rate=rate)

    def url(self) -> str:
        """Where callers reach the gateway."""
        return until(lambda: (status := read_status(self.project.state)) and status.url)  # type: ignore[return-value]

    def servers(self) -> tuple[str, str]:
        """Names of the champion's and the candidate's process."""
        release = self.release
        return f"server-{release.champion.version}", f"server-{release.candidate.version}"

    def exchanges(self) -> list[Exchange]:
        """What the gateway tells of requests for predictions, as far as it still has it."""
        found, cursor = [], ""
        while True:
            page, cursor = self.traffic.exchanges(cursor)
            if not page:
                return found
            found += [one for one in page if one.model == MODEL and one.predicts]

    def events(self, release: Release) -> list[str]:
        """Kinds of what was told of a release."""
        return [event.kind for event in self.journal.events() if event.data.get("release") == release.id]

    def equal(self) -> str:
        """The version that is equal to the champion."""
        return "1" if read_desired_state(self.project.state, MODEL).champion == "2" else "2"

    # --- a release

    def begin(self, candidate: str, *, steps: Sequence[ReleaseStep] = STEPS, **spec: object) -> Release:
        """A pending release of a version; what `spec` says differs from the project's section."""

        def name(book: DesiredState) -> DesiredState:
            return msgspec.structs.replace(book, candidate=candidate)

        book = change_desired_state(self.project.state, MODEL, name)
        self.ready(f"server-{candidate}")
        found, routes = store.read(self.journal, MODEL), self.traffic.in_force(MODEL)
        assert routes is not None
        policy = release_policy(msgspec.structs.replace(self.project.spec.release, **spec))
        release = Release(
            id=f"r{time.time_ns()}",
            model=MODEL,
            champion=book.arm(str(book.champion), CHAMPION),
            candidate=book.arm(candidate, CANDIDATE),
            policy=msgspec.structs.replace(policy, steps=tuple(steps)),
            begun=datetime.now(UTC),
            revision=max(routes.revision, found[0].revision if found else 0),
        )
        with self.journal.transaction(actor=Actor("user:ada")) as transaction:
            store.write(transaction, None, release, expect=found[1] if found else 0)
        return release

    def reached(self, label: str) -> Routes:
        """The routes, once the release is in that step and the gateway works by it."""

        def there() -> Routes | None:
            release, routes = self.release, self.traffic.in_force(MODEL)
            assert not release.over, release.reason
            here = release.step.label == label and release.status == "running"
            return routes if here and routes is not None and routes.revision == release.revision else None

        return until(there)

    def onward(self, *, dies_at: str = "") -> None:
        """One step on, and no further: this step's time passes within a look, the next one's is far longer.

        With `dies_at`, whoever is about to put a file of that name in place is killed there.
        """
        before = self.release
        if dies_at:
            self._dies_at.write_text(dies_at)
        with scale_time(self.project.journal(), before.step.at_least * 10):
            until(lambda: self.release.at != before.at or self.release.over, why=lambda: self.release.reason)
        until(lambda: not self._dies_at.exists())

    def to(self, label: str) -> None:
        """On to that step."""
        while self.reached(self.release.step.label) and self.release.step.label != label:
            self.onward()

    def over(self) -> Release:
        """The release, once it has ended and nothing of it is left to be done."""
        until(
            lambda: (
                self.release.over and self.release.settled >= {"desired_state", "notified", "alias", "tags", "drained"}
            )
        )
        return self.release

    # --- what breaks

    def kill(self, *names: str) -> None:
        """End processes at once, and wait until others are in their place and do their work."""
        before, begun = {name: self.ready(name).pid for name in names}, time.monotonic()
        for pid in before.values():
            os.kill(int(pid or 0), signal.SIGKILL)

        def again() -> bool:
            now = {name: self.child(name) for name in names}
            return all(one and one.pid and one.pid != before[name] and self._works(one) for name, one in now.items())

        until(again)
        until(lambda: (found := self.traffic.health(MODEL)) and all(one.ready for one in found))
        self.faults += [Fault(name, begun, time.monotonic()) for name in names]

    def _works(self, one: ChildStatus) -> bool:
        """A controller counts as ready when it has lived for a while; whether it acts, the journal says."""
        if one.kind != "controller":
            return one.ready
        holder = holder_of(self.journal, CONTROLLER.format(model=MODEL))
        return holder is not None and holder.pid == one.pid

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """A process that hangs while the block runs: it keeps its connections and answers nothing."""
        one, begun = self.ready(name), time.monotonic()
        assert one.pid is not None
        os.kill(one.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):  # what hangs for long is ended
                os.kill(one.pid, signal.SIGCONT)
            self.faults.append(Fault(name, begun, time.monotonic()))

    def clock(self, hours: int) -> None:
        """The wall clock of all processes of the stack, from now on."""
        set_clock(self._place, hours)

    def full(self) -> Path:
        """Fill the disk of the project; the file that does."""
        ballast = self.folder / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(b"x" * 65_536):
                pass
        return ballast

    def processes(self) -> list[int]:
        """Everything that runs for the project: its folder is in every command line."""
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if self._is_ours(path)]

    def _is_ours(self, path: Path) -> bool:
        with suppress(OSError):
            return str(self.folder).encode() in path.read_bytes()
        return False


def until(found: Callable[[], T | None], *, seconds: float = 60.0, why: Callable[[], str] = str) -> T:
    """What `found` gives once it gives something; where it does not, the failure tells what `why` gives then."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"it did not come to be: {why()}"
        time.sleep(0.02)
    return value


def set_clock(place: Path, hours: int) -> None:
    """All eight bytes at once: processes look at the file itself."""
    file = os.open(place / "ahead", os.O_RDWR | os.O_CREAT)
    os.pwrite(file, struct.pack("q", hours * 3600), 0)
    os.close(file)


def small_disk(folder: Path) -> bool:
    """Give the folder a disk of its own, where this user may."""
    folder.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder)]
    return subprocess.run(line, check=False, capture_output=True).returncode == 0


def installed(place: Path) -> dict[str, str]:
    """Variables for every process of a stack: its registry, its clock, and where it is to die."""
    info = place / "python" / "noted-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noted\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cumulant.drivers]\nnoted = e2e_registry:DRIVER\n")
    (place / "python" / "sitecustomize.py").write_text(DIES)
    set_clock(place, 0)
    (place / "python" / "e2e_registry.py").symlink_to(e2e_registry.__file__)
    paths = [str(place / "python"), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = {"PYTHONPATH": os.pathsep.join(paths), "NOTED": str(place / "noted.json")}
    found |= {"DIES_AT": str(place / "dies"), "CLOCK_AHEAD": str(place / "ahead")}
    return found | _clock(place)


def _clock(place: Path) -> dict[str, str]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("cc is not installed: it makes the clock that jumps")
    (place / "clock.c").write_text(CLOCK)
    made = place / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, place / "clock.c", "-ldl"], check=True)
    return {"LD_PRELOAD": str(made)}


def _served(folder: Path, version: str, port: int) -> ServedVersion:
    place, state = folder / "models" / version, folder / ".cumulant"
    if version == "3":
        serving_graphs.echo(place, ("FP32",), name=MODEL, version=version)
    else:
        serving_graphs.scale(place, name=MODEL, version=version)
    line = (sys.executable, "-m", "cumulant.serving", str(place), "--log", str(state / "predictions"))
    return ServedVersion(version=version, command=(*line, "--behind-gateway"), port=port)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@contextmanager
def stack(place: Path) -> Iterator[Stack]:
    """A stack that is up, with version 1 as champion; nothing of it runs afterwards."""
    place.mkdir()
    folder = place / "project"
    disk = small_disk(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in installed(place).items():
                patch.setenv(name, value)
            patch.syspath_prepend(str(place / "python"))
            gateway, *ports = free_ports(4)
            (folder / "cumulant.yaml").write_text(SPEC.format(port=gateway))
            served = {str(number): _served(folder, str(number), port) for number, port in enumerate(ports, 1)}
            with opened(folder) as project:
                change_desired_state(
                    project.state, MODEL, lambda book: msgspec.structs.replace(book, champion="1", versions=served)
                )
                run(folder, "up", "--detach")
                try:
                    yield Stack(place, folder, project)
                finally:
                    run(folder, "down")
    finally:
        if disk:
            subprocess.run(["umount", "-l", str(folder)], check=True)
