"""From looks to figures: the state of every metric's test, brought forward by what one look saw.

Each step of the canary has tests of its own, since its share of traffic differs; a metric's evidence over the release
joins them (`statistics.sequential.stages`). Everything that must be remembered is plain data in the release's row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np

from cumulant.core.traffic import CANDIDATE, CHAMPION, Exchange
from cumulant.core.units import share
from cumulant.release.boards import new_board, with_block, with_differences, with_interval
from cumulant.release.look import ARMS, Failures, Look, counting, failed, timed_out
from cumulant.release.metrics import Metric, harm_bars, metrics
from cumulant.release.state import Board, Release, counted
from cumulant.statistics import sequential

#: keys are remembered up to here; beyond it each failure counts for itself
_KEYS = 5000
#: champion's requests from which the bound of slow requests is taken
_FIRST = 300
#: microseconds, twenty bounds a decade: a quantile is told to within 12%
EDGES = np.geomspace(100, 1e8, 121)
_NONE = {CHAMPION: 0, CANDIDATE: 0}
#: the split's own alpha: how often a sound split may be called broken
_SPLIT_ALPHA = 0.001


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures keep between looks, beside the tests' states."""

    #: blocks of evidence that are not full yet, by metric, and how many looks are in them
    open: dict[str, Failures] = {}
    looks: int = 0
    #: keys that have failed, by metric
    failing: dict[str, list[str]] = {}
    #: microseconds above which a request is slow; the candidate's also with the margin
    slow: float | None = None
    early: list[int] = []
    #: by arm, how many requests of this step took how long, on the scale of `EDGES`
    took: dict[str, list[int]] = {}
    #: keys seen in this step, and the state of the split's test
    keys: list[str] = []
    split: dict[str, object] = {}


def seen(release: Release, look: Look) -> tuple[Release, bool]:
    """The release with the look counted and its boards brought forward, and whether the split is broken."""
    memory = msgspec.convert(release.memory, Memory) if release.memory else Memory()
    found = counting(look.exchanges, model=release.model, revision=release.revision)
    mirrored = {CANDIDATE: len(look.pairs), CHAMPION: 0} if not release.step.weight else _NONE
    answered = {arm: sum(one.assigned == arm for one in found) + mirrored[arm] for arm in ARMS}
    release = counted(release, answered, look.seconds)
    named = metrics(release.spec)
    memory, blocks = _blocks(release, memory, named, found)
    memory, skewed = _split(release, memory, found)
    alpha = share(release.spec.alpha)
    bars = harm_bars(named, alpha)
    boards = {}
    for name, metric in named.items():
        old = release.boards.get(name) or new_board(metric, harm_bar=bars.get(name), fine_bar=-math.log(alpha))
        if metric.kind in ("failures", "latency"):
            board = with_block(old, metric, blocks.get(name), step=release.at)
            if metric.kind == "latency":
                board = _took_told(board, metric, memory)
            elif board is not old:  # the interval changes with the test alone, and is dear
                board = with_interval(board)
            boards[name] = board
        else:
            boards[name] = with_differences(old, metric, _differences(metric, look), looks=release.looks(name))
    return msgspec.structs.replace(release, boards=boards, memory=msgspec.to_builtins(memory)), skewed


def _differences(metric: Metric, look: Look) -> list[tuple[float, float]]:
    """Each pair's values of the metric, the champion's and the candidate's, where more is worse."""
    if metric.name == "quality":
        return [(one.champion, one.candidate) for one in look.graded]
    if metric.name == "disagreement":
        return [(0.0, float(one.differs)) for one in look.pairs]
    if metric.name == "prediction":
        return [(one.champion, one.candidate) for one in look.pairs]
    return [(0.0, value) for value in look.own.get(metric.name, ())]


def keys_seen(release: Release) -> int:
    """How many keys the present step has seen; 0 where requests have none."""
    return len(msgspec.convert(release.memory, Memory).keys) if release.memory else 0


def forgotten(release: Release) -> dict[str, object]:
    """What a next step keeps of the memory: not the keys of the split, nor blocks that two weights would share.

    The next step has tests of its own, so that its bound of slow requests may be the champion's latest: one of the
    first moments, when servers have just started, would say little for the whole release.
    """
    old = msgspec.convert(release.memory, Memory) if release.memory else Memory()
    took, slow = old.took.get(CHAMPION, []), old.slow
    if sum(took) >= _FIRST:
        quantile = _quantile(took, metrics(release.spec)["latency"].quantile)
        slow = None if quantile is None else quantile * 1000
    kept = msgspec.structs.replace(old, open={}, looks=0, took={}, keys=[], split={}, slow=slow)
    return cast("dict[str, object]", msgspec.to_builtins(kept))


