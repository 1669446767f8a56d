"""The process of one step: `python -m cumulant.drivers.local.worker ANSWER`, the call as a line of JSON on stdin."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.drivers.local.calls import Answer, describe, run
from cumulant.ports.compute import StepCall

_PARENT_GONE = 75


def main(answer_path: Path) -> None:
    """Run one step and write how it ended, whole or not at all."""
    parent = _take_stdin()
    with open(parent, "rb", buffering=0, closefd=False) as stream:
        call = msgspec.json.decode(stream.readline(), type=StepCall)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    try:
        answer = Answer(result=run(call))
    except CumulantError as error:
        answer = Answer(error=describe(error))
    aside = answer_path.with_suffix(".part")
    aside.write_bytes(msgspec.json.encode(answer))
    aside.replace(answer_path)


def _take_stdin() -> int:
    """The pipe from the parent, moved away from standard input: a step that reads that finds it empty."""
    parent = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return parent


def _end_with_parent(parent: int) -> None:
    # The parent holds the other end open. A step must not go on after it: another process may redo it.
    while os.read(parent, 1):
        pass
    os._exit(_PARENT_GONE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
