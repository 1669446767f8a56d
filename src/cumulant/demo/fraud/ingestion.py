"""`cumulant ingest run` beside the traffic, and how far it is behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import cumulant
from cumulant.core.errors import CumulantError, StepFailedError
from cumulant.core.system.child_processes import start, stop

#: seconds that a batch waits for more messages, and between two looks
EVERY, _LOOK = 1.0, 0.3
#: seconds until what is in the topic must be ingested, on a machine that is busy
_LONGEST, _STOP_SECONDS = 180.0, 90.0


def ingest_once(project: cumulant.Project) -> None:
    """Ingest what is in the topic, as `cumulant ingest run --once`.

    Raises:
        StepFailedError: the command failed.
    """
    line = ingest_line(project.root, project.env, "--once")
    ended = run_to_end(line)
    if ended.returncode:
        raise StepFailedError(f"cumulant ingest run --once failed: {ended.stderr.strip()[-500:]}")


def run_to_end(line: Sequence[str], *, longest: float = _LONGEST) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself, and before this process does. `longest`: seconds.

    Raises:
        StepFailedError: it does not end.
        OSError: the system cannot start it.
    """
    with start(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, death_signal=signal.SIGTERM) as process:
        try:
            printed, errors = process.communicate(timeout=longest)
        except subprocess.TimeoutExpired:
            raise StepFailedError(f"`{' '.join(line)}` did not end in {longest:g} s") from None
        finally:
            if process.poll() is None:  # also where Ctrl-C ends this process alone
                stop(process, _STOP_SECONDS)
    decoded = (text.decode(errors="replace") for text in (printed, errors))
    return subprocess.CompletedProcess(line, process.returncode, *decoded)


def ingest_line(root: Path, environment: str, *options: str) -> list[str]:
    """The command that ingests the topic of a project."""
    place = ["--project", str(root), "--env", environment]
    return [sys.executable, "-m", "cumulant.cli", "ingest", "run", *options, *place]


def error_sentence(text: str) -> str:
    """What a command says of its error, of all that it printed."""
    begin = "error: "
    return next((line.removeprefix(begin) for line in text.splitlines() if line.startswith(begin)), text.strip()[-300:])


class Backlog(NamedTuple):
    """What is behind at a moment of the monotonic clock: messages of the topic that are no rows yet, and batches of
    rows that a served table of stored features has not.
    """

    at: float
    messages: int
    batches: int

    def within(self, other: Backlog) -> bool:
        """Whether no more of either is behind."""
        return self.messages <= other.messages and self.batches <= other.batches


class Ingestion:
    """The running command, which can be ended and started again, and samples of what is behind."""

    def __init__(self, project: cumulant.Project) -> None:
        self._project, self._log = project, project.root / ".cumulant" / "ingest.log"
        self.start()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self.samples: list[Backlog] = []

    def start(self) -> None:
        """Start the command, which is not running."""
        line = ingest_line(self._project.root, self._project.env, "--every", f"{EVERY:g}s")
        with self._log.open("wb") as file:
            self._process = start(line, stdout=file.fileno(), stderr=file, death_signal=signal.SIGTERM)

    def stop(self) -> None:
        """End the command, which commits what it has read."""
        stop(self._process, _STOP_SECONDS)

    def await_end(self) -> tuple[int, str]:
        """Wait until the command ends by itself: its exit code, and what it says of its error.

        Raises:
            StepFailedError: it does not.
        """
        try:
            exit_code = self._process.wait(_LONGEST)
        except subprocess.TimeoutExpired:
            raise StepFailedError(f"cumulant ingest run did not end in {_LONGEST:g} s") from None
        return exit_code, error_sentence(self._log.read_text(encoding="utf-8"))

    def await_features(self) -> None:
        """Wait until every message is a row, and every row is in the stored features.

        Raises:
            StepFailedError: the command ended, or it takes too long.
        """
        begun = time.monotonic()
        while (backlog := _backlog(self._project)).messages or backlog.batches:
            if self._process.poll() is not None:
                raise StepFailedError(f"cumulant ingest run ended: {self._log.read_text(encoding='utf-8')[-500:]}")
            if time.monotonic() - begun > _LONGEST:
                raise StepFailedError(
                    f"messages of the topic were not ingested in {_LONGEST:g} s: {backlog.messages} are no rows, and "
                    f"{backlog.batches} batches are not in the stored features"
                )
            time.sleep(_LOOK)

    def most(self, since: float, until: float) -> Backlog:
        """The most that was behind between two moments."""
        samples = [sample for sample in self.samples if since <= sample.at <= until]
        messages = max((sample.messages for sample in samples), default=0)
        return Backlog(until, messages, max((sample.batches for sample in samples), default=0))

    def recovered(self, since: float, level: Backlog) -> float | None:
        """Seconds from `since` until no more was behind than at `level`; None: not yet."""
        return next(
            (round(sample.at - since, 1) for sample in self.samples if sample.at >= since and sample.within(level)),
            None,
        )

    def _follow(self) -> None:
        with cumulant.open(self._project.root, env=self._project.env) as project:
            while not self._ended.wait(_LOOK):
                with suppress(CumulantError):  # the broker did not answer: the next look shows it
                    self.samples.append(_backlog(project))

    @contextmanager
    def sampling(self) -> Iterator[Ingestion]:
        """Samples are taken while the block runs."""
        self._thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._thread.join()


def _backlog(project: cumulant.Project) -> Backlog:
    (status,) = project.streams.status()
    if status.lag is None:
        raise StepFailedError(f"the topic cannot be read: {status.error}")
    # A table that cannot be read at the moment is filled again: it is behind.
    behind = [1 if table.behind is None else table.behind for table in status.online if table.served]
    return Backlog(time.monotonic(), status.lag, max(behind, default=0))


@contextmanager
def ingesting(project: cumulant.Project) -> Iterator[Ingestion]:
    """`cumulant ingest run` while the block runs."""
    ingestion = Ingestion(project)
    try:
        with ingestion.sampling():
            yield ingestion
    finally:
        ingestion.stop()
