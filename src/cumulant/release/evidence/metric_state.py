"""Updates of one metric's board: its test's state, its evidence over the whole release, and its reported values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import msgspec
import numpy as np

from cumulant.release.evidence.harm_sizes import TIMES, size_of
from cumulant.release.evidence.look import ARMS, PerArm
from cumulant.release.evidence.metrics import ReleaseMetric
from cumulant.release.state import Board
from cumulant.statistics.sequential.arrays import Floats, unpack
from cumulant.statistics.sequential.long_run_variance import LongRunVariance
from cumulant.statistics.sequential.mean_bounds import BettingBounds, BlockBounds
from cumulant.statistics.sequential.means import Paired
from cumulant.statistics.sequential.rates import RateDesign, Rates
from cumulant.statistics.sequential.stages import stages
from cumulant.statistics.sequential.symmetric import PairedBlocks

#: what evidence raises that another version of the program stored
UNREADABLE = (msgspec.MsgspecError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError)
#: a value beyond this is taken as this: sums of larger ones overflow
_LARGEST = 1e100
#: what a block of pairs counts for while nothing shows how blocks depend on each other
_UNKNOWN_WEIGHT = 0.5


class LookBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Looks that count together, full or not: their units, and bad ones among them."""

    looks: int = 0
    units: PerArm = PerArm()
    bad: PerArm = PerArm()


class Tempering(msgspec.Struct, frozen=True, kw_only=True):
    """What each arm's evidence counts for: one over its design effect. And what is fixed before a step begins:

    `step` is the spacing of the grid of rates, `bursts` what is known of the champion's, packed. `usual` is the
    champion's rate in all that is known of it.
    """

    champion: float = 1.0
    candidate: float = 1.0
    step: float = 0.05
    bursts: str = ""
    usual: float = 0.0


class _Rated(msgspec.Struct, frozen=True, kw_only=True):
    """State of a metric of failures: evidence of the steps that are over, the test of this one, and counts of all."""

    step: int
    #: evidence of harm and of no harm, at the end of each earlier test and now in this one
    past: list[tuple[float, float]] = []
    latest: tuple[float, float] = (0.0, 0.0)
    test: dict[str, object] = {}
    #: bad events of both arms in the present test, and the evidence of no harm of the one before it in this step
    events: PerArm = PerArm()
    fine_before: float = 0.0
    #: what the evidence of each arm counts for in the present test (`Tempering`)
    weights: PerArm = PerArm(champion=1.0, candidate=1.0)
    #: of each step up to this one, the units and bad ones of the champion, then of the candidate
    counts: list[tuple[float, float, float, float]] = []
    #: the last of `counts` is of this step
    in_step: bool = False


class _Paired(msgspec.Struct, frozen=True, kw_only=True):
    """State of a metric of pairs: its tests, sums for the reported means, and the block that is not full yet."""

    test: dict[str, object] = {}
    #: the same of the differences with the other sign, where a change in either direction is one for the worse
    reverse: dict[str, object] = {}
    #: the tests of both signs and the sums of this step alone: harm of pairs may begin late, too
    step_test: dict[str, object] = {}
    step_reverse: dict[str, object] = {}
    step_count: int = 0
    step_differences: float = 0.0
    #: the same tests at other differences than the margin, which bound the difference of the whole release
    bounds: dict[str, object] = {}
    #: of the means of blocks
    dependence: dict[str, object] = {}
    count: int = 0
    champion: float = 0.0
    candidate: float = 0.0
    #: looks since the open block began, its pairs, and the sum of their differences
    looks: int = 0
    pairs: int = 0
    differences: float = 0.0


def check_state(board: Board, metric: ReleaseMetric) -> None:
    """Read what a board's tests have stored.

    Raises:
        msgspec.ValidationError, KeyError, ValueError: it is of another form.
    """
    if not board.state:
        return
    if metric.kind in ("failures", "latency"):
        rated = msgspec.convert(board.state, _Rated)
        if rated.test:
            Rates.from_json(rated.test)
        return
    paired = msgspec.convert(board.state, _Paired)
    if paired.test and metric.kind == "pairs":
        PairedBlocks.from_json(paired.test)
    if paired.bounds:
        (BettingBounds if metric.kind == "own" else BlockBounds).from_json(paired.bounds)


