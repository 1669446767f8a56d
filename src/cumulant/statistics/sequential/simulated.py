"""Simulated releases under the tests that decide real ones, and the look at which each decides."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats, check_alpha
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
#: spacing of the grid on the logarithm of the rate, in parts of a rate's own standard error, and its bounds
_RESOLVED, _STEPS = 1.0, (0.02, 0.16)
#: log evidence by which what bursts may explain at a look may cost less than at a later one
_LESS = 1.0
#: standard deviations from the wanted share at which releases not yet tested would not change the answer
_FAR = 2.5
#: of a share of releases, which is no whole number by it
_ROUNDING = 1e-9


@dataclass(frozen=True)
class SimulatedCounts:
    """The counts of simulated releases, each [looks, releases]."""

    requests: Floats
    bad: Floats
    candidate_requests: Floats
    candidate_bad: Floats

    def of(self, releases: slice) -> SimulatedCounts:
        return self._each(lambda counts: counts[:, releases])

    def until(self) -> SimulatedCounts:
        """The sums of all looks until each."""
        return self._each(lambda counts: counts.cumsum(0))

    def _each(self, change: Callable[[Floats], Floats]) -> SimulatedCounts:
        arrays = (self.requests, self.bad, self.candidate_requests, self.candidate_bad)
        requests, bad, candidate_requests, candidate_bad = (change(array) for array in arrays)
        return SimulatedCounts(requests, bad, candidate_requests, candidate_bad)


@dataclass(frozen=True)
class SimulatedTest:
    """A test of simulated releases, and one without bursts that proves more.

    Attributes:
        evidence: [batch] of a state.
        most: [looks, releases] without bursts, from the sums of all looks until each and the design.
        bound: from which on evidence decides.
    """

    evidence: Callable[[Rates], Floats]
    most: Callable[[SimulatedCounts, RateDesign], Floats]
    bound: float

    def beyond(self, counts: SimulatedCounts, design: RateDesign) -> Floats:
        """[looks, releases]: by how much evidence may exceed the bound at most."""
        beyond: Floats = self.most(counts.until(), design) - self.bound + _SLACK
        return beyond


def simulate_counts(
    means: tuple[float, float],
    rates: tuple[float, float],
    *,
    shape: tuple[int, int],
    seed: int,
) -> SimulatedCounts:
    """The counts of champion and candidate: fixed requests per look, binomial bad events at these rates."""
    rate, worse = rates
    if not (0 < rate < 1 and 0 < worse < 1):
        raise ValueError(f"rates {rate} and {worse} must lie between 0 and 1")
    rng = np.random.default_rng(seed)

    def arm(requests: float, chance: float) -> tuple[Floats, Floats]:
        whole = math.ceil(requests)
        bad = rng.binomial(whole, chance * (requests / whole), shape)
        return np.full(shape, requests, dtype=np.float64), bad.astype(np.float64)

    return SimulatedCounts(*arm(means[0], rate), *arm(means[1], worse))


def harm_test(alpha: float) -> SimulatedTest:
    """The test whether the candidate's rate is above the champion's."""

    def most(until: SimulatedCounts, design: RateDesign) -> Floats:
        # Given the total of bad events, the candidate's are binomial: no grid is needed.
        ratios = np.array(design.ratios)[:, None, None]
        share = until.candidate_requests / np.maximum(until.requests + until.candidate_requests, 1)
        gains = until.candidate_bad * np.log(ratios) - (until.bad + until.candidate_bad) * np.log1p(
            share * (ratios - 1)
        )
        top = gains.max(0)
        evidence: Floats = top + np.log(np.exp(gains - top).mean(0))
        return evidence + _grid_excess(until, design)

    return SimulatedTest(lambda state: state.log_harm(), most, math.log(1 / check_alpha(alpha)))


def _grid_excess(until: SimulatedCounts, design: RateDesign) -> Floats:
    """[looks, releases]: by how much harm on the grid may exceed harm without one."""
    root = np.sqrt(until.candidate_bad)
    at_end = until.candidate_bad + _FROM_END * (root + 1) >= design.rates[-1] * until.candidate_requests
    more: Floats = _AN_EVENT * until.candidate_bad + _A_ROOT * root + math.log(len(design.ratios)) * at_end
    return more


def not_worse_test(alpha: float, margin: float) -> SimulatedTest:
    """The test whether the candidate's rate is below the champion's + `margin`."""

    def most(until: SimulatedCounts, design: RateDesign) -> Floats:
        calm = replace(design, shapes=(math.inf,), outage=0.0)
        rates = calm.rates

        def arm(bad: Floats, requests: Floats) -> Floats:
            likelihood: Floats = (bad[..., None] * np.log(rates) - requests[..., None] * rates)[..., None, :]
            return likelihood

        # Look by look: the tables of all together would not fit into the processor's cache.
        champion = zip(until.bad, until.requests, strict=True)
        candidate = zip(until.candidate_bad, until.candidate_requests, strict=True)
        looks = zip(champion, candidate, strict=True)
        states = (Rates(calm, arm(*first), arm(*second)) for first, second in looks)
        return np.stack([state.log_not_worse(difference=margin) for state in states])

    return SimulatedTest(lambda state: state.log_not_worse(difference=margin), most, math.log(1 / check_alpha(alpha)))


def look_of_most(counts: SimulatedCounts, test: SimulatedTest, share: float) -> int | None:
    """The look (from 1) at which the `share` of the releases has evidence enough; None where fewer have at the last.

    By bisection, as evidence grows with time: a release that had it earlier, and no longer has, may be missed.
    """
    looks, count = (int(size) for size in counts.bad.shape)
    states, everything = _States(counts, choose_design(counts)), np.arange(count)
    wanted, begun, reached = math.ceil(share * count - _ROUNDING), 0, np.zeros(count, dtype=np.bool_)
    sums = states.sums(0, everything)
    tried, end = looks, looks + 1
    while begun + 1 < end:
        further = [table.copy() for table in sums]
        for look in range(begun, tried):
            states.add(further, look, everything)
        enough = reached | (states.evidence(further, test, ~reached) >= test.bound)
        if enough.sum() >= wanted:
            end = tried
        elif tried == looks:
            return None
        else:
            begun, sums, reached = tried, further, enough
        tried = (begun + end) // 2
    return end


def decide_often(counts: SimulatedCounts, test: SimulatedTest, least: float) -> bool:
    """Whether at least the share `least` of the releases decides at some look, tested in groups until that is sure."""
    design, count = choose_design(counts), int(counts.bad.shape[1])
    beyond = test.beyond(counts, design)
    possible: Flags = np.any(beyond >= 0, axis=0)
    wanted = math.ceil(least * count - _ROUNDING)
    decided = 0
    for begin in range(0, count, _TOGETHER):
        those = slice(begin, begin + _TOGETHER)
        decided += _count_decided(_States(counts.of(those), design), test, beyond[:, those])
        tested, remaining = min(begin + _TOGETHER, count), int(possible[begin + _TOGETHER :].sum())
        if not decided < wanted <= decided + remaining:
            break
        apart = decided - least * tested
        if abs(apart) > _FAR * math.sqrt(tested * least * (1 - least)):
            return apart > 0
    return decided >= wanted


def choose_design(counts: SimulatedCounts) -> RateDesign:
    """A grid around the rates that were simulated, as fine as their events need: more costs time and changes little."""
    total = (counts.bad.sum() + counts.candidate_bad.sum()) / (counts.requests.sum() + counts.candidate_requests.sum())
    events = min(counts.bad.sum(), counts.candidate_bad.sum()) / counts.bad.shape[1]
    step = float(np.clip(_RESOLVED / math.sqrt(max(events, 1.0)), *_STEPS))
    return RateDesign(lowest=max(total / 50, 1e-7), highest=min(max(total * 50, 1e-5), 0.9), step=step)


class _States:
    def __init__(self, counts: SimulatedCounts, design: RateDesign) -> None:
        self._design = design
        self._tables = [
            distinct_likelihoods(bad, requests, design.rates, design.kinds)
            for bad, requests in ((counts.bad, counts.requests), (counts.candidate_bad, counts.candidate_requests))
        ]

    def sums(self, looks: int, releases: Places) -> list[Floats]:
        """Of each arm, the log likelihood [releases, kinds, points] of the first `looks`."""
        sums = [np.zeros((len(releases), *table.shape[1:])) for table, _ in self._tables]
        for look in range(looks):
            self.add(sums, look, releases)
        return sums

    def add(self, sums: list[Floats], look: int, releases: Places) -> None:
        for sum_, (table, places) in zip(sums, self._tables, strict=True):
            np.add(sum_, table[places[look, releases]], out=sum_)

    def take_out(self, sums: list[Floats], look: int, releases: Places) -> None:
        for sum_, (table, places) in zip(sums, self._tables, strict=True):
            np.subtract(sum_, table[places[look, releases]], out=sum_)

    def evidence(self, sums: list[Floats], test: SimulatedTest, chosen: Flags) -> Floats:
        """[releases]: that of the chosen; of others minus infinity."""
        evidence = np.full(len(chosen), -math.inf)
        if chosen.any():
            champion, candidate = (table[chosen] for table in sums)
            evidence[chosen] = test.evidence(Rates(self._design, champion, candidate))
        return evidence


def _count_decided(states: _States, test: SimulatedTest, beyond: Floats) -> int:
    """How many releases decide at some look: the last goes first, then those at which evidence may suffice."""
    waiting = np.flatnonzero((beyond >= 0).any(0))
    sums, count = states.sums(len(beyond), waiting), 0
    needed = np.zeros(beyond.shape[1])
    for look in reversed(range(len(beyond))):
        evidence = states.evidence(sums, test, beyond[look, waiting] >= needed[waiting])
        decided = evidence >= test.bound
        count += int(decided.sum())
        tested = np.isfinite(evidence)
        costs = beyond[look, waiting] + test.bound - evidence
        needed[waiting[tested]] = np.maximum(costs[tested] - _LESS, 0)
        goes_on = ~decided & (beyond[:look, waiting] >= needed[waiting]).any(0)
        if not goes_on.all():
            waiting, sums = waiting[goes_on], [table[goes_on] for table in sums]
        if not len(waiting):
            break
        states.take_out(sums, look, waiting)
    return count
