"""Compute on this machine: steps in this process, or each in its own process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from cumulant.core.errors import RetryableError, StepFailedError, UsageError
from cumulant.drivers.local.calls import StepOutcome, rebuild, run
from cumulant.ports.compute import Resources, StepCall

_EXTERNAL_SIGNALS = {-9: "SIGKILL", -15: "SIGTERM"}


class InlineCompute:
    """`inline://`: calls the step in this process. Its arguments and result pass through JSON too."""

    def __init__(self, url: str = "inline://") -> None:
        self.url = url

    def run(self, call: StepCall) -> dict[str, object]:
        """Run the step. Raises StepFailedError for an error that is no CumulantError."""
        _check_resources(call.resources)
        return run(msgspec.json.decode(msgspec.json.encode(call), type=StepCall))


class SubprocessCompute:
    """`subprocess://`: runs each step in a new interpreter, which ends with this one.

    The step's output goes to standard error. Its memory is released when it ends.
    """

    def __init__(self, url: str = "subprocess://") -> None:
        self.url = url

    def run(self, call: StepCall) -> dict[str, object]:
        """Run the step to its end.

        Raises:
            CumulantError: the step's own, as itself.
            StepFailedError: any other error of the step, or a crash.
            RetryableError: the process was killed from outside (no memory left, a shut-down).
        """
        _check_resources(call.resources)
        with tempfile.TemporaryDirectory(prefix="cumulant-step-") as folder:
            outcome_path = Path(folder, "outcome.json")
            code = self._start(call, outcome_path)
            if not outcome_path.exists():
                raise _exit_error(call, code)
            outcome = msgspec.json.decode(outcome_path.read_bytes(), type=StepOutcome)
        if outcome.error is not None:
            raise rebuild(outcome.error)
        return outcome.result

    def _start(self, call: StepCall, outcome_path: Path) -> int:
        command = [sys.executable, "-m", "cumulant.drivers.local.worker", str(outcome_path)]
        # The pipe stays open while this process lives: the worker ends when it closes.
        # The worker can import whatever this process can.
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.__stderr__, env=environ) as worker:
            try:
                if worker.stdin is not None:
                    with contextlib.suppress(BrokenPipeError):
                        worker.stdin.write(msgspec.json.encode(msgspec.to_builtins(call)) + b"\n")
                        worker.stdin.flush()
                return worker.wait()
            except BaseException:
                worker.kill()
                raise


def _exit_error(call: StepCall, code: int) -> RetryableError | StepFailedError:
    if code in _EXTERNAL_SIGNALS:
        return RetryableError(
            f"the process of step {call.function} was killed ({_EXTERNAL_SIGNALS[code]})",
            subject=call.function,
            hint="run again; if it is killed again, there may be too little memory",
        )
    return StepFailedError(
        f"the process of step {call.function} ended without a result (exit status {code})",
        subject=call.function,
        hint="its output above may say why",
    )


def _check_resources(resources: Resources) -> None:
    if resources.gpu or resources.region != "local":
        raise UsageError(
            "this machine's compute has no GPUs and no regions",
            subject=f"gpu {resources.gpu}, region {resources.region}",
            hint="name a compute driver that has them in the environment",
        )