def in_next_step(board: Board, metric: ReleaseMetric) -> Board:
    """The board as the next step begins: that a rate is within its margin must be shown in each step afresh.

    Of pairs, which are few, evidence goes on; beside it each step has a test of harm of its own.
    """
    if metric.kind in ("failures", "latency"):
        return msgspec.structs.replace(board, fine=0.0, beyond=False)
    if not board.state:
        return board
    state = msgspec.convert(board.state, _Paired)
    state = msgspec.structs.replace(state, step_test={}, step_reverse={}, step_count=0, step_differences=0.0)
    return _with_state(board, state)


def with_block(
    board: Board, metric: ReleaseMetric, block: LookBlock | None, *, step: int, tempering: Tempering
) -> Board:
    """The board after a full block of requests in the step of that index; None: the block is not full yet."""
    if block is None or metric.margin is None:
        return board
    state = msgspec.convert(board.state, _Rated) if board.state else _Rated(step=step)
    state, weighed = _test_block(_in_step(state, step), metric, block, tempering)
    board = msgspec.structs.replace(
        board,
        samples={
            arm: round(sum(block_counts[place * 2] for block_counts in state.counts)) for place, arm in enumerate(ARMS)
        },
    )
    harm = float(stages([side[0] for side in (*state.past, state.latest)]))
    board = _with_evidence(board, harm, max(state.latest[1], state.fine_before))
    if board.verdict.worse and not board.confirmed:
        beyond = _log_beyond_accepted(metric, state, weighed, tempering)
        board = msgspec.structs.replace(board, confirmed=beyond >= (board.harm_bar or math.inf))
    # An arm of few events needs no finer grid, and a fresh test would lose its evidence.
    resolved = min(state.events.champion, state.events.candidate) >= tempering.step**-2
    return _with_state(board, _with_fresh_test(state) if resolved else state)


def _test_block(state: _Rated, metric: ReleaseMetric, block: LookBlock, tempering: Tempering) -> tuple[_Rated, Rates]:
    test = Rates.from_json(state.test) if state.test else _new_test(tempering)
    test = test.add(
        champion_requests=block.units.champion,
        champion_bad=block.bad.champion,
        candidate_requests=block.units.candidate,
        candidate_bad=block.bad.candidate,
    )
    weighed = test.tempered(tempering.champion, tempering.candidate)
    # The margin of latency is in its bound already: there both sides are tested at equal rates.
    allowed = 0.0 if metric.kind == "latency" else metric.margin or 0.0
    state = msgspec.structs.replace(
        state,
        latest=(float(weighed.log_harm()), float(weighed.log_not_worse(difference=allowed))),
        weights=PerArm(champion=tempering.champion, candidate=tempering.candidate),
        test=test.to_json(),
        events=state.events.with_more(block.bad.champion, block.bad.candidate),
        counts=_add_counts(state, block),
        in_step=True,
    )
    return state, weighed


def with_rates(
    board: Board, metric: ReleaseMetric, champion: tuple[float, float], candidate: tuple[float, float]
) -> Board:
    """The board with each arm's rate (bad ones of so many units) in this step, and whether it looks too high."""
    (n, x), (m, y) = champion, candidate
    if metric.margin is None or not n or not m:
        return board
    beyond = y / m - x / n > (0.0 if metric.kind == "latency" else metric.margin)
    if metric.kind == "latency":  # its board shows times
        return msgspec.structs.replace(board, beyond=beyond)
    return msgspec.structs.replace(board, champion=x / n, candidate=y / m, beyond=beyond)


def with_differences(board: Board, metric: ReleaseMetric, pairs: Floats, *, looks: int) -> Board:
    """The board after one more look's pairs of values [n, 2], the champion's and the candidate's, where more is worse.

    Pairs of a block depend on each other in any way, so that together they are one value: the block is over with the
    look in which it has lasted `looks` of them and holds the metric's fewest pairs.
    """
    state = msgspec.convert(board.state, _Paired) if board.state else _Paired()
    pairs = np.clip(pairs[np.isfinite(pairs).all(axis=1)], -_LARGEST, _LARGEST) if len(pairs) else pairs
    if not len(pairs) and not state.pairs:
        return board
    if len(pairs):
        state, board = _add_pairs(state, board, pairs)
        board = msgspec.structs.replace(board, beyond=_beyond(metric, state))
    state = msgspec.structs.replace(state, looks=state.looks + 1)
    if metric.margin is None or state.looks < looks or state.pairs < metric.fewest:
        return _with_state(board, state)
    closed, harm, fine = _close_block(state, metric)
    board = _with_evidence(_with_state(board, closed), harm, fine)
    return msgspec.structs.replace(board, confirmed=metric.kind != "own" or board.beyond)


