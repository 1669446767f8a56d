"""One metric's board brought forward: its test's state, its evidence over the whole release, and what is told of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec
import numpy as np

from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.release.look import ARMS, Failures
from cumulant.release.metrics import Metric
from cumulant.release.state import Board
from cumulant.statistics import sequential
from cumulant.statistics.sequential.arrays import Floats

#: a worsening within the margin matters all the same where the rate is this many times the champion's
_TIMES = 2.0


class _Rated(msgspec.Struct, frozen=True, kw_only=True):
    """State of a metric of failures: evidence of the steps that are over, the test of this one, and its counts."""

    step: int
    #: evidence of harm and of no harm, at the end of each earlier step and now in this one
    past: list[tuple[float, float]] = []
    latest: tuple[float, float] = (0.0, 0.0)
    test: dict[str, object] = {}
    requests: dict[str, int] = {}
    bad: dict[str, int] = {}


class _Paired(msgspec.Struct, frozen=True, kw_only=True):
    """State of a metric of pairs: its test, sums for the means that are told, and the block that is not full yet."""

    test: dict[str, object] = {}
    count: int = 0
    champion: float = 0.0
    candidate: float = 0.0
    #: looks since the open block began, its pairs, and the sum of their differences
    looks: int = 0
    pairs: int = 0
    differences: float = 0.0


def new_board(metric: Metric, *, harm_bar: float | None, fine_bar: float) -> Board:
    """Nothing known yet."""
    return Board(
        metric=metric.name,
        unit=metric.unit,
        margin=metric.margin,
        required=metric.required and metric.margin is not None,
        harm_bar=harm_bar,
        fine_bar=fine_bar,
    )


def with_block(board: Board, metric: Metric, block: Failures | None, *, step: int) -> Board:
    """The board after a full block of requests in the step of that index; None: the block is not full yet."""
    if block is None or metric.margin is None:
        return board
    state = _in_step(msgspec.convert(board.state, _Rated) if board.state else _Rated(step=step), step)
    test = sequential.Rates.from_json(state.test) if state.test else sequential.Rates.start()
    test = test.add(
        champion_requests=block.requests[CHAMPION],
        champion_bad=block.bad[CHAMPION],
        candidate_requests=block.requests[CANDIDATE],
        candidate_bad=block.bad[CANDIDATE],
    )
    # The margin of latency is in its bound already: there both sides are asked at equal rates.
    allowed = 0.0 if metric.kind == "latency" else metric.margin
    state = msgspec.structs.replace(
        state,
        latest=(float(test.log_harm()), float(test.log_not_worse(difference=allowed))),
        test=test.to_json(),
        requests=_sum(state.requests, block.requests),
        bad=_sum(state.bad, block.bad),
    )
    board = msgspec.structs.replace(
        board,
        samples=_sum(board.samples, block.requests),
        state=cast("dict[str, object]", msgspec.to_builtins(state)),
    )
    if metric.kind == "failures":
        rates = {arm: state.bad[arm] / state.requests[arm] if state.requests[arm] else None for arm in ARMS}
        board = msgspec.structs.replace(board, champion=rates[CHAMPION], candidate=rates[CANDIDATE])
    sides = [*state.past, state.latest]
    return _evident(board, *(float(sequential.stages([side[which] for side in sides])) for which in (0, 1)))


def with_differences(board: Board, metric: Metric, values: Sequence[tuple[float, float]], *, looks: int) -> Board:
    """The board after one more look's pairs of values, the champion's and the candidate's, where more is worse.

    Pairs of a block depend on each other in any way, so that together they are one value: the block is over with the
    look in which it has lasted `looks` of them and holds the metric's fewest pairs.
    """
    state = msgspec.convert(board.state, _Paired) if board.state else _Paired()
    if not values and not state.pairs:
        return board
    if values:
        state, board = _counted(state, board, np.asarray(values, dtype=np.float64))
    state = msgspec.structs.replace(state, looks=state.looks + 1)
    if metric.margin is None or state.looks < looks or state.pairs < metric.fewest:
        return _kept(board, state)
    test = _tested(state, metric)
    closed = msgspec.structs.replace(state, test=test.to_json(), looks=0, pairs=0, differences=0.0)
    return _evident(_kept(board, closed), float(test.log_harm()), float(test.log_not_worse()))


def _counted(state: _Paired, board: Board, pairs: Floats) -> tuple[_Paired, Board]:
    """The sums with more pairs [n, 2], and the board with the means."""
    state = msgspec.structs.replace(
        state,
        count=state.count + len(pairs),
        champion=state.champion + float(pairs[:, 0].sum()),
        candidate=state.candidate + float(pairs[:, 1].sum()),
        pairs=state.pairs + len(pairs),
        differences=state.differences + float((pairs[:, 1] - pairs[:, 0]).sum()),
    )
    return state, msgspec.structs.replace(
        board,
        champion=state.champion / state.count,
        candidate=state.candidate / state.count,
        samples=dict.fromkeys(ARMS, state.count),
    )


def _tested(state: _Paired, metric: Metric) -> sequential.Paired | sequential.PairedBlocks:
    """The metric's test with the open block. A metric of your own is bounded and may be anything else."""
    margin, mean = cast("float", metric.margin), state.differences / state.pairs
    if metric.kind == "own":
        own = sequential.Paired.from_json(state.test) if state.test else None
        own = own or sequential.Paired.start(margin=margin, scale=metric.scale)
        return own.add([min(max(mean, -metric.scale), metric.scale)])
    found = sequential.PairedBlocks.from_json(state.test) if state.test else None
    # Two models that differ at all disagree somewhere: there the question is whether beyond the margin.
    edge = margin if metric.name == "disagreement" else 0.0
    return (found or sequential.PairedBlocks.start(margin=margin, edge=edge)).add(mean, state.pairs)


def matters(board: Board) -> bool:
    """Whether a proven worsening is also large enough to act on: above the margin, or a rate is a multiple.

    A difference that is proven and smaller than what was declared to be acceptable brings nothing back.
    """
    if board.champion is None or board.candidate is None or board.margin is None or board.unit == "ms":
        return True  # the margin of latency is in its bound already
    if board.candidate - board.champion > board.margin:
        return True
    return board.unit == "%" and board.candidate >= _TIMES * board.champion


def with_interval(board: Board) -> Board:
    """The board with the interval of its difference of rates, valid at every look; it is told and decides nothing."""
    if board.unit != "%" or "test" not in board.state or "step" not in board.state:
        return board
    test = sequential.Rates.from_json(cast("Mapping[str, object]", board.state["test"]))
    low, high = (float(end) for end in test.difference_interval(math.exp(-board.fine_bar)))
    return msgspec.structs.replace(board, low=_finite(low), high=_finite(high))


def _in_step(state: _Rated, step: int) -> _Rated:
    if state.step == step:
        return state
    return _Rated(step=step, past=[*state.past, state.latest] if state.test else state.past)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) and abs(value) < 1 else None


def _kept(board: Board, state: _Paired) -> Board:
    return msgspec.structs.replace(board, state=cast("dict[str, object]", msgspec.to_builtins(state)))


def _evident(board: Board, harm: float, fine: float) -> Board:
    return msgspec.structs.replace(
        board,
        harm=harm,
        fine=fine,
        most_harm=max(board.most_harm, harm),
        most_fine=max(board.most_fine, fine),
    )


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {arm: one.get(arm, 0) + other.get(arm, 0) for arm in ARMS}
