"""The state of every metric's test, updated with the evidence of one look.

Each step of the canary has tests of its own; evidence of harm joins them (`statistics.sequential.stages`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import msgspec
import numpy as np

from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.release.evidence.champion_history import FEWEST_LOOKS, ChampionHistory, ChampionRecord
from cumulant.release.evidence.key_statistics import KeyStatistics, Units, units
from cumulant.release.evidence.label_selection import HourlyScores
from cumulant.release.evidence.look import ARMS, COUNTED, Look, Requests
from cumulant.release.evidence.metric_state import (
    UNREADABLE,
    LookBlock,
    Tempering,
    check_state,
    in_next_step,
    with_block,
    with_differences,
    with_interval,
    with_rates,
)
from cumulant.release.evidence.metrics import ReleaseMetric, metrics, split_alpha
from cumulant.release.evidence.traffic_split import TrafficSplitState, broken, next_epoch, with_units
from cumulant.release.paired.paired_evaluation import prior_evidence
from cumulant.release.state import Board, Release, add_samples
from cumulant.statistics.sequential.arrays import Floats, pack
from cumulant.statistics.sequential.rates import known_bursts

#: champion's requests from which the bound of slow requests is taken
_FIRST = 300
#: microseconds, twenty bounds a decade: a quantile is reported to within 12%
EDGES = np.geomspace(100, 1e8, 121)
#: bounds of the spacing of the grid of rates: fine enough for the bad events that a step may bring
_FINEST, _COARSEST = 0.01, 0.05
#: blocks that the shortest time of a step holds at least: with longer ones it would see nothing in time
_BLOCKS = 12
#: blocks of the champion's past from which its bursts are known
_NEWEST = 500
#: weight in percent above which the champion has too few requests to learn from
_LEARNING = 50.0


class BlockLength(msgspec.Struct, frozen=True, kw_only=True):
    """Looks in a block, and how many times the variance of many such blocks exceeds that of independent ones."""

    looks: int = 1
    design_effect: float = 1.0


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures keep between looks, beside the tests' states."""

    champion: ChampionRecord = ChampionRecord()
    #: by metric that is counted, from the champion's record
    blocks: dict[str, BlockLength] = {}
    #: by metric, the evidence of the champion's past on its bursts (`known_bursts`), packed
    bursts: dict[str, str] = {}
    #: by metric, spacing of the grid of rates in this step
    grids: dict[str, float] = {}
    #: by metric, the block that is not full
    open: dict[str, LookBlock] = {}
    #: microseconds above which a request is slow; the candidate's also with the margin
    slow: float | None = None
    early: list[float] = []
    #: by arm, how many requests of this step took how long, on the scale of `EDGES`
    took: dict[str, list[int]] = {}
    #: seconds since the candidate first answered a caller; None: it has not yet
    answering: float | None = None
    #: what the warm-up left out: seconds, and the candidate's requests
    warm_up_seconds: float = 0.0
    warm_up_requests: int = 0
    #: of this step: its keys, all units and their bad shares by arm [2][4], and the split
    keys: dict[str, str] = {}
    units: list[list[float]] = []
    split: TrafficSplitState = TrafficSplitState()
    #: requests with a key of this step that are counted
    keyed: float = 0.0
    #: which mirrored rows have a label
    selection: HourlyScores = HourlyScores()
    #: looks without a pair since the last one, and mirrored requests in them, about
    unpaired_looks: int = 0
    unpaired_requests: float = 0.0


def read_memory(release: Release) -> Memory:
    return msgspec.convert(release.memory, Memory) if release.memory else Memory()


def is_readable(release: Release) -> bool:
    """Whether this program can read the release's evidence; another version of it may store another form."""
    try:
        read_memory(release)
        for name, board in release.boards.items():
            check_state(board, metrics(release.policy)[name])
    except UNREADABLE:
        return False
    return True


def without_states(release: Release) -> Release:
    """An ended release as it is stored: the intervals of its metrics, without the states of their tests."""
    boards = {name: msgspec.structs.replace(with_interval(board), state={}) for name, board in release.boards.items()}
    return msgspec.structs.replace(release, boards=boards, memory={})


def with_history(release: Release, history: ChampionHistory) -> Release:
    """A release that has not begun, with its champion's requests before it, which fix the length of blocks."""
    memory = read_memory(release)
    memory = msgspec.structs.replace(
        memory, champion=memory.champion.with_looks(history.requests, history.bad), slow=history.slow_us
    )
    memory = _with_block_lengths(memory, release)
    bursts = {name: _bursts(history, place, release.looks_a_block) for place, name in enumerate(COUNTED)}
    if not history.bad[:, COUNTED.index("timeouts")].any():  # they are failures, of which there may have been others
        bursts["timeouts"] = bursts["errors"]
    return _with_memory(release, msgspec.structs.replace(memory, bursts=bursts if len(history) else {}))


