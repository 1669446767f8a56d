"""How far each column was from the reference in every window by itself, alarming or not: what charts show."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cumulant.monitoring.drift.column import FEWEST, ColumnComparison
from cumulant.monitoring.drift.comparing import least
from cumulant.monitoring.drift.findings import What
from cumulant.monitoring.drift.profiles import DriftProfile
from cumulant.monitoring.policy import DriftPolicy


class WindowEffects(msgspec.Struct, frozen=True, kw_only=True):
    """One column over the windows [n]; None where a window has too few rows.

    `effects`: by what is looked at, the distance of a shift or by how much a fault's share of the rows grew.
    `worst`: the largest of them over the least that matters.
    """

    feature: str
    effects: Mapping[What, tuple[float | None, ...]]
    worst: tuple[float | None, ...]


def measure_window_effects(
    reference: DriftProfile, current: DriftProfile, policy: DriftPolicy
) -> tuple[WindowEffects, ...]:
    """Every column in every window. `current` was profiled with `like=reference`."""
    courses = []
    for before, now in zip(reference.columns, current.columns, strict=True):
        watch = ColumnComparison(before, now, least(policy, before.role))
        effects: dict[What, list[float | None]] = {}
        worst: list[float | None] = []
        for place, block in enumerate(current.blocks):
            tests = watch.tests(slice(place, place + 1)) if block.rows >= FEWEST else ()
            worst.append(max((test.effect / test.least for test in tests), default=None))
            for test in tests:
                # A column that is all alike has moved, too.
                what: What = "shift" if test.what == "constant" else test.what
                effects.setdefault(what, [None] * len(current.blocks))[place] = test.effect
        by_window = {what: tuple(values) for what, values in effects.items()}
        courses.append(WindowEffects(feature=before.name, effects=by_window, worst=tuple(worst)))
    return tuple(courses)
