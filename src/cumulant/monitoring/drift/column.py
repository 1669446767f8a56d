"""One column of a window against the reference: what there is to test, how large it is, and whether it is chance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cumulant.monitoring.drift.findings import DriftDistances, ShareChange, What
from cumulant.monitoring.drift.profiles import ColumnCounts
from cumulant.statistics.drift.bins import Grid, groups
from cumulant.statistics.drift.effects import distances as drift_distances
from cumulant.statistics.drift.effects import excess, sum_groups
from cumulant.statistics.drift.evidence import DriftEvidence, increase, two_samples
from cumulant.statistics.drift.intervals import effect as drift_effect
from cumulant.statistics.drift.intervals import squared_distances
from cumulant.statistics.drift.stationary import FEWEST as FEWEST_BLOCKS
from cumulant.statistics.drift.stationary import LEVERAGE, has_slope, shift_to_trend_end, steady_from
from cumulant.statistics.rows import Codes, Floats

#: fewer values than this in a window are not compared
FEWEST = 20
_PARTS = 3
#: a chance above which nothing alarms, so that no exact one is needed
_SUSPECT = 0.05
#: part of the reference on either side that is its tail at most: a hundredth, and what rounding adds
_TAIL = 0.0151


@dataclass(frozen=True)
class Least:
    """The least effects that matter: of a shift, of missing values, of faults and of rows far out."""

    shift: float
    missing: float
    faults: float
    tails: float


@dataclass(frozen=True, kw_only=True)
class ColumnTest:
    """One hypothesis about a column. What does not matter is not tested and has p = 1."""

    what: What
    effect: float
    least: float
    p: float = 1.0
    before: float | None = None
    now: float | None = None
    design: float = 1.0


@dataclass(frozen=True)
class ColumnComparison:
    """A column of the reference beside the same column of all windows."""

    reference: ColumnCounts
    current: ColumnCounts
    least: Least
    _before: Floats = field(init=False)
    _now: Floats = field(init=False)
    #: the reference's block from which on its values are steady: shifts are compared with what follows
    steady: int = field(init=False)
    #: whether what follows still has a slope: then a change has to be one from the level at its end as well
    slope: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_before", np.array(self.reference.counts, dtype=np.float64))
        object.__setattr__(self, "_now", np.array(self.current.counts, dtype=np.float64))
        steady, slope = self._stationary()
        object.__setattr__(self, "steady", steady)
        object.__setattr__(self, "slope", slope)

    def _stationary(self) -> tuple[int, bool]:
        if len(self._before) < FEWEST_BLOCKS:
            return 0, False
        counts = self._before[:, self._inside]
        each = float(counts.sum()) / len(counts)
        ordered = self.reference.cells.kind == "number"
        group = groups(counts.sum(axis=0), max(each, 1.0), ordered=ordered)
        blocks = sum_groups(counts, group)
        steady = steady_from(blocks, self.least.shift)
        return steady, steady > 0 or has_slope(blocks)

    @property
    def _inside(self) -> slice:
        """The cells of values that the reference could have had."""
        return slice(1, -1) if self.reference.cells.kind == "number" else slice(0, -1)

    def tests(self, windows: slice) -> tuple[ColumnTest, ...]:
        """The tests of these windows together."""
        if self.current.absent:
            return (ColumnTest(what="absent", effect=1.0, least=self.least.missing, p=0.0, before=0.0, now=1.0),)
        now = self._now[windows]
        # A label that is not there is not known yet.
        tests = (
            [self._shift(now)] if self.reference.role == "label" else [self._missing(windows, now), self._shift(now)]
        )
        tests += [self._impossible(now), self._tails(now)] if self.reference.cells.kind == "number" else []
        tests += [self._unseen(now)] if self._knows_all else []
        tests += [self._unreadable(windows, now)] if any(self.current.unreadable[windows]) else []
        return tuple(tests)

    @property
    def _knows_all(self) -> bool:
        return self.reference.cells.kind == "category" and self.reference.cells.complete

    def _missing(self, windows: slice, now: Floats) -> ColumnTest:
        before = _beside(self.reference.missing, self._before)
        after = _beside(self.current.missing[windows], now)
        first, then = (float(shares[:, 0].sum() / max(shares.sum(), 1.0)) for shares in (before, after))
        tested = ColumnTest(what="missing", effect=then - first, least=self.least.missing, before=first, now=then)
        if tested.effect < tested.least or after.sum() < FEWEST:
            return tested
        evidence = two_samples(before, after)
        return _proven(tested, _p_of_few(before[:, 0], after[:, 0], before, after, evidence), evidence.design)

    def _share(
        self, what: What, before: float, after: float, now: Floats, *, beside: float = 0.0, design: float = 1.0
    ) -> ColumnTest:
        """Exact test (Fisher) of a rare fault. `beside`: rows not in `now`; `design`: rows per one."""
        rows, all_now = float(self._before.sum()), float(now.sum()) + beside
        first, then = before / max(rows, 1.0), after / max(all_now, 1.0)
        tested = ColumnTest(what=what, effect=then - first, least=self.least.faults, before=first, now=then)
        if tested.effect < tested.least or all_now < FEWEST:
            return tested
        before_counts, now_counts, _ = self._inner(now)
        design = max(design, two_samples(before_counts, now_counts).design)
        return _proven(tested, increase(before, rows, after, all_now, design=design), design)

    def _impossible(self, now: Floats) -> ColumnTest:
        far = [0, -1]
        return self._share("impossible", float(self._before[:, far].sum()), float(now[:, far].sum()), now)

    def _tails(self, now: Floats) -> ColumnTest:
        """Rows in the outer hundredths of the reference: a few that moved far change no distance that matters."""
        far, before = self._reference_tails
        after = _inner_and_far(now[:, self._inside], far)
        return self._most_cautious(lambda level, leverage: self._tails_from(level, after, leverage), before)

    @cached_property
    def _reference_tails(self) -> tuple[NDArray[np.bool_], Floats]:
        """Which of the cells inside are the outer hundredths, and rows of the reference within and in these."""
        inside = self._before[:, self._inside]  # what lies beyond is a fault
        shares = np.cumsum(inside.sum(axis=0)) / max(float(inside.sum()), 1.0)
        far = (shares <= _TAIL) | (np.concatenate(([0.0], shares[:-1])) >= 1 - _TAIL)
        return far, _inner_and_far(inside[self.steady :], far)

    def _tails_from(self, before: Floats, after: Floats, leverage: float) -> ColumnTest:
        first, then = (float(counts[:, 1].sum() / max(counts.sum(), 1.0)) for counts in (before, after))
        tested = ColumnTest(what="tails", effect=then - first, least=self.least.tails, before=first, now=then)
        if tested.effect < tested.least or after.sum() < FEWEST:
            return tested
        evidence = two_samples(before, after, leverage=leverage)
        return _proven(tested, _p_of_few(before[:, 1], after[:, 1], before, after, evidence), evidence.design)

    def _most_cautious(self, compare: Callable[[Floats, float], ColumnTest], before: Floats) -> ColumnTest:
        """The test against the mean of `before` [blocks, cells], as sure as that against its end is at most."""
        tested = compare(before, 1.0)
        if tested.p == 1 or not self.slope:
            return tested
        end = compare(shift_to_trend_end(before), LEVERAGE)
        return end if end.p == 1 else replace(tested, p=max(tested.p, end.p))

    def _unseen(self, now: Floats) -> ColumnTest:
        # Of the next rows about as large a share is new as values were met once so far (Good 1953).
        before = np.column_stack([self._before[:, :-1].sum(axis=1), self._before[:, -1]])
        after = np.column_stack([now[:, :-1].sum(axis=1), now[:, -1]])
        cells = self.reference.cells
        # That share errs by more than a count: by how much follows from values met twice (Robbins 1968).
        design = two_samples(before, after).design * (1 + cells.twice / max(cells.once, 1))
        return self._share("unseen", float(cells.once), float(now[:, -1].sum()), now, design=design)

    def _unreadable(self, windows: slice, now: Floats) -> ColumnTest:
        count = float(sum(self.current.unreadable[windows]))
        return self._share("unreadable", 0.0, count, now, beside=count)

    def _inner(self, now: Floats) -> tuple[Floats, Floats, Codes]:
        """Counts [blocks, groups] of both, of values that the reference could have had, and the group of each cell."""
        before, after = self._before[self.steady :, self._inside], now[:, self._inside]
        smaller = float(min(before.sum(), after.sum()))
        pooled = before.sum(axis=0) + after.sum(axis=0)
        group = groups(pooled, smaller, ordered=self.reference.cells.kind == "number")
        return sum_groups(before, group), sum_groups(after, group), group

    def _shift(self, now: Floats) -> ColumnTest:
        reference, current, _ = self._inner(now)
        n, m = float(reference.sum()), float(current.sum())
        if min(n, m) < FEWEST:
            return ColumnTest(what="shift", effect=0.0, least=self.least.shift)
        what: What = "constant" if self._constant(now) else "shift"
        return self._most_cautious(lambda level, leverage: self._shift_from(level, current, leverage, what), reference)

    def _shift_from(self, reference: Floats, current: Floats, leverage: float, what: What) -> ColumnTest:
        apart = float(squared_distances(reference.sum(axis=0)[None], current.sum(axis=0)[None])[0])
        effect = _effect(apart, reference, current, 1.0)
        if effect < self.least.shift:
            return ColumnTest(what="shift", effect=effect, least=self.least.shift)
        evidence = two_samples(reference, current, leverage=leverage)
        effect = _effect(apart, reference, current, evidence.design)
        tested = ColumnTest(what=what, effect=effect, least=self.least.shift)
        return _proven(tested, evidence.p, evidence.design) if effect >= self.least.shift else tested

    def _constant(self, now: Floats) -> bool:
        """All values lie in one cell, which held less than half of the reference's."""
        totals = now.sum(axis=0)
        return int((totals > 0).sum()) == 1 and float(self._before[:, totals > 0].sum() / self._before.sum()) < 0.5

    def interval(self, windows: slice, design: float) -> tuple[float, float]:
        """The 95% interval of a shift in these windows."""
        reference, current, _ = self._inner(self._now[windows])
        estimate = drift_effect(reference, current, design=design)
        return estimate.low, estimate.high

    def distances(self, windows: slice) -> DriftDistances:
        """All distances of these windows from the reference."""
        now = self._now[windows]
        _, _, group = self._inner(now)
        cells, before = self.reference.cells, self._before[self.steady :].sum(axis=0)
        if cells.kind == "number":
            whole = np.concatenate(([group[0]], group, [group[-1]]))
            grid = Grid(np.array(cells.edges))
            distances = drift_distances(before, now.sum(axis=0), whole, grid=grid, spread=cells.spread)
        else:
            whole = np.append(group, group.max() + 1)
            distances = drift_distances(before, now.sum(axis=0), whole)
        return DriftDistances(
            psi=distances.psi, kolmogorov_smirnov=distances.kolmogorov_smirnov, wasserstein=distances.wasserstein
        )

    def parts(self, windows: slice) -> tuple[ShareChange, ...]:
        """The values that carry a shift, those whose share changed most first."""
        reference, current, group = self._inner(self._now[windows])
        before, now = (counts.sum(axis=0) / max(float(counts.sum()), 1.0) for counts in (reference, current))
        order = np.argsort(-np.abs(now - before), kind="stable")[:_PARTS]
        return tuple(
            ShareChange(self._named(group, int(place)), float(before[place]), float(now[place])) for place in order
        )

    def _named(self, group: Codes, place: int) -> str:
        cells = self.reference.cells
        members = np.flatnonzero(group == place)
        if cells.kind == "category":
            names = [cells.values[at] for at in members if at < len(cells.values)]
            # The cell of the rare ones is empty where every value has its own, whatever it is put together with.
            whole = len(members) == len(names) or (cells.complete and not cells.known)
            return names[0] if len(names) == 1 and whole else "all others"
        first, last = int(members[0]), int(members[-1])  # inner cell i lies below edge i + 1
        low = -math.inf if first == 0 else cells.edges[first]
        high = math.inf if last == len(group) - 1 else cells.edges[last + 1]
        if low == -math.inf:
            return f"up to {high:.6g}"
        return f"above {low:.6g}" if high == math.inf else f"{low:.6g} to {high:.6g}"