def _bursts(history: ChampionHistory, place: int, looks: int) -> str:
    """The evidence of the newest blocks of so many looks on the champion's bursts."""
    whole = len(history) // looks
    newest = slice(len(history) - whole * looks, None)
    requests, bad = (
        counts[newest].reshape(whole, looks).sum(1)[-_NEWEST:] for counts in (history.requests, history.bad[:, place])
    )
    return pack(known_bursts(requests, np.minimum(bad, requests)))


def count_look(release: Release, look: Look) -> tuple[Release, bool]:
    """The release with the evidence of the look added, and whether the traffic split is broken."""
    per_arm = {arm: int(look.requests.arm(arm).sum()) for arm in ARMS}
    samples = per_arm if release.step.weight else {CHAMPION: 0, CANDIDATE: len(look.pairs)}
    release = add_samples(release, samples, look.seconds)
    named, alpha = _with_fewest(release, metrics(release.policy)), release.policy.alpha
    memory, blocks, tempering, skewed = _add_to_memory(release, look, named["latency"])
    alphas = split_alpha(named, alpha)
    boards = {}
    for name, metric in named.items():
        unlike = name == "quality" and memory.selection.selective  # what these rows show need not hold of the others
        board = None if unlike else release.boards.get(name)
        if board is None:
            board = Board(
                metric=name,
                unit=metric.unit,
                margin=metric.margin,
                required=metric.required and metric.margin is not None,
                harm_bar=-math.log(alphas[name]) if name in alphas else None,
                fine_bar=-math.log(alpha),
            )
            if name == "quality" and metric.margin is not None and release.evaluation is not None:
                # Labels of the release's own requests may come late: labelled rows of the past count too.
                prior = prior_evidence(release.evaluation, margin=metric.margin, bar=board.fine_bar)
                board = msgspec.structs.replace(board, prior=prior)
        if name in COUNTED:
            board = with_block(board, metric, blocks.get(name), step=release.at, tempering=tempering[name])
            board = _with_measured(board, metric, memory)
        elif not unlike:
            board = with_differences(board, metric, _differences(metric, look), looks=release.looks(name))
        boards[name] = board
    return msgspec.structs.replace(_with_memory(release, memory), boards=boards), skewed


def _add_to_memory(
    release: Release, look: Look, latency: ReleaseMetric
) -> tuple[Memory, dict[str, LookBlock], dict[str, Tempering], bool]:
    """The memory with a look; by metric full blocks and their tempering; and whether the traffic split is broken."""
    requests = look.requests
    memory = _with_answering_time(read_memory(release), release, look, int(requests.candidate.sum()))
    limit = np.inf if memory.slow is None else memory.slow
    raised = limit * (1 + (latency.margin or 0))
    slow = requests.micros > np.where(requests.candidate, raised, limit)
    of_look = units(requests, slow=slow)
    sums, keys = of_look.sums(), KeyStatistics.from_json(memory.keys)
    blocks: dict[str, LookBlock] = {}
    warming = _is_warming_up(memory, release)
    if release.step.weight and not warming:
        keys = keys.add(of_look)
        memory, blocks = _blocks(release, memory, of_look, sums)
    memory = memory if warming else msgspec.structs.replace(memory, took=_count_latencies(memory.took, requests))
    memory = _learn_champion(memory, release, requests, sums[0], quantile=latency.quantile)
    memory, skewed = _split(release, memory, of_look, keys)
    tempering = _tempering(memory, keys)
    memory = msgspec.structs.replace(memory, keys=keys.to_json(), selection=memory.selection.with_look(look))
    return _count_unpaired(memory, release, look), blocks, tempering, skewed


def _count_unpaired(memory: Memory, release: Release, look: Look) -> Memory:
    """The memory with the mirrored requests since the last pair; a look without requests says nothing."""
    if len(look.pairs) or not release.mirror:
        return msgspec.structs.replace(memory, unpaired_looks=0, unpaired_requests=0.0)
    mirrored = float(look.requests.arm(CHAMPION).sum()) * release.mirror / 100
    return msgspec.structs.replace(
        memory,
        unpaired_looks=memory.unpaired_looks + (mirrored > 0),
        unpaired_requests=memory.unpaired_requests + mirrored,
    )


