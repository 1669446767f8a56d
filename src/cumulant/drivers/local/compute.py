"""Compute on this machine: steps in this process, or each in its own process."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import msgspec

from cumulant.core.errors import RetryableError, StepFailedError, UsageError
from cumulant.core.progress import Progress, silent
from cumulant.drivers.local.calls import StepOutcome, StepProgress, rebuild, run
from cumulant.drivers.local.worker import CALL, OUTCOME
from cumulant.ports.compute import Resources, StepCall

#: how often it is looked whether a worker without reports has ended
_POLL_SECONDS = 0.2
_EXTERNAL_SIGNALS = {-9: "SIGKILL", -15: "SIGTERM"}


class InlineCompute:
    """`inline://`: calls the step in this process. Its arguments and result pass through JSON too."""

    def __init__(self, url: str = "inline://") -> None:
        self.url = url

    def run(self, call: StepCall, *, progress: Progress = silent) -> dict[str, object]:
        """Run the step. Raises StepFailedError for an error that is no CumulantError."""
        _check_resources(call.resources)
        return run(msgspec.json.decode(msgspec.json.encode(call), type=StepCall), progress)


class SubprocessCompute:
    """`subprocess://`: runs each step in a new interpreter, which ends with this one.

    The step's output goes to standard error. Its memory is released when it ends.
    """

    def __init__(self, url: str = "subprocess://") -> None:
        self.url = url

    def run(self, call: StepCall, *, progress: Progress = silent) -> dict[str, object]:
        """Run the step to its end.

        Raises:
            CumulantError: the step's own, as itself.
            StepFailedError: any other error of the step, or a crash.
            RetryableError: the process was killed from outside (no memory left, a shut-down).
        """
        _check_resources(call.resources)
        with tempfile.TemporaryDirectory(prefix="cumulant-step-") as name:
            folder = Path(name)
            (folder / CALL).write_bytes(msgspec.json.encode(call))
            code = _run_worker(folder, progress)
            if not (folder / OUTCOME).exists():
                raise _exit_error(call, code)
            outcome = msgspec.json.decode((folder / OUTCOME).read_bytes(), type=StepOutcome)
        if outcome.error is not None:
            raise rebuild(outcome.error)
        return outcome.result


def _run_worker(folder: Path, progress: Progress) -> int:
    """Run the step of `folder` in a process, which ends with this one; returns its exit status."""
    # The worker can import whatever this process can, and no more: `-P` keeps the current folder from coming first.
    command = [sys.executable, "-P", "-m", "cumulant.drivers.local.worker", str(folder)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    # Standard input stays open while this process lives: the worker ends when it closes.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.__stderr__, env=environ, bufsize=0
    ) as worker:
        try:
            _report_until_end(worker, progress)
            return worker.wait()
        except BaseException:
            worker.kill()
            raise


def _report_until_end(worker: subprocess.Popen[bytes], progress: Progress) -> None:
    """Pass the worker's reports on. A process that the step left behind, with the pipe open, is not waited for."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(worker, lines), daemon=True).start()
    ended = False
    while True:
        try:
            line = lines.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            if ended:
                return
            ended = worker.poll() is not None
            continue
        if line is None:
            return
        report = msgspec.json.decode(line, type=StepProgress)
        progress(report.text, report.share)


def _read_lines(worker: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    assert worker.stdout is not None
    # Without a buffer, so that the other thread can close it at any time, which ends this one.
    with contextlib.suppress(ValueError, OSError):
        while (line := worker.stdout.readline()).endswith(b"\n"):  # the last line of a killed worker may be half
            lines.put(line)
    lines.put(None)


def _exit_error(call: StepCall, code: int) -> RetryableError | StepFailedError:
    if code in _EXTERNAL_SIGNALS:
        return RetryableError(
            f"the process of step {call.shown} was killed ({_EXTERNAL_SIGNALS[code]})",
            subject=call.shown,
            hint="run again; if it is killed again, there may be too little memory",
        )
    return StepFailedError(
        f"the process of step {call.shown} ended without a result (exit status {code})",
        subject=call.shown,
        hint="its output above may say why",
    )


def _check_resources(resources: Resources) -> None:
    if resources.gpu or resources.region != "local":
        raise UsageError(
            "this machine's compute has no GPUs and no regions",
            subject=f"gpu {resources.gpu}, region {resources.region}",
            hint="name a compute driver that has them in the environment",
        )