def _p_of_few(then: Floats, now: Floats, before: Floats, after: Floats, evidence: DriftEvidence) -> float:
    """The p-value of counts `then` and `now` of `before` and `after`: exact where under five are expected."""
    if evidence.p > _SUSPECT:
        return evidence.p
    counts = (float(shares.sum()) for shares in (then, before, now, after))
    return max(evidence.p, increase(*counts, design=evidence.design))


def _beside(missing: tuple[int, ...], counts: Floats) -> Floats:
    return np.column_stack([np.array(missing, dtype=np.float64), counts.sum(axis=1)])


def _inner_and_far(counts: Floats, far: NDArray[np.bool_]) -> Floats:
    return np.column_stack([counts[:, ~far].sum(axis=1), counts[:, far].sum(axis=1)])


def _effect(apart: float, reference: Floats, current: Floats, design: float) -> float:
    n, m = float(reference.sum()), float(current.sum())
    kinds = int(((reference.sum(axis=0) + current.sum(axis=0)) > 0).sum())
    return math.sqrt(excess(apart, cells=kinds, rows=n * m / (n + m) / design))


def _proven(tested: ColumnTest, p: float, design: float) -> ColumnTest:
    return ColumnTest(
        what=tested.what,
        effect=tested.effect,
        least=tested.least,
        p=p,
        before=tested.before,
        now=tested.now,
        design=design,
    )
