"""Many simulated releases under the very tests that decide real ones, and when each decides.

Three things save time and change no result: equal blocks have one likelihood; where rates do not vary, a test is run
only where the same test without bursts, which then proves more and costs little, reaches the bound; and none is run
once the answer is sure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats, level
from cumulant.statistics.sequential.block_likelihood import Places, distinct_likelihoods
from cumulant.statistics.sequential.rates import RateDesign, Rates

Flags = npt.NDArray[np.bool_]
#: releases that are looked at together where it may soon be known how many decide
_TOGETHER = 25
#: log evidence by which a test may exceed the one without bursts
_SLACK = 0.5
#: by which harm on a grid of rates may exceed harm without one, for each event of the candidate and for the square root
#: of these: beside the above, no less than 1,700 random settings showed
_AN_EVENT, _A_ROOT = 0.001, 0.1
#: standard deviations of the candidate's rate from the end of the grid, where all worse alternatives are one
_FROM_END = 8.0
#: of a share of releases, which is no whole number by it
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Counts:
    """Each [looks, releases]. `bursts`: whether rates vary from look to look."""

    requests: Floats
    bad: Floats
    asked: Floats
    worse: Floats
    bursts: bool = False

    def of(self, releases: slice) -> Counts:
        """Those of some releases."""
        return self._each(lambda counts: counts[:, releases])

    def until(self) -> Counts:
        """The sums of all looks until each."""
        return self._each(lambda counts: counts.cumsum(0))

    def _each(self, change: Callable[[Floats], Floats]) -> Counts:
        requests, bad, asked, worse = (change(one) for one in (self.requests, self.bad, self.asked, self.worse))
        return Counts(requests, bad, asked, worse, self.bursts)


@dataclass(frozen=True)
class Test:
    """A test of simulated releases, and one without bursts that proves more.

    Attributes:
        evidence: [batch] of a state.
        most: [looks, releases] without bursts, from the sums of all looks until each and the design.
        bound: from which on evidence decides.
    """

    evidence: Callable[[Rates], Floats]
    most: Callable[[Counts, RateDesign], Floats]
    bound: float

    def may_decide(self, counts: Counts, design: RateDesign) -> Flags:
        """[looks, releases]: where evidence without bursts reaches the bound; everywhere if rates vary."""
        if counts.bursts:
            return np.ones(counts.bad.shape, dtype=np.bool_)
        possible: Flags = self.most(counts.until(), design) >= self.bound - _SLACK
        return possible


def simulated(
    means: tuple[float, float],
    rates: tuple[float, float],
    *,
    shape: tuple[int, int],
    seed: int,
    burst: float = 0.0,
) -> Counts:
    """Poisson requests with these means in each look, and bad events at these rates, of champion and candidate."""
    rate, worse = rates
    if not (0 < rate < 1 and 0 < worse < 1 and burst >= 0):
        raise ValueError(f"rates {rate} and {worse} must lie between 0 and 1, and the burst {burst} at or above 0")
    rng = np.random.default_rng(seed)

    def arm(requests: float, chance: float) -> tuple[Floats, Floats]:
        n = rng.poisson(requests, shape)
        bursts = rng.gamma(burst**-2, burst**2, shape) if burst else np.ones(shape)
        return n.astype(np.float64), rng.binomial(n, np.minimum(chance * bursts, 1)).astype(np.float64)

    return Counts(*arm(means[0], rate), *arm(means[1], worse), bursts=burst > 0)


def harm_test(alpha: float, margin: float = 1.0) -> Test:
    """Whether the candidate's rate is above `margin` x the champion's."""

    def most(until: Counts, design: RateDesign) -> Floats:
        # Given the total of bad events, the candidate's are binomial: no grid is needed.
        ratios = np.array(design.ratios)[:, None, None]
        share = until.asked * margin / np.maximum(until.requests + until.asked * margin, 1)
        gains = until.worse * np.log(ratios) - (until.bad + until.worse) * np.log1p(share * (ratios - 1))
        top = gains.max(0)
        found: Floats = top + np.log(np.exp(gains - top).mean(0))
        return found + _of_grid(until, design)

    return Test(lambda state: state.log_harm(ratio=margin), most, math.log(1 / level(alpha)))


def _of_grid(until: Counts, design: RateDesign) -> Floats:
    """[looks, releases]: by how much harm on the grid may exceed harm without one."""
    root = np.sqrt(until.worse)
    at_end = until.worse + _FROM_END * (root + 1) >= design.rates[-1] * until.asked
    more: Floats = _AN_EVENT * until.worse + _A_ROOT * root + math.log(len(design.ratios)) * at_end
    return more


def not_worse_test(alpha: float, margin: float) -> Test:
    """Whether the candidate's rate is below the champion's + `margin`."""

    def most(until: Counts, design: RateDesign) -> Floats:
        calm = replace(design, shapes=(math.inf,), outage=0.0)
        rates = calm.rates

        def arm(bad: Floats, requests: Floats) -> Floats:
            found: Floats = (bad[..., None] * np.log(rates) - requests[..., None] * rates)[..., None, :]
            return found

        # Look by look: the tables of all together would not fit into the processor's cache.
        looks = zip(until.bad, until.requests, until.worse, until.asked, strict=True)
        states = (Rates(calm, arm(bad, requests), arm(worse, asked)) for bad, requests, worse, asked in looks)
        return np.stack([state.log_not_worse(difference=margin) for state in states])

    return Test(lambda state: state.log_not_worse(difference=margin), most, math.log(1 / level(alpha)))


def first_looks(counts: Counts, test: Test, enough: float = 1.0) -> Floats:
    """[releases]: the look (from 1) at which each decided; infinity where it did not.

    Once it is known when the share `enough` had decided, or that it does not, the others are not looked at any more.
    """
    design, count = design_of(counts), int(counts.bad.shape[1])
    possible = test.may_decide(counts, design)
    first = np.full(count, math.inf)
    wanted = math.ceil(enough * count - _ROUNDING)
    if enough < 1 and possible.any(0).sum() < wanted:
        return first
    return _first(_States(counts, design), test, possible, wanted)


def decide_often(counts: Counts, test: Test, least: float) -> bool:
    """Whether at least the share `least` of the releases decides at some look."""
    design, count = design_of(counts), int(counts.bad.shape[1])
    possible = test.may_decide(counts, design)
    wanted = math.ceil(least * count - _ROUNDING)
    decided, undecided = 0, int(possible.any(0).sum())  # of those that may decide
    begin, size = 0, _TOGETHER
    while decided < wanted <= decided + undecided:
        those = slice(begin, begin + size)
        some = _ever(_States(counts.of(those), design), test, possible[:, those])
        decided, undecided = decided + some, undecided - int(possible[:, those].any(0).sum())
        # Where few do, that is soon sure; else all others are looked at together, which is faster.
        begin, size = begin + size, _TOGETHER if decided < least * (begin + size) else count
    return decided >= wanted


def design_of(counts: Counts) -> RateDesign:
    """A grid around the rates that were simulated: what is far away costs time and changes nothing."""
    total = (counts.bad.sum() + counts.worse.sum()) / (counts.requests.sum() + counts.asked.sum())
    return RateDesign(lowest=max(total / 50, 1e-7), highest=min(max(total * 50, 1e-5), 0.9), step=0.08)


class _States:
    """The states of releases that are looked at together."""

    def __init__(self, counts: Counts, design: RateDesign) -> None:
        self._design = design
        self._tables = [
            distinct_likelihoods(bad, requests, design)
            for bad, requests in ((counts.bad, counts.requests), (counts.worse, counts.asked))
        ]

    def sums(self, looks: int, releases: Places) -> list[Floats]:
        """Of each arm, the log likelihood [releases, kinds, points] of the first `looks`."""
        sums = [np.zeros((len(releases), *table.shape[1:])) for table, _ in self._tables]
        for look in range(looks):
            self.add(sums, look, releases)
        return sums

    def add(self, sums: list[Floats], look: int, releases: Places) -> None:
        """Add the likelihood of one look."""
        for sum_, (table, places) in zip(sums, self._tables, strict=True):
            np.add(sum_, table[places[look, releases]], out=sum_)

    def take_out(self, sums: list[Floats], look: int, releases: Places) -> None:
        """Subtract the likelihood of one look."""
        for sum_, (table, places) in zip(sums, self._tables, strict=True):
            np.subtract(sum_, table[places[look, releases]], out=sum_)

    def decided(self, sums: list[Floats], test: Test, chosen: Flags) -> Flags:
        """[releases]: which of the chosen decide."""
        decided = np.zeros(len(chosen), dtype=np.bool_)
        if chosen.any():
            champion, candidate = (one[chosen] for one in sums)
            state = Rates(self._design, champion, candidate)
            decided[chosen] = test.evidence(state) >= test.bound
        return decided


def _first(states: _States, test: Test, possible: Flags, wanted: int) -> Floats:
    """As `first_looks`, look by look until as many as `wanted` have decided, or no other can decide any more."""
    first = np.full(possible.shape[1], math.inf)
    waiting = np.flatnonzero(possible.any(0))
    sums, undecided = states.sums(0, waiting), wanted
    for look, may in enumerate(possible):
        states.add(sums, look, waiting)
        decided = states.decided(sums, test, may[waiting])
        first[waiting[decided]] = look + 1
        undecided -= int(decided.sum())
        goes_on = ~decided & possible[look + 1 :, waiting].any(0)
        if undecided <= 0 or (wanted < len(first) and goes_on.sum() < undecided) or not goes_on.any():
            break
        if not goes_on.all():
            waiting, sums = waiting[goes_on], [one[goes_on] for one in sums]
    return first


def _ever(states: _States, test: Test, possible: Flags) -> int:
    """How many releases decide at some look. Most of these would also do so at the last, which goes first."""
    waiting = np.flatnonzero(possible.any(0))
    sums, count = states.sums(len(possible), waiting), 0
    for look in reversed(range(len(possible))):
        decided = states.decided(sums, test, possible[look, waiting])
        count += int(decided.sum())
        goes_on = ~decided & possible[:look, waiting].any(0)
        if not goes_on.all():
            waiting, sums = waiting[goes_on], [one[goes_on] for one in sums]
        if not len(waiting):
            break
        states.take_out(sums, look, waiting)
    return count
