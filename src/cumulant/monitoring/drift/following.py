"""How far each column was from the reference in every window by itself, alarming or not: what charts show."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cumulant.monitoring.drift.column import FEWEST, ColumnComparison
from cumulant.monitoring.drift.comparing import least
from cumulant.monitoring.drift.findings import What
from cumulant.monitoring.drift.profiles import DriftProfile
from cumulant.monitoring.monitoring_policy import DriftPolicy


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """One column over the windows [n]; None where a window has too few rows.

    `effects`: by what is looked at, the distance of a shift or by how much a fault's share of the rows grew.
    `worst`: the largest of them over the least that matters.
    """

    feature: str
    effects: Mapping[What, tuple[float | None, ...]]
    worst: tuple[float | None, ...]


def courses(reference: DriftProfile, current: DriftProfile, policy: DriftPolicy) -> tuple[Course, ...]:
    """Every column in every window. `current` was profiled with `like=reference`."""
    found = []
    for before, now in zip(reference.columns, current.columns, strict=True):
        watch = ColumnComparison(before, now, least(policy, before.role))
        effects: dict[What, list[float | None]] = {}
        worst: list[float | None] = []
        for place, block in enumerate(current.blocks):
            tests = watch.tests(slice(place, place + 1)) if block.rows >= FEWEST else ()
            worst.append(max((one.effect / one.least for one in tests), default=None))
            for one in tests:
                # A column that is all alike has moved, too.
                what: What = "shift" if one.what == "constant" else one.what
                effects.setdefault(what, [None] * len(current.blocks))[place] = one.effect
        told = {what: tuple(values) for what, values in effects.items()}
        found.append(Course(feature=before.name, effects=told, worst=tuple(worst)))
    return tuple(found)
