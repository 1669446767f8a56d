"""The quick check, once a second: failures so plain that they need no long comparison."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.release.evidence.look import Requests
from cumulant.release.policy import CeilingPolicy
from cumulant.statistics.sequential.arrays import Floats

#: a share of failures must exceed the champion's worst moment so many times
_TIMES = 1.25
#: a larger share of failures is taken for no burst: one outage or uneven traffic in the champion's past would else make
#: bursts so heavy that no failure were proof
_LARGEST_BURST = 0.5
#: seconds that are counted
RECENT = 5


class ArmHealth(msgspec.Struct, frozen=True, kw_only=True):
    #: seconds for which no server of the arm has been ready; 0 while one is
    not_ready: float = 0.0
    #: of its servers, in the last minute
    restarts: int = 0
    #: of the last seconds, keys and requests without one; and how many of them failed (a key by its last request)
    requests: int = 0
    failures: int = 0
    #: answers that do not have the outputs that the champion's have
    misshapen: int = 0


class RecentHealth(msgspec.Struct, frozen=True, kw_only=True):
    champion: ArmHealth = ArmHealth()
    candidate: ArmHealth = ArmHealth()

    def of(self, arm: str) -> ArmHealth:
        return self.candidate if arm == CANDIDATE else self.champion


class HardFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A hard failure. `shared`: the champion has it too, so it is not the candidate's."""

    text: str
    shared: bool


class FailureReference(msgspec.Struct, frozen=True, kw_only=True):
    """The champion's past failures, and the level of one check.

    `worst` is its worst share in one look, `usual` its rate, `shape` that of the gamma bursts (mean 1) of those
    seconds; infinity where its failures are independent.
    """

    worst: float = 0.0
    usual: float = 0.0
    shape: float = math.inf
    level: float = 0.005


def count_failures(requests: Requests, arm: str) -> tuple[int, int]:
    """An arm's requests and failures: a key counts once, by its last request."""
    mine = requests.arm(arm)
    keys, failed = requests.key[mine][::-1], requests.failed[mine][::-1]
    known = keys != 0
    _, last = np.unique(keys[known], return_index=True)
    alone = ~known
    return len(last) + int(alone.sum()), int(failed[known][last].sum() + failed[alone].sum())


def find_hard_failure(health: RecentHealth, ceilings: CeilingPolicy, reference: FailureReference) -> HardFailure | None:
    """The candidate's hard failure; None where there is none."""
    if health.candidate.misshapen:
        answers = "an answer" if health.candidate.misshapen == 1 else f"{health.candidate.misshapen} answers"
        return HardFailure(text=f"the candidate gave {answers} of another shape than the champion's", shared=False)
    text = _down(health.candidate, ceilings)
    if text is not None:
        return HardFailure(text=f"the candidate {text}", shared=_down(health.of(CHAMPION), ceilings) is not None)
    if not _failing(health.candidate, ceilings):
        return None
    text = f"the candidate failed {health.candidate.failures} of its last {health.candidate.requests} requests"
    if _failing(health.champion, ceilings):
        return HardFailure(text=text, shared=True)
    worse = _chance_of_failures(health, reference) <= reference.level
    return HardFailure(text=text, shared=False) if worse else None


def _down(arm: ArmHealth, ceilings: CeilingPolicy) -> str | None:
    if arm.restarts >= ceilings.restarts:
        return f"was started again {arm.restarts} times within a minute"
    if arm.not_ready > ceilings.not_ready:
        return f"has had no server that is ready for {arm.not_ready:.0f} s"
    return None


def _failing(arm: ArmHealth, ceilings: CeilingPolicy) -> bool:
    return arm.requests >= ceilings.requests and arm.failures > ceilings.errors * arm.requests


def _chance_of_failures(health: RecentHealth, reference: FailureReference) -> float:
    """The chance of so many failures if the candidate were like the champion; 1 where that has failed as much."""
    mine, theirs = health.candidate, health.champion
    failing = mine.failures / mine.requests
    if failing <= min(_TIMES * reference.worst, 1 - 1e-9):
        return 1.0
    bad = mine.failures + theirs.failures
    good = mine.requests + theirs.requests - bad
    now = _at_least(mine.failures, of=mine.requests, bad=bad, good=good)
    return max(now, _in_a_burst(mine, reference)) if failing <= _LARGEST_BURST else now


def _in_a_burst(arm: ArmHealth, reference: FailureReference) -> float:
    """The chance that an arm with the champion's rate and bursts fails so often: negative binomial."""
    from scipy.special import betainc

    expected = arm.requests * reference.usual
    if math.isinf(reference.shape) or not expected:
        return 0.0
    return float(betainc(arm.failures, reference.shape, expected / (expected + reference.shape)))


def _at_least(failures: int, *, of: int, bad: int, good: int) -> float:
    """Fisher's exact test, one-sided: the chance that so many of `of` drawn ones or more are among the bad."""
    above = np.arange(failures, min(of, bad) + 1, dtype=np.float64)
    logs = _ways(bad, above) + _ways(good, of - above) - _ways(good + bad, np.asarray(float(of)))
    return float(np.exp(logs[of - above <= good]).sum())


def _ways(whole: int, part: Floats) -> Floats:
    from scipy.special import gammaln

    return gammaln(whole + 1) - gammaln(part + 1) - gammaln(np.maximum(whole - part, 0) + 1)