def _blocks(
    release: Release, memory: Memory, named: Mapping[str, Metric], found: Sequence[Exchange]
) -> tuple[Memory, dict[str, Failures]]:
    """This look's failures added to the open blocks; with the blocks that are full now."""
    if not release.step.weight:
        memory = msgspec.structs.replace(memory, took=_timed(memory.took, found))
        return _watched(memory, named["latency"], found), {}
    failing = {name: list(keys) for name, keys in memory.failing.items()}
    now = {
        "errors": _failures(found, failing, "errors", failed),
        "timeouts": _failures(found, failing, "timeouts", timed_out),
    }
    if memory.slow is not None:
        # The bound was taken from earlier requests only, so that it does not depend on those it is applied to.
        # A candidate whose quantile is within the margin exceeds the raised bound no oftener than the champion its own.
        raised = memory.slow * (1 + (named["latency"].margin or 0))
        now["latency"] = _slower(found, {CHAMPION: memory.slow, CANDIDATE: raised})
    joined = {name: memory.open[name] + block if name in memory.open else block for name, block in now.items()}
    looks = memory.looks + 1
    memory = msgspec.structs.replace(memory, failing=failing, took=_timed(memory.took, found))
    memory = _watched(memory, named["latency"], found)
    if looks < release.looks_a_block:
        return msgspec.structs.replace(memory, open=joined, looks=looks), {}
    return msgspec.structs.replace(memory, open={}, looks=0), joined


def _watched(memory: Memory, latency: Metric, found: Sequence[Exchange]) -> Memory:
    """The bound of slow requests, once enough of the champion's were seen."""
    if memory.slow is not None:
        return memory
    early = [*memory.early, *(one.duration_us for one in found if one.assigned == CHAMPION)][:20_000]
    if len(early) < _FIRST:
        return msgspec.structs.replace(memory, early=early)
    return msgspec.structs.replace(memory, early=[], slow=float(np.quantile(early, latency.quantile)))


def _failures(found: Sequence[Exchange], failing: dict[str, list[str]], name: str, bad: Any) -> Failures:
    """A key's first failure counts and its later ones do not: then failures of different keys are independent.

    The first one in whichever arm: counted afresh in each, keys that fail anyway would count against the candidate as
    they come over to it, while those that stay with the champion have been counted.
    """
    counts, place = dict(_NONE), failing.setdefault(name, [])
    for arm in ARMS:
        keys = [one.key for one in found if one.assigned == arm and bad(one)]
        anonymous = sum(not key for key in keys)
        known = set(place)
        fresh = [key for key in dict.fromkeys(keys) if key and key not in known]
        place += fresh[: _KEYS - len(place)]
        counts[arm] = anonymous + len(fresh)
    return Failures(requests=_requests(found), bad=counts)


def _slower(found: Sequence[Exchange], limits: Mapping[str, float]) -> Failures:
    bad = {arm: sum(one.assigned == arm and one.duration_us > limits[arm] for one in found) for arm in ARMS}
    return Failures(requests=_requests(found), bad=bad)


def _timed(took: Mapping[str, list[int]], found: Sequence[Exchange]) -> dict[str, list[int]]:
    counts = {}
    for arm in ARMS:
        now = np.histogram([one.duration_us for one in found if one.assigned == arm], bins=EDGES)[0]
        counts[arm] = (now + np.asarray(took.get(arm, 0))).tolist()
    return counts


def _took_told(board: Board, metric: Metric, memory: Memory) -> Board:
    """The board with each arm's quantile of this step, in milliseconds."""
    told = {arm: _quantile(memory.took.get(arm, []), metric.quantile) for arm in ARMS}
    return msgspec.structs.replace(board, champion=told[CHAMPION], candidate=told[CANDIDATE])


def _quantile(counts: Sequence[int], quantile: float) -> float | None:
    whole = np.cumsum(counts)
    if not len(whole) or not whole[-1]:
        return None
    return round(float(EDGES[int(np.searchsorted(whole, quantile * whole[-1])) + 1]) / 1000, 3)


def _requests(found: Sequence[Exchange]) -> dict[str, int]:
    return {arm: sum(one.assigned == arm for one in found) for arm in ARMS}


def _split(release: Release, memory: Memory, found: Sequence[Exchange]) -> tuple[Memory, bool]:
    """Whether the arms get the keys (or, without keys, the requests) that the weight says."""
    weight = release.step.weight / 100
    if not 0 < weight < 1:
        return memory, False
    known, counts = set(memory.keys), dict(_NONE)
    keys = list(memory.keys)
    for one in found:
        if one.key and (one.key in known or len(keys) >= _KEYS):
            continue
        if one.key:
            known.add(one.key)
            keys.append(one.key)
        counts[one.assigned] += 1
    shares = (
        sequential.Shares.from_json(memory.split) if memory.split else sequential.Shares.start((1 - weight, weight))
    )
    shares = shares.add([counts[CHAMPION], counts[CANDIDATE]])
    memory = msgspec.structs.replace(memory, keys=keys, split=shares.to_json())
    return memory, float(shares.log_mismatch()) >= -math.log(_SPLIT_ALPHA)
