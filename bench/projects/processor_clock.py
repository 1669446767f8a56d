"""Runs a Python program whose clocks show the processor time that it used, as if the machine did nothing else.

    PYTHON processor_clock.py PROGRAM [ARGUMENT ...]

A second is a second of each core (`os.cpu_count()`). On a busy machine a budget of seconds then buys every program the
same work. Threads count, child processes do not.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from collections.abc import Callable


def shown(clock: Callable[[], float]) -> Callable[[], float]:
    """`clock` from now on, at the pace of the work done."""
    start, used, cores = clock(), time.process_time(), os.cpu_count() or 1
    return lambda: start + (time.process_time() - used) / cores


def main() -> None:
    program, *arguments = sys.argv[1:]
    for name in ("time", "monotonic", "perf_counter"):
        setattr(time, name, shown(getattr(time, name)))
    sys.argv = [program, *arguments]
    # of a script that is run directly, this is its folder
    sys.path[0] = os.path.dirname(os.path.abspath(program))
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
