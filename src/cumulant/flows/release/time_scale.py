"""Time scale of releases: the clock's, or faster while a replay sends requests of a past period.

The times of stages (`at_least`, `at_most`, `soak`) are counted in replayed time; looks, blocks and samples are not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cumulant.core.system.atomic_files import replace_file
from cumulant.core.system.json_files import read_json
from cumulant.flows.ledger.processes import Process, is_gone, this_process

_NOTE = "pace.json"


class TimeScale(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of a release's time to one of the clock, as long as the process lives."""

    factor: float
    process: Process


def read_time_scale(stack: Path) -> float:
    """Seconds of a release's time to one of the clock; 1 without a replay."""
    scale = read_json(stack / _NOTE, TimeScale)
    return 1.0 if scale is None or scale.factor <= 0 or is_gone(scale.process) else scale.factor


@contextmanager
def scale_time(stack: Path, factor: float) -> Iterator[None]:
    """Releases that the controller of `stack` carries out go by this pace while the block runs."""
    note = stack / _NOTE
    stack.mkdir(parents=True, exist_ok=True)
    content = msgspec.json.encode(TimeScale(factor=factor, process=this_process()))
    replace_file(note, content, durable=False)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink()
