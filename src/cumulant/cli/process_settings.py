"""Settings of a command's process: how often the garbage collector runs, how many threads numpy starts, and how long
idle threads of OpenMP spin.

Commands that only read and render create no garbage cycles; looking for them took 15 to 50 ms.
"""

from __future__ import annotations

import gc
import io
import os
from contextlib import suppress

#: the class below `io.IOBase`, which is an abstract one: checking each object's type against that takes 0.2 s
_File = io.IOBase.__bases__[0]
#: new objects until the collector runs
_NEW_OBJECTS = 50_000
_DEFAULT = gc.get_threshold()
#: for how many steps an idle thread of gcc's OpenMP spins before it sleeps. By default 30 times as many: on a busy
#: machine trees took 2 to 3 times the processor time, on a quiet one they take the same
_SPINS = "10000"
#: how the actions are named whose commands show what is stored, or store one answer of a reviewer
_SHORT = (".show", ".plan", ".answer")


def collect_rarely() -> None:
    """While modules are imported, until the action of the command is known."""
    gc.set_threshold(_NEW_OBJECTS, *_DEFAULT[1:])


def prepare_for(action: str | None) -> None:
    """Python's own rule of collecting, and threads of OpenMP that spin for a short time.

    Unless the command of this action is short: it computes on one thread, as starting numpy's takes it 15 ms and more
    with each processor of the machine.
    """
    if action is not None and action.endswith(_SHORT):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        return
    gc.set_threshold(*_DEFAULT)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def collect_no_more() -> None:
    """Stop garbage collection before the process ends; functions registered with `atexit` still run."""
    for candidate in gc.get_objects():
        if issubclass(type(candidate), _File):
            with suppress(OSError, ValueError):  # a full disk, a closed file
                candidate.flush()
    gc.freeze()
