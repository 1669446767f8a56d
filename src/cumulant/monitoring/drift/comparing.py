"""All columns at every window: what matters and is not chance, at a rate of false alarms for all looks together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec
import numpy as np

from cumulant.monitoring.drift.column import FEWEST, ColumnComparison, ColumnTest, Least
from cumulant.monitoring.drift.findings import ColumnStatus, DriftFinding, Findings, Kind, Unsteady, What
from cumulant.monitoring.drift.profiles import DriftProfile
from cumulant.monitoring.policy import DriftPolicy
from cumulant.statistics.drift.multiple_tests import benjamini_hochberg, level_of_look

_MONTH = timedelta(days=30)
#: growth of the tails that matters, in terms of that of faults: values far out may be right
_TAILS = 3


@dataclass(frozen=True)
class _Alarm:
    window: int
    span: int
    column: int
    tested: ColumnTest
    needed: float


def compare(
    reference: DriftProfile,
    current: DriftProfile,
    policy: DriftPolicy | None = None,
    *,
    weights: Mapping[str, float] | None = None,
    looks: int | None = None,
) -> Findings:
    """Compare each block of `current`, profiled with `like=reference`, in order, as a daily monitor does.

    Missing values, unknown values and a shift of the others are tested where they exceed the least effect that matters.
    The false discovery rate of a look is `false_alarms` over `looks` (default: those of a month, or all where blocks
    have no time; `statistics.drift.level_of_look`). `weights`: the importance of each feature.
    """
    policy = policy or DriftPolicy()
    watches = [
        ColumnComparison(before, now, least(policy, before.role))
        for before, now in zip(reference.columns, current.columns, strict=True)
    ]
    known = {**(weights or {}), **policy.weights}
    weight = [known.get(column.name, 1.0) for column in reference.columns]
    looks = looks or _looks(policy, current)
    spans = sorted({min(span, len(current.blocks)) for span in policy.spans})
    level = level_of_look(policy.false_alarms, looks=looks, spans=len(spans))
    alarms = [
        alarm
        for window in range(len(current.blocks))
        for span in spans
        if span <= window + 1
        for alarm in _look(watches, weight, window, span, level)
    ]
    newest = _newest(current)
    findings = _findings(watches, weight, alarms, current, newest)
    return Findings(
        findings=tuple(sorted(findings, key=lambda finding: (-finding.active, -finding.rank, finding.feature))),
        columns=_watched(watches, findings, newest),
        newest=newest,
        windows=current.blocks,
        alarming=tuple(any(alarm.window == place for alarm in alarms) for place in range(len(current.blocks))),
        reference_rows=reference.rows,
        assumed_independent=len(reference.blocks) < 2,
        looks=looks,
        level=level,
        skipped=current.skipped,
        extra=current.extra,
        left_out=current.left_out,
        unsteady=tuple(
            Unsteady(watch.reference.name, len(reference.blocks) - watch.steady) for watch in watches if watch.steady
        ),
        identifiers=tuple(column.name for column in reference.columns if column.cells.identifies),
    )


def least(policy: DriftPolicy, role: str) -> Least:
    """The least effects that matter of a column in that role."""
    return Least(
        shift=policy.effect if role == "feature" else policy.answers,
        missing=policy.missing,
        faults=policy.faults,
        tails=_TAILS * policy.faults,
    )


def _looks(policy: DriftPolicy, current: DriftProfile) -> int:
    """Looks that share one rate of false alarms: those of a month, or all of a table without times."""
    if not current.blocks[0].timed:
        return len(current.blocks)
    return max(round(_MONTH / policy.window), 1)


def _newest(current: DriftProfile) -> int:
    """The newest window with enough rows: the current day, or a future one of a wrong clock, has few."""
    enough = [place for place, block in enumerate(current.blocks) if block.rows >= FEWEST]
    return enough[-1] if enough else len(current.blocks) - 1


def _look(
    watches: Sequence[ColumnComparison], weight: Sequence[float], window: int, span: int, level: float
) -> list[_Alarm]:
    """Alarms of the newest `span` windows up to `window` together."""
    tests = [
        (column, tested)
        for column, watch in enumerate(watches)
        for tested in watch.tests(slice(window + 1 - span, window + 1))
    ]
    p = np.array([tested.p for _, tested in tests])
    rejected, needed = benjamini_hochberg(p, level, weights=np.array([weight[column] for column, _ in tests]))
    return [
        _Alarm(window, span, column, tested, needed)
        for (column, tested), alarming in zip(tests, rejected, strict=True)
        if alarming and tested.p < 1  # a large weight may lift what was not tested over the bound
    ]


def _findings(
    watches: Sequence[ColumnComparison],
    weight: Sequence[float],
    alarms: Sequence[_Alarm],
    current: DriftProfile,
    newest: int,
) -> list[DriftFinding]:
    """One finding a column and subject."""
    findings = []
    moved = {alarm.column for alarm in alarms if alarm.tested.what in ("shift", "constant")}
    for column, what in dict.fromkeys((alarm.column, alarm.tested.what) for alarm in alarms):
        if what == "tails" and column in moved:  # a shift moves tails as well
            continue
        own = [alarm for alarm in alarms if (alarm.column, alarm.tested.what) == (column, what)]
        findings.append(_finding(watches[column], weight[column], own, current, newest))
    return findings


def _finding(
    watch: ColumnComparison, weight: float, own: Sequence[_Alarm], current: DriftProfile, newest: int
) -> DriftFinding:
    """A finding of the alarms of one subject, with the figures of the last one of the fewest windows."""
    last = min((other for other in own if other.window == own[-1].window), key=lambda other: other.span)
    test, windows = last.tested, slice(last.window + 1 - last.span, last.window + 1)
    shifted = test.what in ("shift", "constant")
    low, high = watch.interval(windows, test.design) if shifted else (None, None)
    return DriftFinding(
        feature=watch.reference.name,
        role=watch.reference.role,
        kind=_kind(watch, test.what),
        what=test.what,
        effect=test.effect,
        low=low,
        high=high,
        least=test.least,
        p=test.p,
        needed=last.needed,
        before=test.before,
        now=test.now,
        since=current.blocks[_since(watch, own[0])],
        until=current.blocks[last.window],
        windows=len({alarm.window for alarm in own}),
        alarmed=tuple(sorted({alarm.window for alarm in own})),
        active=last.window >= newest,
        span=last.span,
        weight=weight,
        design=test.design,
        parts=watch.parts(windows) if shifted else (),
        examples=watch.current.examples if test.what == "unseen" else (),
        distances=watch.distances(windows) if shifted else None,
    )


def _kind(watch: ColumnComparison, what: What) -> Kind:
    if what not in ("shift", "tails"):
        return "data_fault"
    return "covariate" if watch.reference.role == "feature" else "prior"


def _since(watch: ColumnComparison, first: _Alarm) -> int:
    """The first window of the change: back from the first alarm, while a window alone shows an effect that matters."""
    place = first.window
    what = first.tested.what
    while place > 0 and any(
        test.what == what and test.effect >= test.least for test in watch.tests(slice(place - 1, place))
    ):
        place -= 1
    return place


def _watched(
    watches: Sequence[ColumnComparison], findings: Sequence[DriftFinding], window: int
) -> tuple[ColumnStatus, ...]:
    alarming = {item.feature for item in findings if item.active}
    statuses = []
    for watch in watches:
        tests = {item.what: item for item in watch.tests(slice(window, window + 1))}
        shift = tests.get("shift") or tests.get("constant") or tests.get("absent")
        missing = tests.get("missing")
        statuses.append(
            ColumnStatus(
                feature=watch.reference.name,
                role=watch.reference.role,
                effect=0.0 if shift is None else shift.effect,
                missing=1.0 if "absent" in tests else None if missing is None else missing.now,
                alarming=watch.reference.name in alarming,
            )
        )
    return tuple(statuses)


class WindowEffects(msgspec.Struct, frozen=True, kw_only=True):
    """One column over the windows [n]; None where a window has too few rows.

    `effects`: the distance of a shift, or the growth of a fault's share, by what changed. `worst`: the largest, over
    the least that matters.
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
