"""Lengths of evidence blocks, in looks: as declared, or longer where the champion's earlier pairs need it."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from cumulant.core.units import show_duration, to_micros
from cumulant.flows.outcomes.labels import outcomes_of
from cumulant.release.evidence.metrics import ReleaseMetric, metrics
from cumulant.statistics.sequential.long_run_variance import LongRunVariance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cumulant.outcomes.join.joining import Outcomes
    from cumulant.outcomes.join.mirrored_pairs import GradedPair, MirroredPair
    from cumulant.project.project import Project
    from cumulant.release.policy import ReleasePolicy
    from cumulant.statistics.sequential.arrays import Floats

#: earlier pairs that are read, the newest ones
_MOST = 200_000
_SECOND = 1_000_000
#: seconds of a block of quality where nothing is declared and no earlier pairs are known
_UNKNOWN = 86_400.0


def looks_a_block(policy: ReleasePolicy) -> int:
    """Looks in the declared block."""
    return _looks(policy.block, policy)


def looks_by_metric(project: Project, policy: ReleasePolicy, champion: str) -> dict[str, int]:
    """Looks in a block of each metric of pairs, and of a metric of your own with a block of its own.

    Raises:
        StorageError: earlier pairs cannot be read.
    """
    outcomes = outcomes_of(project)

    def history(metric: ReleaseMetric) -> Floats:
        if metric.kind != "pairs":
            return np.zeros(0)
        return _history(outcomes, metric, champion, metric.block or policy.block)

    return _by_metric(policy, history)


def looks_without_pairs(policy: ReleasePolicy) -> dict[str, int]:
    """The same where no earlier pairs of the champion are known."""
    return _by_metric(policy, lambda _: np.zeros(0))


def _by_metric(policy: ReleasePolicy, history: Callable[[ReleaseMetric], Floats]) -> dict[str, int]:
    looks_by_name, mirrored = {}, any(step.mirror for step in policy.steps)
    for name, metric in metrics(policy).items():
        if metric.kind not in ("pairs", "own") or metric.margin is None or (metric.kind == "pairs" and not mirrored):
            continue
        looks = _looks_of(policy, metric, history(metric))
        if looks != looks_a_block(policy):
            looks_by_name[name] = looks
    return looks_by_name


def _looks_of(policy: ReleasePolicy, metric: ReleaseMetric, history: Floats) -> int:
    declared = metric.block or policy.block
    known = block_factor(history)
    if known is None:
        without = _UNKNOWN if metric.name == "quality" and metric.block is None else declared
        return _looks(without, policy)
    return _looks(declared, policy) * known


def block_factor(history: Floats) -> int | None:
    """How many declared blocks make one whose neighbours are nearly independent; None: `history` [blocks] is too short.

    The length is the one beyond which the long-run variance of the means no longer grows.
    """
    series = LongRunVariance.start().add(history)
    if series.visible() < 2:
        return None
    length, effect = series.block()
    return math.ceil(length * effect)


def block_means(differences: Sequence[tuple[int, float]], seconds: float) -> Floats:
    """Mean difference of each block of so many seconds that has pairs, in order; of (microseconds, difference)."""
    if not differences:
        return np.zeros(0)
    place = np.array([time for time, _ in differences]) // round(seconds * _SECOND)
    _, block = np.unique(place, return_inverse=True)
    sums = np.bincount(block, weights=np.array([difference for _, difference in differences]))
    return np.asarray(sums / np.bincount(block), dtype=np.float64)


def longer_block_notes(by_metric: dict[str, int], policy: ReleasePolicy) -> list[str]:
    """A sentence for each metric whose block is longer than was declared."""
    look, named = policy.look, metrics(policy)
    notes = []
    for name, looks in by_metric.items():
        if looks <= _looks(named[name].block or policy.block, policy):
            continue
        length = show_duration(timedelta(seconds=looks * look))
        if name == "quality" and looks == _looks(_UNKNOWN, policy) and named[name].block is None:
            notes.append(
                f"nothing says how long outcomes depend on each other, so that {length} of pairs are one block of the"
                " evidence of quality; declare release.metrics.quality.block where you know better"
            )
        else:
            notes.append(
                f"{length} of pairs are one block of the evidence of {name}: earlier pairs depend on each other"
            )
    return notes


def _looks(block: float, policy: ReleasePolicy) -> int:
    # Whole microseconds: 1.1 s are 11 looks of 0.1 s, which the quotient of the floats exceeds.
    return max(1, math.ceil(timedelta(seconds=block) / timedelta(seconds=policy.look)))


def _history(outcomes: Outcomes, metric: ReleaseMetric, champion: str, seconds: float) -> Floats:
    newest_of = outcomes.newest_graded if metric.name == "quality" else outcomes.newest_pairs
    pairs: Sequence[GradedPair] | Sequence[MirroredPair] = newest_of(_MOST)
    mine = [pair for pair in pairs if champion in (pair.champion_version, pair.candidate_version)]
    newest = [pair for pair in mine if _versions(pair) == _versions(mine[-1])]
    valued = [(to_micros(pair.time), value) for pair in newest if (value := _value(pair, metric)) is not None]
    return block_means(valued, seconds)


def _versions(pair: GradedPair | MirroredPair) -> tuple[str, str]:
    return pair.champion_version, pair.candidate_version


def _value(pair: GradedPair | MirroredPair, metric: ReleaseMetric) -> float | None:
    if metric.name == "disagreement":
        return float(getattr(pair, "differs", False))
    if pair.champion is None or pair.candidate is None:
        return None
    difference = pair.candidate - pair.champion
    return abs(difference) if metric.name == "distance" else difference
