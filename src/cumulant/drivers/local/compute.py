"""Compute on this machine: steps in this process, or each in its own process."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from cumulant.core.errors import RetryableError, StepFailedError, UsageError
from cumulant.core.progress import Progress, silent
from cumulant.drivers.local.calls import run
from cumulant.drivers.local.worker import CALL, OUTCOME
from cumulant.ports.compute import Resources, StepCall, check_cancelled
from cumulant.ports.step_outcome import StepOutcome, StepProgress

#: seconds between two checks whether a worker without reports has ended, or is to be ended
_POLL_SECONDS = 0.2
_PIPE_BYTES = 1 << 16
_EXTERNAL_SIGNALS = {-9: "SIGKILL", -15: "SIGTERM"}


class InlineCompute:
    """`inline://`: calls the step in this process. Its arguments and result pass through JSON too."""

    def __init__(self, url: str = "inline://") -> None:
        self.url = url

    def run(
        self,
        call: StepCall,
        *,
        key: str | None = None,
        cancel: threading.Event | None = None,
        progress: Progress = silent,
    ) -> dict[str, object]:
        """Run the step, which ends with its caller, so that there is none to adopt. It is cancelled at its next report.

        Raises:
            CumulantError: the step's own, as itself; StepFailedError for any other.
            StepCancelledError: `cancel` was set.
        """
        del key
        _check_resources(call.resources)

        def report(text: str, share: float | None = None) -> None:
            check_cancelled(call, cancel)
            progress(text, share)

        check_cancelled(call, cancel)
        return run(msgspec.json.decode(msgspec.json.encode(call), type=StepCall), report)


class SubprocessCompute:
    """`subprocess://`: runs each step in a new interpreter, which ends with this one.

    The step's output goes to standard error. Its memory is released when it ends.
    """

    def __init__(self, url: str = "subprocess://") -> None:
        self.url = url

    def run(
        self,
        call: StepCall,
        *,
        key: str | None = None,
        cancel: threading.Event | None = None,
        progress: Progress = silent,
    ) -> dict[str, object]:
        """Run the step to its end. It ends with its caller, so that there is none to adopt.

        Raises:
            CumulantError: the step's own, as itself.
            StepCancelledError: `cancel` was set; the process was killed.
            StepFailedError: any other error of the step, or a crash.
            RetryableError: the process was killed from outside (no memory left, a shut-down).
        """
        del key
        _check_resources(call.resources)
        with tempfile.TemporaryDirectory(prefix="cumulant-step-") as name:
            folder = Path(name)
            (folder / CALL).write_bytes(msgspec.json.encode(call))
            code = _run_worker(call, folder, cancel, progress)
            if not (folder / OUTCOME).exists():
                raise _exit_error(call, code)
            return msgspec.json.decode((folder / OUTCOME).read_bytes(), type=StepOutcome).unwrap()


def _run_worker(call: StepCall, folder: Path, cancel: threading.Event | None, progress: Progress) -> int:
    """Run the step of `folder` in a process, which ends with this one; returns its exit status."""
    # The worker can import whatever this process can, and no more: `-P` keeps the current folder from coming first.
    command = [sys.executable, "-P", "-m", "cumulant.drivers.local.worker", str(folder)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    # Standard input stays open while this process lives: the worker ends when it closes.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.__stderr__, env=environ, bufsize=0
    ) as worker:
        try:
            _report_until_end(worker, progress, lambda: check_cancelled(call, cancel))
            return worker.wait()
        except BaseException:
            worker.kill()
            raise


def _report_until_end(worker: subprocess.Popen[bytes], progress: Progress, check: Callable[[], None]) -> None:
    """Pass the worker's reports on. A process that the step left behind, with the pipe open, is not waited for.

    `check` raises where the worker is to be ended.
    """
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(worker, lines), daemon=True).start()
    ended = False
    while True:
        check()
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
    assert isinstance(worker.stdout, io.FileIO)
    # Without Python's buffer, so that the other thread can close it at any time, which ends this one.
    rest: list[bytes] = []
    with contextlib.suppress(ValueError, OSError):
        while block := worker.stdout.read(_PIPE_BYTES):
            *whole, last = block.split(b"\n")
            for line in whole:
                lines.put(b"".join([*rest, line]))
                rest.clear()
            rest.append(last)  # the last line of a killed worker may be half
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
    if resources.gpu or resources.region:
        raise UsageError(
            "this compute driver runs steps on this machine, whatever GPUs or region they need",
            subject=f"gpu {resources.gpu}, region {resources.region or 'any'}",
            hint="use `compute: worker://` in the environment, or leave out `gpu` and `region` of `resources.steps`",
        )