def _with_fewest(release: Release, named: dict[str, ReleaseMetric]) -> dict[str, ReleaseMetric]:
    fewest = release.fewest_by_metric
    return {
        name: msgspec.structs.replace(metric, fewest=max(metric.fewest, fewest.get(name, 1)))
        for name, metric in named.items()
    }


def _with_measured(board: Board, metric: ReleaseMetric, memory: Memory) -> Board:
    """The board with each arm's rate in this step or, of latency, its quantile in milliseconds."""
    if memory.units:
        place = 1 + COUNTED.index(metric.name)
        champion, candidate = ((arm[0], arm[place]) for arm in memory.units)
        board = with_rates(board, metric, champion, candidate)
    if metric.kind != "latency":
        return board
    quantiles = {arm: _quantile(memory.took.get(arm, []), metric.quantile) for arm in ARMS}
    return msgspec.structs.replace(board, champion=quantiles[CHAMPION], candidate=quantiles[CANDIDATE])


def _differences(metric: ReleaseMetric, look: Look) -> Floats:
    """Each pair's values of the metric [n, 2], the champion's and the candidate's, where more is worse."""
    if metric.name == "quality":
        return np.stack([look.losses.champion, look.losses.candidate], axis=1)
    if metric.name == "disagreement":
        return np.stack([np.zeros(len(look.pairs)), look.pairs.differs.astype(np.float64)], axis=1)
    if metric.name == "distance":
        return np.stack([np.zeros(len(look.pairs)), np.abs(look.pairs.candidate - look.pairs.champion)], axis=1)
    if metric.name == "prediction":
        return np.stack([look.pairs.champion, look.pairs.candidate], axis=1)
    values = np.asarray(look.own.get(metric.name, ()), dtype=np.float64)
    return np.stack([np.zeros(len(values)), values], axis=1)


def count_keys(release: Release) -> int:
    """How many keys the present step has seen, of those that are sampled; 0 where requests have none."""
    return read_memory(release).split.distinct


def has_history(release: Release) -> bool:
    """Whether the champion's history is long enough to show how its failures depend on each other."""
    return read_memory(release).champion.looks >= FEWEST_LOOKS


def begin_next_step(release: Release) -> tuple[dict[str, object], dict[str, Board]]:
    """The memory and the boards with which the next step begins: nothing of keys, open blocks or the split."""
    old, named = read_memory(release), metrics(release.policy)
    took, slow = old.took.get(CHAMPION, []), old.slow
    if sum(took) >= _FIRST:
        quantile = _quantile(took, named["latency"].quantile)
        slow = None if quantile is None else quantile * 1000
    memory = msgspec.structs.replace(
        old, slow=slow, open={}, took={}, keys={}, units=[], split=TrafficSplitState(), keyed=0.0
    )
    following = msgspec.structs.replace(release, at=min(release.at + 1, len(release.steps) - 1))
    memory = _with_block_lengths(memory, following)
    boards = {name: in_next_step(board, named[name]) for name, board in release.boards.items()}
    return cast("dict[str, object]", msgspec.to_builtins(memory)), boards


def _with_block_lengths(memory: Memory, release: Release) -> Memory:
    """The lengths of blocks and the grids of rates of the step, from all that is known of the champion."""
    known, step = memory.champion, release.step
    look = release.policy.look
    most = max(release.looks_a_block, int(step.at_least / look / _BLOCKS))
    blocks = {}
    for name in COUNTED:
        looks, effect = known.block(name, least=release.looks_a_block, most=most)
        blocks[name] = BlockLength(looks=looks, design_effect=effect)
    per_look = known.requests / known.looks if known.looks else 0.0
    arm = max(step.weight, 100 - step.weight) / 100
    grids = {}
    for name in COUNTED:
        events = known.rate(name) * per_look * arm * max(step.at_least, look) / look
        grids[name] = float(np.clip(1 / math.sqrt(max(events, 1.0)), _FINEST, _COARSEST))
    return msgspec.structs.replace(memory, blocks=blocks, grids=grids)


def _with_answering_time(memory: Memory, release: Release, look: Look, requests: int) -> Memory:
    """The memory with the time for which the candidate has answered callers, and what the warm-up excludes."""
    if not release.step.weight or (memory.answering is None and not requests):
        return memory
    memory = msgspec.structs.replace(memory, answering=(memory.answering or 0.0) + look.seconds)
    if not _is_warming_up(memory, release):
        return memory
    return msgspec.structs.replace(
        memory, warm_up_seconds=memory.answering or 0.0, warm_up_requests=memory.warm_up_requests + requests
    )


