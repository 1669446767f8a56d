"""Steps in this process, or each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from cumulant.core.errors import RetryableError, StepFailedError, UsageError
from cumulant.drivers.local.calls import Answer, rebuild, run
from cumulant.ports.compute import Resources, StepCall

_SIGNALS_FROM_OUTSIDE = {-9: "SIGKILL", -15: "SIGTERM"}


class InlineCompute:
    """`inline://`: the step is called here. Its arguments and result pass through JSON all the same."""

    def __init__(self, url: str = "inline://") -> None:
        self.url = url

    def run(self, call: StepCall) -> dict[str, object]:
        """Raises StepFailedError for an error that is none of ours."""
        _refuse_elsewhere(call.resources)
        return run(msgspec.json.decode(msgspec.json.encode(call), type=StepCall))


class SubprocessCompute:
    """`subprocess://`: each step runs in a fresh interpreter, which ends with this one.

    What the step prints goes to standard error. Its memory is given back when it ends.
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
        _refuse_elsewhere(call.resources)
        with tempfile.TemporaryDirectory(prefix="cumulant-step-") as folder:
            answer_path = Path(folder, "answer.json")
            code = self._start(call, answer_path)
            if not answer_path.exists():
                raise _ended(call, code)
            answer = msgspec.json.decode(answer_path.read_bytes(), type=Answer)
        if answer.error is not None:
            raise rebuild(answer.error)
        return answer.result

    def _start(self, call: StepCall, answer_path: Path) -> int:
        command = [sys.executable, "-m", "cumulant.drivers.local.worker", str(answer_path)]
        # The pipe stays open while this process lives: the worker ends when it closes.
        # What can be imported here can be imported there.
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


def _ended(call: StepCall, code: int) -> RetryableError | StepFailedError:
    if code in _SIGNALS_FROM_OUTSIDE:
        return RetryableError(
            f"the process of step {call.function} was killed ({_SIGNALS_FROM_OUTSIDE[code]})",
            subject=call.function,
            hint="run again; if it is killed again, there may be too little memory",
        )
    return StepFailedError(
        f"the process of step {call.function} ended without a result (exit status {code})",
        subject=call.function,
        hint="its output above may say why",
    )


def _refuse_elsewhere(resources: Resources) -> None:
    if resources.gpu or resources.region != "local":
        raise UsageError(
            "this machine's compute has no GPUs and no regions",
            subject=f"gpu {resources.gpu}, region {resources.region}",
            hint="name a compute driver that has them in the environment",
        )