def _new_test(tempering: Tempering) -> Rates:
    design = RateDesign(step=tempering.step)
    known = unpack(tempering.bursts).reshape(len(design.kinds), -1) if tempering.bursts else None
    return Rates.start(design, known=known)


def _with_fresh_test(state: _Rated) -> _Rated:
    """The state after a test that has seen as many bad events as its grid of rates resolves: the next begins afresh."""
    return msgspec.structs.replace(
        state,
        past=[*state.past, state.latest],
        latest=(0.0, 0.0),
        test={},
        events=PerArm(),
        fine_before=state.latest[1],
    )


def _add_counts(state: _Rated, block: LookBlock) -> list[tuple[float, float, float, float]]:
    more = (block.units.champion, block.bad.champion, block.units.candidate, block.bad.candidate)
    if not state.in_step:
        return [*state.counts, more]
    first, second, third, fourth = state.counts[-1]
    return [*state.counts[:-1], (first + more[0], second + more[1], third + more[2], fourth + more[3])]


def _log_beyond_accepted(metric: ReleaseMetric, state: _Rated, weighed: Rates, tempering: Tempering) -> float:
    """Log evidence that a harm is larger than what is accepted; infinite where its size surely is."""
    if metric.kind == "latency":
        return math.inf
    # Harm that begins late shows in the newest steps alone.
    whole = state.counts
    usual = max(tempering.usual, (sum(size[1] for size in whole) + 1) / max(sum(size[0] for size in whole), 1.0))
    sizes = [
        size_of(whole[first:], metric, usual=usual, weighed=min(tempering.champion, tempering.candidate))
        for first in range(len(whole))
    ]
    if any(size.surely_beyond(late=first > 0) for first, size in enumerate(sizes)):
        return math.inf
    margin = metric.margin or 0.0
    if sizes[-1].accepted < margin:
        return float(weighed.log_harm(ratio=TIMES))
    return float(weighed.log_harm(difference=margin))


def _add_pairs(state: _Paired, board: Board, pairs: Floats) -> tuple[_Paired, Board]:
    state = msgspec.structs.replace(
        state,
        count=state.count + len(pairs),
        champion=state.champion + float(pairs[:, 0].sum()),
        candidate=state.candidate + float(pairs[:, 1].sum()),
        pairs=state.pairs + len(pairs),
        step_count=state.step_count + len(pairs),
        step_differences=state.step_differences + float((pairs[:, 1] - pairs[:, 0]).sum()),
        differences=state.differences + float((pairs[:, 1] - pairs[:, 0]).sum()),
    )
    return state, msgspec.structs.replace(
        board,
        champion=state.champion / state.count,
        candidate=state.candidate / state.count,
        samples=dict.fromkeys(ARMS, state.count),
    )


def _beyond(metric: ReleaseMetric, state: _Paired) -> bool:
    """Whether a mean difference, of all pairs or of this step's, is beyond the margin so far; few pairs never are."""
    if metric.margin is None:
        return False
    sums = ((state.count, state.candidate - state.champion), (state.step_count, state.step_differences))
    means = [total / count for count, total in sums if count >= metric.fewest]
    return any((abs(mean) if metric.two_sided else mean) > metric.margin for mean in means)