def _is_warming_up(memory: Memory, release: Release) -> bool:
    """Whether the look lies in the warm-up, in part at least: caches of a new process fill with its first requests."""
    if memory.answering is None:
        return False
    return memory.answering <= release.policy.warm_up


def _blocks(release: Release, memory: Memory, of_look: Units, sums: Floats) -> tuple[Memory, dict[str, LookBlock]]:
    """The look's units, and their `sums`, added to the open blocks; with the blocks that are full now."""
    whole = np.asarray(memory.units) + sums if memory.units else sums
    open_, full = dict[str, LookBlock](), dict[str, LookBlock]()
    for place, name in enumerate(COUNTED, start=1):
        if name == "latency" and memory.slow is None:
            continue
        now = _add_units(memory.open.get(name, LookBlock()), sums, place)
        is_full = now.looks >= memory.blocks.get(name, BlockLength(looks=release.looks_a_block)).looks
        (full if is_full else open_)[name] = now
    keyed = memory.keyed + float(of_look.requests[of_look.key != 0].sum())
    return msgspec.structs.replace(memory, open=open_, units=whole.tolist(), keyed=keyed), full


def _add_units(block: LookBlock, sums: Floats, place: int) -> LookBlock:
    return LookBlock(
        looks=block.looks + 1, units=block.units.with_more(*sums[:, 0]), bad=block.bad.with_more(*sums[:, place])
    )


def _tempering(memory: Memory, keys: KeyStatistics) -> dict[str, Tempering]:
    """What each arm's evidence counts for: one over the dispersion over its keys, and over what blocks still share."""
    over_keys = keys.dispersion(np.asarray(memory.units)) if memory.units else np.ones((2, len(COUNTED)))
    temperings = {}
    for place, name in enumerate(COUNTED):
        over_time = memory.blocks.get(name, BlockLength()).design_effect
        champion, candidate = (float(1 / (over_keys[arm, place] * over_time)) for arm in (0, 1))
        temperings[name] = Tempering(
            champion=champion,
            candidate=candidate,
            step=memory.grids.get(name, _COARSEST),
            bursts=memory.bursts.get(name, ""),
            usual=memory.champion.rate(name),
        )
    return temperings


def _learn_champion(memory: Memory, release: Release, requests: Requests, sums: Floats, *, quantile: float) -> Memory:
    """What the champion's requests of the look, with the `sums` [4] of its units, add to what is known of it."""
    if memory.slow is None:
        early = [*memory.early, *requests.micros[~requests.candidate].tolist()][:20_000]
        known = len(early) >= _FIRST
        slow = float(np.quantile(early, quantile)) if known else None
        memory = msgspec.structs.replace(memory, early=[] if known else early, slow=slow)
    if release.step.weight > _LEARNING and memory.champion.looks >= FEWEST_LOOKS:
        return memory
    record = memory.champion.with_looks(sums[:1], sums[None, 1:])
    return msgspec.structs.replace(memory, champion=record)


def _count_latencies(took: dict[str, list[int]], requests: Requests) -> dict[str, list[int]]:
    counts = {}
    for arm in ARMS:
        now = np.histogram(requests.micros[requests.arm(arm)], bins=EDGES)[0]
        counts[arm] = (now + np.asarray(took.get(arm, 0))).tolist()
    return counts


def _quantile(counts: Sequence[int], quantile: float) -> float | None:
    whole = np.cumsum(counts)
    if not len(whole) or not whole[-1]:
        return None
    return round(float(EDGES[int(np.searchsorted(whole, quantile * whole[-1])) + 1]) / 1000, 3)


def _split(release: Release, memory: Memory, of_look: Units, keys: KeyStatistics) -> tuple[Memory, bool]:
    weight = release.step.weight / 100
    if not 0 < weight < 1:
        return memory, False
    split = with_units(memory.split, of_look)
    # In the warm-up keys are not counted: then it is unknown how uneven they are, and requests are not compared.
    without = 1.0 if (of_look.key != 0).any() else 0.0
    concentration = keys.concentration(memory.keyed) if memory.keyed else without
    skewed = broken(split, weight=weight, concentration=concentration)
    return msgspec.structs.replace(memory, split=split if skewed else next_epoch(split)), skewed


def _with_memory(release: Release, memory: Memory) -> Release:
    return msgspec.structs.replace(release, memory=cast("dict[str, object]", msgspec.to_builtins(memory)))
