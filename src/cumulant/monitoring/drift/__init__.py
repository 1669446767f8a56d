"""What moved: profiles of rows that add up, and their comparison with a reference.

`profile` counts, column by column; `compare` looks at each window and says what is alarming; `segments` says which rows
carry it; `jointly` asks a classifier whether all columns together have moved. Needs Polars, numpy and scipy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.monitoring.drift.blocks import Cut, by_rows, by_time, hold_times, whole
    from cumulant.monitoring.drift.comparing import compare
    from cumulant.monitoring.drift.findings import Finding, Findings, Kind, Part, Segment, Watched
    from cumulant.monitoring.drift.following import Course, courses
    from cumulant.monitoring.drift.joint import Joint, Telling, jointly
    from cumulant.monitoring.drift.profiles import Block, Cells, Column, Profile, Role, Skipped, merge, only
    from cumulant.monitoring.drift.profiling import profile
    from cumulant.monitoring.drift.segmenting import segments

_HOMES = {
    "Block": "profiles",
    "Cells": "profiles",
    "Column": "profiles",
    "Course": "following",
    "Cut": "blocks",
    "Finding": "findings",
    "Findings": "findings",
    "Joint": "joint",
    "Kind": "findings",
    "Part": "findings",
    "Profile": "profiles",
    "Role": "profiles",
    "Segment": "findings",
    "Skipped": "profiles",
    "Telling": "joint",
    "Watched": "findings",
    "by_rows": "blocks",
    "by_time": "blocks",
    "compare": "comparing",
    "courses": "following",
    "hold_times": "blocks",
    "jointly": "joint",
    "merge": "profiles",
    "only": "profiles",
    "profile": "profiling",
    "segments": "segmenting",
    "whole": "blocks",
}

__all__ = [
    "Block",
    "Cells",
    "Column",
    "Course",
    "Cut",
    "Finding",
    "Findings",
    "Joint",
    "Kind",
    "Part",
    "Profile",
    "Role",
    "Segment",
    "Skipped",
    "Telling",
    "Watched",
    "by_rows",
    "by_time",
    "compare",
    "courses",
    "hold_times",
    "jointly",
    "merge",
    "only",
    "profile",
    "segments",
    "whole",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
