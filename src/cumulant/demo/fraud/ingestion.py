"""`cumulant ingest run` beside the traffic, and how far it is behind."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cumulant
from cumulant.core.errors import CumulantError, StepFailedError
from cumulant.core.system.child_processes import stop

#: seconds that a batch waits for more messages, and between two looks
EVERY, _LOOK = 1.0, 0.2
#: seconds until what is in the topic must be ingested, on a machine that is busy
_LONGEST, _STOP_SECONDS = 180.0, 90.0


def ingest_once(project: cumulant.Project) -> None:
    """Ingest what is in the topic, as `cumulant ingest run --once`.

    Raises:
        StepFailedError: the command failed.
    """
    _run(project, "run", "--once")


def _run(project: cumulant.Project, *words: str) -> None:
    ended = subprocess.run(_line(project, *words), capture_output=True, text=True, check=False)
    if ended.returncode:
        raise StepFailedError(f"cumulant ingest {' '.join(words)} failed: {ended.stderr.strip()[-500:]}")


def _line(project: cumulant.Project, *words: str) -> list[str]:
    place = ["--project", str(project.root), "--env", project.env]
    return [sys.executable, "-m", "cumulant.cli", "ingest", *words, *place]


class Ingestion:
    """The running command, and samples of the messages that wait."""

    def __init__(self, project: cumulant.Project, process: subprocess.Popen[bytes], log: Path) -> None:
        self._project, self._process, self._log = project, process, log
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self.samples: list[tuple[float, int]] = []

    def await_rows(self) -> None:
        """Wait until no message waits.

        Raises:
            StepFailedError: the command ended, or it takes too long.
        """
        begun = time.monotonic()
        while self._waiting(self._project):
            if self._process.poll() is not None:
                raise StepFailedError(f"cumulant ingest run ended: {self._log.read_text(encoding='utf-8')[-500:]}")
            if time.monotonic() - begun > _LONGEST:
                raise StepFailedError(f"messages of the topic were not ingested in {_LONGEST:g} s")
            time.sleep(_LOOK)

    def await_features(self) -> None:
        """Wait until no message waits and all rows are in the stored features.

        Raises:
            StepFailedError: as `await_rows`; or the rows cannot be stored.
        """
        self.await_rows()
        _run(self._project, "apply", "--once")

    def most_waiting(self, since: float, until: float) -> int:
        """The most messages that waited between two moments."""
        return max((count for at, count in self.samples if since <= at <= until), default=0)

    def recovered(self, since: float, level: int) -> float | None:
        """Seconds from `since` until no more than `level` waited; None: not yet."""
        return next((round(at - since, 1) for at, count in self.samples if at >= since and count <= level), None)

    def _follow(self) -> None:
        with cumulant.open(self._project.root, env=self._project.env) as project:
            while not self._ended.wait(_LOOK):
                try:
                    self.samples.append((time.monotonic(), self._waiting(project)))
                except CumulantError:  # the broker did not answer: the next look shows it
                    continue

    @staticmethod
    def _waiting(project: cumulant.Project) -> int:
        (status,) = project.streams.status()
        if status.lag is None:
            raise StepFailedError(f"the topic cannot be read: {status.error}")
        return status.lag

    @contextmanager
    def sampling(self) -> Iterator[Ingestion]:
        self._thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._thread.join()


@contextmanager
def ingesting(project: cumulant.Project) -> Iterator[Ingestion]:
    """`cumulant ingest run` while the block runs."""
    log = project.root / ".cumulant" / "ingest.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            _line(project, "run", "--every", f"{EVERY:g}s"), stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        with Ingestion(project, process, log).sampling() as ingestion:
            yield ingestion
    finally:
        stop(process, _STOP_SECONDS)