def _close_block(state: _Paired, metric: ReleaseMetric) -> tuple[_Paired, float, float]:
    mean = state.differences / state.pairs
    history = LongRunVariance.from_json(state.dependence)
    weight = 1 / history.design_effect() if history.visible() > 1 else _UNKNOWN_WEIGHT
    closed = msgspec.structs.replace(state, dependence=history.add([mean]).to_json(), looks=0, pairs=0, differences=0.0)
    margin = cast("float", metric.margin)
    if metric.kind == "own":  # it is bounded and may be anything else
        own = Paired.from_json(state.test) if state.test else None
        own = own or Paired.start(margin=margin, scale=metric.scale)
        value = min(max(mean, -metric.scale), metric.scale)
        own = own.add([value])
        within = BettingBounds.from_json(state.bounds) if state.bounds else BettingBounds.start(margin, metric.scale)
        closed = msgspec.structs.replace(closed, test=own.to_json(), bounds=within.add(value).to_json())
        return closed, float(own.log_harm()), float(own.log_not_worse())
    tests = {name: _paired(getattr(state, name), margin) for name in ("test", "step_test")}
    tests = {name: test.add(mean, state.pairs, weight=weight) for name, test in tests.items()}
    bounds = BlockBounds.from_json(state.bounds) if state.bounds else BlockBounds.start(margin)
    bounds = bounds.add(mean, state.pairs, weight=weight)
    closed = msgspec.structs.replace(closed, bounds=bounds.to_json())
    signs = {name: float(test.log_harm()) for name, test in tests.items()}
    fine = float(tests["test"].log_not_worse())
    if metric.two_sided:
        others = {name: _paired(getattr(state, name), margin) for name in ("reverse", "step_reverse")}
        others = {name: test.add(-mean, state.pairs, weight=weight) for name, test in others.items()}
        signs |= {name: float(test.log_harm()) for name, test in others.items()}
        fine = min(fine, float(others["reverse"].log_not_worse()))
        tests |= others
    closed = msgspec.structs.replace(closed, **{name: test.to_json() for name, test in tests.items()})
    # The mean of e-values is one.
    return closed, float(np.logaddexp.reduce(list(signs.values()))) - math.log(len(signs)), fine


def _paired(stored: Mapping[str, object], margin: float) -> PairedBlocks:
    """The test of a metric of pairs. Harm is a mean difference beyond the margin: one within it is never acted on."""
    if stored:
        return PairedBlocks.from_json(stored)
    return PairedBlocks.start(margin=margin, edge=margin)


def with_interval(board: Board) -> Board:
    """The board with the interval of its difference, valid at every look; it decides nothing.

    Of rates it is that of the present test, with dependent requests weighed as in its evidence; of pairs that of the
    whole release, each end with half of alpha. Of latency, whose test compares shares of slow requests and no times,
    there is none (`slow_share_interval`).
    """
    alpha = math.exp(-board.fine_bar)
    try:
        if board.unit == "%" and "step" in board.state:
            low, high = _rate_interval(board, alpha)
        elif board.state.get("bounds"):
            stored = cast("Mapping[str, object]", board.state["bounds"])
            kind = BettingBounds if "scale" in stored else BlockBounds
            ends = map(float, kind.from_json(stored).interval(alpha))
            low, high = (end if math.isfinite(end) else None for end in ends)
        else:
            return board
    except UNREADABLE:
        return board
    return msgspec.structs.replace(board, low=low, high=high)


def slow_share_interval(board: Board) -> tuple[float | None, float | None, float | None]:
    """Of latency, in this step: how much larger the candidate's share of slow requests is, and its interval.

    A request is slow beyond the champion's quantile, one of the candidate beyond that and its margin: what is above 0
    is harm, what is below is none.
    """
    if board.unit != "ms" or not board.state:
        return None, None, None
    try:
        state = msgspec.convert(board.state, _Rated)
        (n, x, m, y) = state.counts[-1] if state.in_step else (0.0, 0.0, 0.0, 0.0)
        low, high = _rate_interval(board, math.exp(-board.fine_bar))
    except UNREADABLE:
        return None, None, None
    return (y / m - x / n if n and m else None), low, high


def _rate_interval(board: Board, alpha: float) -> tuple[float | None, float | None]:
    if not board.state.get("test"):
        return board.low, board.high
    state = msgspec.convert(board.state, _Rated)
    test = Rates.from_json(state.test).tempered(state.weights.champion, state.weights.candidate)
    low, high = (float(end) for end in test.difference_interval(alpha))
    return _finite(low), _finite(high)


def _in_step(state: _Rated, step: int) -> _Rated:
    if state.step == step:
        return state
    past = [*state.past, state.latest] if state.test else state.past
    return _Rated(step=step, past=past, counts=state.counts)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) and abs(value) < 1 else None


def _with_state(board: Board, state: _Rated | _Paired) -> Board:
    return msgspec.structs.replace(board, state=cast("dict[str, object]", msgspec.to_builtins(state)))


def _with_evidence(board: Board, harm: float, fine: float) -> Board:
    return msgspec.structs.replace(
        board,
        harm=harm,
        fine=fine,
        most_harm=max(board.most_harm, harm),
        most_fine=max(board.most_fine, fine),
    )
