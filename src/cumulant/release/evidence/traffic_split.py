"""Whether the arms get the declared share of the traffic: by keys that are new, and by requests over time.

A violated split means that the comparison is broken, not that the candidate is bad.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from cumulant.release.evidence.key_statistics import Units
from cumulant.release.evidence.look import PerArm
from cumulant.statistics.sequential.arrays import pack, unpack
from cumulant.statistics.sequential.share import Shares

#: how often a sound split may be called broken, in each of the two ways
_ALPHA = 0.0005
#: looks in the first epoch; each is twice as long as the one before, up to the longest
_FIRST_EPOCH, _LONGEST_EPOCH = 12, 96
#: keys of the sample
_MOST = 2048
#: as many equal keys must there be, in effect, before shares of requests are near normal
_FEWEST_EFFECTIVE = 50
#: a key may have a larger share of requests in one epoch than in the whole step
_UNEVEN = 1.5


class TrafficSplitState(msgspec.Struct, frozen=True, kw_only=True):
    #: sampled keys that were seen: base64 of sorted 64-bit numbers below `below`
    keys: str = ""
    below: int = 2**64 - 1
    #: new units of the epoch and of the whole step, and the requests of the epoch
    new: PerArm = PerArm()
    all_new: PerArm = PerArm()
    requests: PerArm = PerArm()
    looks: int = 0
    epochs: int = 0
    #: distinct sampled keys that were seen in the step
    distinct: int = 0


def with_units(state: TrafficSplitState, units: Units) -> TrafficSplitState:
    known = unpack(state.keys, "<u8")
    keyed = units.key != 0
    sampled = keyed & (units.key <= np.uint64(state.below))
    fresh = sampled & ~np.isin(units.key, known)
    new = [float(((fresh | ~keyed) & (units.candidate == bool(arm))).sum()) for arm in (0, 1)]
    requests = [float(units.requests[units.candidate == bool(arm)].sum()) for arm in (0, 1)]
    keys, below = np.union1d(known, units.key[fresh]), state.below
    if len(keys) > _MOST:
        below = int(keys[_MOST // 2])
        keys = keys[: _MOST // 2 + 1]
    return msgspec.structs.replace(
        state,
        keys=pack(keys.astype("<u8")),
        below=below,
        new=state.new.with_more(*new),
        all_new=state.all_new.with_more(*new),
        requests=state.requests.with_more(*requests),
        looks=state.looks + 1,
        distinct=state.distinct + int(fresh.sum()),
    )


def broken(state: TrafficSplitState, *, weight: float, concentration: float) -> bool:
    """Whether an epoch that is over, or the step up to its end, does not fit the weight.

    `concentration`: sum of squared shares of the keys in the requests (`KeyStatistics.concentration`); 0 without keys.
    """
    from scipy.special import log_ndtr

    if not _over(state):
        return False
    shares = (1 - weight, weight)
    bar = math.log(2 * (state.epochs + 1) * (state.epochs + 2) / _ALPHA)  # the epochs share one alpha
    for counts in (state.new, state.all_new):
        pair = [counts.champion, counts.candidate]
        if sum(pair) and float(Shares.start(shares).add(pair).log_mismatch()) >= bar:
            return True
    total = state.requests.champion + state.requests.candidate
    if not total:
        return False
    uneven = _UNEVEN * concentration + 1 / total
    if uneven * _FEWEST_EFFECTIVE > 1:
        return False
    error = math.sqrt(weight * (1 - weight) * uneven)
    away = abs(state.requests.candidate / total - weight) / error
    return -(float(log_ndtr(-away)) + math.log(2)) >= bar


def next_epoch(state: TrafficSplitState) -> TrafficSplitState:
    """The state after a look that found nothing: a new epoch where the present one is over."""
    if not _over(state):
        return state
    return msgspec.structs.replace(state, new=PerArm(), requests=PerArm(), looks=0, epochs=state.epochs + 1)


def _over(state: TrafficSplitState) -> bool:
    return bool(state.looks >= min(_LONGEST_EPOCH, _FIRST_EPOCH * 2**state.epochs))
