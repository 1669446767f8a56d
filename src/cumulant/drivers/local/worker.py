"""The process of one step: `python -m cumulant.drivers.local.worker OUTCOME`, the call as a line of JSON on stdin."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.system.atomic_files import replace_file
from cumulant.drivers.local.calls import StepOutcome, describe, run
from cumulant.ports.compute import StepCall

_PARENT_GONE = 75


def main(outcome_path: Path) -> None:
    """Run one step and write its outcome atomically."""
    parent = _detach_stdin()
    with open(parent, "rb", buffering=0, closefd=False) as stream:
        call = msgspec.json.decode(stream.readline(), type=StepCall)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    try:
        outcome = StepOutcome(result=run(call))
    except CumulantError as error:
        outcome = StepOutcome(error=describe(error))
    replace_file(outcome_path, msgspec.json.encode(outcome), durable=False)


def _detach_stdin() -> int:
    """Move the parent's pipe away from standard input, which is then empty for the step."""
    parent = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return parent


def _end_with_parent(parent: int) -> None:
    # The parent has the other end open. A step must not continue after it: another process may run it again.
    while os.read(parent, 1):
        pass
    os._exit(_PARENT_GONE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
