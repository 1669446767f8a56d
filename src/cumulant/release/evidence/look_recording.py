"""Adds the evidence of one look to the history of a release."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.release.evidence.metric_state import slow_share_interval, with_interval
from cumulant.release.evidence.metrics import ReleaseMetric
from cumulant.release.evidence.metrics import metrics as release_metrics
from cumulant.release.look_history import LookHistory, MetricHistory, MetricLook
from cumulant.release.state import Board, Release

#: looks of a metric from which every second one is dropped, the ends of steps excepted
MOST_LOOKS = 240


def add_look(history: LookHistory | None, counted: Release, *, at: datetime) -> LookHistory:
    """The history with a look that `accumulate.count_look` added to the release; `at`: when.

    A metric whose evidence is the same as at its look before has no new one. Where nothing changed, the same history.
    """
    if history is None or history.release != counted.id:
        steps = tuple(step.label for step in counted.steps)
        history = LookHistory(release=counted.id, steps=steps, alpha=counted.policy.alpha)
    metrics, named = dict(history.metrics), release_metrics(counted.policy)
    for name, board in counted.boards.items():
        if board.margin is None or not sum(board.samples.values()):
            continue
        before = metrics.get(name) or _without_looks(board, board.margin, named[name])
        if before.kind is None:  # an older version of the program began to record the release
            before = msgspec.structs.replace(before, kind=named[name].kind, two_sided=named[name].two_sided)
        if not before.looks or _is_new(before.looks[-1], board, counted.at):
            looks = _thinned((*before.looks, _look(board, counted, at)))
            metrics[name] = msgspec.structs.replace(before, looks=looks)
    return history if metrics == history.metrics else msgspec.structs.replace(history, metrics=metrics)


def _without_looks(board: Board, margin: float, metric: ReleaseMetric) -> MetricHistory:
    return MetricHistory(
        metric=board.metric,
        unit=board.unit,
        margin=margin,
        required=board.required,
        harm_bar=board.harm_bar,
        fine_bar=board.fine_bar,
        two_sided=metric.two_sided,
        kind=metric.kind,
    )


def _is_new(last: MetricLook, board: Board, step: int) -> bool:
    return (last.harm, last.fine, last.step) != (board.most_harm, board.combined_fine, step)


def _look(board: Board, release: Release, at: datetime) -> MetricLook:
    board = with_interval(board)
    difference, low, high = slow_share_interval(board)
    if board.unit != "ms":
        low, high = board.low, board.high
        if board.champion is not None and board.candidate is not None:
            difference = board.candidate - board.champion
    verdict = board.verdict
    return MetricLook(
        at=at,
        seconds=release.seconds + sum(step.seconds for step in release.passed),
        step=release.at,
        champion_samples=board.samples.get(CHAMPION, 0),
        candidate_samples=board.samples.get(CANDIDATE, 0),
        champion=board.champion,
        candidate=board.candidate,
        difference=difference,
        low=low,
        high=high,
        harm=board.most_harm,
        fine=board.combined_fine,
        harmful=verdict.harmful,
        acceptable=verdict.acceptable,
    )


def _thinned(looks: Sequence[MetricLook]) -> tuple[MetricLook, ...]:
    """The looks, every second one of too many; the first, the newest and the last of each step stay."""
    if len(looks) <= MOST_LOOKS:
        return tuple(looks)
    last = len(looks) - 1
    return tuple(
        look
        for place, look in enumerate(looks)
        if place % 2 == 0 or place == last or looks[place + 1].step != look.step
    )
