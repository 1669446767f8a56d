"""The process of one step: `python -m cumulant.drivers.local.worker FOLDER`.

It reads `call.json` in the folder and writes `outcome.json`. Standard output is a pipe of progress reports, a line of
JSON each; what the step prints goes to standard error. Standard input ends when the process of the caller does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.system.atomic_files import replace_file
from cumulant.drivers.local.calls import run
from cumulant.ports.compute import StepCall
from cumulant.ports.step_outcome import StepOutcome, StepProgress, describe

CALL, OUTCOME = "call.json", "outcome.json"
_PARENT_GONE = 75


def main(folder: Path) -> None:
    """Run one step and write its outcome atomically."""
    # An interrupt of the terminal is the caller's to handle, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent, reports = _detach_standard_streams()
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    call = msgspec.json.decode((folder / CALL).read_bytes(), type=StepCall)

    writing = threading.Lock()  # a long report is no single write

    def progress(text: str, share: float | None = None) -> None:
        report = msgspec.json.encode(StepProgress(text, share)) + b"\n"
        with writing:
            while report:  # a pipe takes as much as it has room for
                report = report[os.write(reports, report) :]

    try:
        outcome = StepOutcome(result=run(call, progress))
    except CumulantError as error:
        outcome = StepOutcome(error=describe(error))
    replace_file(folder / OUTCOME, msgspec.json.encode(outcome), durable=False)


def _detach_standard_streams() -> tuple[int, int]:
    """The caller's pipes: one that ends with it, and one for reports. The step's own input is empty."""
    parent, reports = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return parent, reports


def _end_with_parent(parent: int) -> None:
    # The parent has the other end open. A step must not continue after it: another process may run it again.
    while os.read(parent, 1):
        pass
    os._exit(_PARENT_GONE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
